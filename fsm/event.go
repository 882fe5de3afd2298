package fsm

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// eventVersion opens every leaf. A new form gets a new number; the old ones stay readable for ever, because the tree over
// them does.
const eventVersion = 1

// maxEvent bounds what DecodeEvent looks at: each of nine texts is far smaller than this in every event ever made.
const maxEvent = 64 << 10

// Encode returns the leaf: the version byte, then the fields in the order of the struct, integers big-endian, texts behind
// their length, the time as Unix milliseconds. There is exactly one form for each event.
func (e Event) Encode() []byte {
	return e.appendTo(make(canonical, 0, 512)) // most events fit
}

func (e Event) appendTo(b canonical) canonical {
	b = append(b, eventVersion)
	b = b.uint64(e.Leaf).uint64(e.Index).time(e.Time)
	b = b.text(string(e.Actor)).text(e.Action).text(e.Subject).text(e.SubjectID).uint32(uint32(e.Version))
	b = b.text(e.From).text(e.To).text(e.Reason).text(string(e.RequestID)).text(e.Detail)
	return b
}

// DecodeEvent is the inverse of Encode and total: ErrEvent for bytes that Encode cannot have made.
func DecodeEvent(data []byte) (Event, error) {
	r := reader{rest: data}
	if len(data) > maxEvent {
		return Event{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrEvent, len(data), maxEvent)
	}
	if v := r.take(1); len(v) != 1 || v[0] != eventVersion {
		return Event{}, fmt.Errorf("%w: they do not begin with version %d", ErrEvent, eventVersion)
	}
	e := Event{Leaf: r.uint64(), Index: r.uint64()}
	ms := r.uint64()
	e.Actor, e.Action, e.Subject, e.SubjectID = Actor(r.text()), r.text(), r.text(), r.text()
	e.Version = Version(r.uint32())
	e.From, e.To, e.Reason, e.RequestID, e.Detail = r.text(), r.text(), r.text(), RequestID(r.text()), r.text()
	switch {
	case r.failed:
		return Event{}, fmt.Errorf("%w: they end early or hold text that is not UTF-8", ErrEvent)
	case len(r.rest) > 0:
		return Event{}, fmt.Errorf("%w: %d bytes are left over", ErrEvent, len(r.rest))
	case ms > lastInstant:
		return Event{}, fmt.Errorf("%w: the time is outside the calendar", ErrEvent)
	}
	e.Time = fromMillis(int64(ms))
	return e, nil
}

// reader takes canonical bytes apart. After the first failure every take is empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) text() string {
	b := r.take(uint64(r.uint32()))
	r.failed = r.failed || !utf8.Valid(b)
	return string(b)
}
