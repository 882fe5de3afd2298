package fsm

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// lastInstant is the end of the year 9999: a later time has no RFC 3339 form.
const lastInstant = 253402300799999

// Stamped returns e with the leader's time, in UTC and cut to the millisecond that the log keeps.
func (e Entry) Stamped(t time.Time) Entry {
	e.Time = t.UTC().Truncate(time.Millisecond)
	return e
}

// EncodeEntry returns the bytes that raft carries. ErrInvalid for a command that is none of this package's, text that is not
// UTF-8, or an entry larger than MaxEntry; it checks nothing else, which is Apply's office.
func EncodeEntry(e Entry) ([]byte, error) {
	payload := commandToWire(e.Command)
	if payload == nil {
		return nil, invalid("%T is not a command of the state machine", e.Command)
	}
	body, err := proto.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: encoding %T: %w", ErrInvalid, e.Command, err)
	}
	w := &fsmpb.Entry{
		Type: uint32(e.Command.entryType()), MustUnderstand: true,
		RequestId: string(e.RequestID), Actor: string(e.Actor), TimeMs: toMillis(e.Time), Payload: body,
		Credential: e.Credential,
	}
	if e.RequestHash != [32]byte{} {
		w.RequestHash = e.RequestHash[:]
	}
	data, err := proto.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("%w: encoding entry: %w", ErrInvalid, err)
	}
	if len(data) > MaxEntry {
		return nil, invalid("an entry of %d bytes, the limit is %d", len(data), MaxEntry)
	}
	return data, nil
}

// DecodeEntry is total. ErrInvalid for bytes that are no entry; ErrUnknownEntry for a must-understand entry whose type, or a
// field of it, this release does not know. An unknown type without the flag decodes to Ignored.
func DecodeEntry(data []byte) (Entry, error) {
	w, unknown, err := decodeEnvelope(data)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{
		Actor: Actor(w.GetActor()), RequestID: RequestID(w.GetRequestId()), RequestHash: hash32(w.GetRequestHash()),
		Credential: w.GetCredential(),
		Time:       fromMillis(w.GetTimeMs()),
	}
	e.Command, err = decodeCommand(w, unknown)
	return e, err
}

func decodeEnvelope(data []byte) (*fsmpb.Entry, bool, error) {
	if len(data) > MaxEntry {
		return nil, false, invalid("an entry of %d bytes, the limit is %d", len(data), MaxEntry)
	}
	w := new(fsmpb.Entry)
	unknown, err := unmarshal(data, w)
	if err != nil {
		return nil, false, invalid("the bytes are no entry")
	}
	if w.GetType() == 0 {
		return nil, false, invalid("an entry without a type")
	}
	if n := len(w.GetRequestHash()); n != 0 && n != 32 {
		return nil, false, invalid("a request hash of %d bytes, not 32", n)
	}
	if ms := w.GetTimeMs(); ms < 0 || ms > lastInstant {
		return nil, false, invalid("the time %d ms is outside the calendar", ms)
	}
	return w, unknown, nil
}

// decodeCommand never embeds the decoder's own error text in what becomes a result: that text is not the same in every
// release of the library, and results must be equal on every node.
func decodeCommand(w *fsmpb.Entry, unknown bool) (Command, error) {
	t := EntryType(w.GetType())
	payload := newPayload(t)
	if payload == nil {
		if w.GetMustUnderstand() {
			return nil, fmt.Errorf("%w: type %d", ErrUnknownEntry, t)
		}
		return Ignored{Type: t}, nil
	}
	more, err := unmarshal(w.GetPayload(), payload)
	if err != nil {
		return nil, invalid("the payload of an entry of type %d is malformed", t)
	}
	switch {
	case !unknown && !more:
		return commandFromWire(payload), nil
	case w.GetMustUnderstand():
		return nil, fmt.Errorf("%w: type %d carries a field of a newer release", ErrUnknownEntry, t)
	default:
		return nil, invalid("an entry of type %d carries an unknown field", t)
	}
}
