package usage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Kind of a record.
type Kind uint8

// Kinds of records; numbers are never reused.
const (
	KindUse     Kind = 1 // of a key
	KindStart   Kind = 2 // a process began
	KindSegment Kind = 3 // a segment begins
	KindGap     Kind = 4 // records that stayed out because the log was full
)

// Outcome of a use.
type Outcome uint8

// Outcomes; numbers are never reused.
const (
	// Done: there was a result. It was let go unless a later record withholds this one. In a durable class the record comes before the
	// last decision, so without one that withholds it a use was let go, or the process ended in between.
	Done Outcome = 1
	// NotVerified: the key was used, and the answer was that what was given does not verify.
	NotVerified Outcome = 2
	// Withheld: there was a result, and the decision after it kept it back. Of names the record that this withholds, if there is one.
	Withheld Outcome = 3
)

func (o Outcome) String() string {
	switch o {
	case Done:
		return "done"
	case NotVerified:
		return "not-verified"
	case Withheld:
		return "withheld"
	default:
		return fmt.Sprintf("outcome %d", uint8(o))
	}
}

// Limits of the texts of an entry, in bytes. They bound what others give; nothing here is longer than what it comes from may be.
const (
	maxName = 512 // of an operation, a key id, a role, a name, a serial, a boot id
	// MaxRequestID bounds what a client calls its request.
	MaxRequestID = 128
)

// Entry is a record as people and checkers see it. Which fields are set depends on its kind; all have Sequence, Kind, Time and Boot.
type Entry struct {
	Sequence uint64
	Kind     Kind
	Time     time.Time // of the node's wall clock; of a use: before the last decision
	Boot     string    // of the process that wrote it

	// Of a use.
	Index      uint64 // applied by the state that decided; where the record comes before the last decision, by the one that admitted the use
	KeyID      string
	Version    uint32
	Operation  string
	Role, Name string // of the caller
	Serial     string // of the caller's certificate
	RequestID  string // as the client called it; may be empty
	Bytes      uint64 // that the operation was given
	Outcome    Outcome
	Of         uint64 // sequence of the record that this one withholds; 0: none

	// Of a start.
	Node string
	Cut  uint64 // bytes of a torn record that were cut off the end

	// Of a gap.
	Missing uint64 // records that stayed out

	previous [32]byte // of a segment: the hash of the record before
}

// An entry's data is: u8 kind ‖ u64 time in Unix nanoseconds ‖ what the kind has, in the order below; texts with a u16 length before
// them, numbers big-endian. It is the input of the chain's hash, so each entry has exactly one form.

func appendHead(b []byte, k Kind, unixNano int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(k)), uint64(unixNano))
}

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), maxName)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendUse is on the path of every use: it allocates nothing if b has room.
func appendUse(b []byte, e *Entry) []byte {
	b = appendHead(b, KindUse, e.Time.UnixNano())
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint32(b, e.Version)
	b = binary.BigEndian.AppendUint64(b, e.Bytes)
	b = append(b, byte(e.Outcome))
	b = binary.BigEndian.AppendUint64(b, e.Of)
	for _, s := range [...]string{e.KeyID, e.Operation, e.Role, e.Name, e.Serial, e.RequestID} {
		b = appendText(b, s)
	}
	return b
}

func appendStart(b []byte, e *Entry) []byte {
	b = appendHead(b, KindStart, e.Time.UnixNano())
	b = binary.BigEndian.AppendUint64(b, e.Cut)
	return appendText(appendText(b, e.Node), e.Boot)
}

func appendSegment(b []byte, at time.Time, boot string, previous [32]byte) []byte {
	b = append(appendHead(b, KindSegment, at.UnixNano()), previous[:]...)
	return appendText(b, boot)
}

func appendGap(b []byte, at time.Time, missing uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHead(b, KindGap, at.UnixNano()), missing)
}

var errEntry = errors.New("its bytes are no entry")

// decodeEntry is total: whatever the bytes are, it returns an entry that encodes to them again, or an error.
func decodeEntry(data []byte) (Entry, error) {
	r := reader{data}
	e := Entry{Kind: Kind(r.u8()), Time: time.Unix(0, int64(r.u64())).UTC()}
	switch e.Kind {
	case KindUse:
		e.Index, e.Version, e.Bytes, e.Outcome, e.Of = r.u64(), r.u32(), r.u64(), Outcome(r.u8()), r.u64()
		for _, s := range []*string{&e.KeyID, &e.Operation, &e.Role, &e.Name, &e.Serial, &e.RequestID} {
			*s = r.text()
		}
		if e.Outcome < Done || e.Outcome > Withheld {
			return Entry{}, errEntry
		}
	case KindStart:
		e.Cut, e.Node, e.Boot = r.u64(), r.text(), r.text()
	case KindSegment:
		copy(e.previous[:], r.take(len(e.previous)))
		e.Boot = r.text()
	case KindGap:
		e.Missing = r.u64()
	default:
		return Entry{}, errEntry
	}
	if r.b == nil || len(r.b) != 0 {
		return Entry{}, errEntry
	}
	return e, nil
}

// reader takes bytes apart. What is not there reads as zeros and makes b nil, for good.
type reader struct{ b []byte }

var nothing [64]byte

func (r *reader) take(n int) []byte {
	if r.b == nil || n > len(r.b) {
		r.b = nil
		return nothing[:min(n, len(nothing))]
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) text() string {
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if n > maxName {
		r.b = nil
	}
	if r.b == nil {
		return ""
	}
	if s := r.take(n); r.b != nil {
		return string(s)
	}
	return ""
}
