package fsm

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// Times travel as Unix milliseconds, because that is what the log promises; 0 is "none", so the first millisecond of 1970
// cannot be told and is not needed.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// mapped converts a slice element by element; empty becomes nil, so that a round trip does not tell nil from empty.
func mapped[A, B any](in []A, convert func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

// texts converts between slices of string types.
func texts[B, A ~string](in []A) []B {
	return mapped(in, func(a A) B { return B(a) })
}

// hash32 takes exactly 32 bytes; anything else is the zero hash.
func hash32(b []byte) (h [32]byte) {
	if len(b) == len(h) {
		copy(h[:], b)
	}
	return h
}

// unmarshal decodes strictly: it reports separately whether fields were met that this release does not know.
func unmarshal(b []byte, m proto.Message) (unknown bool, err error) {
	if err := proto.Unmarshal(b, m); err != nil {
		return false, err
	}
	return hasUnknown(m.ProtoReflect()), nil
}

func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	for _, fd := range nested[m.Descriptor()] {
		if m.Has(fd) && unknownIn(m.Get(fd), fd.IsList()) {
			return true
		}
	}
	return false
}

func unknownIn(v protoreflect.Value, isList bool) bool {
	if !isList {
		return hasUnknown(v.Message())
	}
	for i := range v.List().Len() {
		if hasUnknown(v.List().Get(i).Message()) {
			return true
		}
	}
	return false
}

// nested are the fields of each message that are messages themselves: the only ones that hasUnknown has to look into. To range over
// all fields took as long as decoding. None is a map, which a test holds.
var nested = nestedFields(fsmpb.File_fsm_fsmpb_fsm_proto.Messages())

func nestedFields(messages protoreflect.MessageDescriptors) map[protoreflect.MessageDescriptor][]protoreflect.FieldDescriptor {
	all := make(map[protoreflect.MessageDescriptor][]protoreflect.FieldDescriptor, messages.Len())
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			if fd := m.Fields().Get(j); fd.Message() != nil {
				all[m] = append(all[m], fd)
			}
		}
	}
	return all
}
