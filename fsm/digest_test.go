package fsm_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// TestFieldsAreDeclaredAscending: the digest walks them as declared.
func TestFieldsAreDeclaredAscending(t *testing.T) {
	messages := fsmpb.File_fsm_fsmpb_fsm_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := 1; j < fields.Len(); j++ {
			if fields.Get(j).Number() <= fields.Get(j-1).Number() {
				t.Errorf("%s is declared after a greater number", fields.Get(j).FullName())
			}
		}
	}
}

// TestDigestCoversEveryField changes each populated field of each record of a furnished state, one at a time, and expects
// another digest or a refusal to restore.
func TestDigestCoversEveryField(t *testing.T) {
	for level, s := range map[string]*stage{"1": furnished(t), "newest": furnished(t).raised()} {
		t.Run(level, func(t *testing.T) { digestCoversEveryField(t, s.m.State()) })
	}
}

func digestCoversEveryField(t *testing.T, original *fsm.State) {
	all := records(t, snapshot(t, original))
	changes := 0
	for i, record := range all {
		for _, path := range leafFields(record.ProtoReflect()) {
			other := proto.Clone(record).(*fsmpb.Record)
			path(other.ProtoReflect())
			varied := append(append(append([]*fsmpb.Record{}, all[:i]...), other), all[i+1:]...)
			m := fsm.New()
			if err := m.Restore(bytes.NewReader(sealed(t, varied...))); err != nil {
				continue
			}
			changes++
			if m.State().Digest() == original.Digest() {
				t.Fatalf("the digest does not see the difference between\n%v\nand\n%v", record, other)
			}
		}
	}
	if changes < 200 {
		t.Errorf("only %d fields were tried", changes)
	}
}

// leafFields returns, for every populated scalar under m, a function that changes it in a copy of m.
func leafFields(m protoreflect.Message) []func(protoreflect.Message) {
	var all []func(protoreflect.Message)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList():
			for i := range v.List().Len() {
				all = append(all, listElement(fd, i, v.List().Get(i))...)
			}
		case fd.Message() != nil:
			for _, inner := range leafFields(v.Message()) {
				all = append(all, func(c protoreflect.Message) { inner(c.Mutable(fd).Message()) })
			}
		default:
			all = append(all, func(c protoreflect.Message) { c.Set(fd, altered(fd, v)) })
		}
		return true
	})
	return all
}

func listElement(fd protoreflect.FieldDescriptor, i int, v protoreflect.Value) []func(protoreflect.Message) {
	if fd.Message() == nil {
		return []func(protoreflect.Message){func(c protoreflect.Message) { c.Mutable(fd).List().Set(i, altered(fd, v)) }}
	}
	var all []func(protoreflect.Message)
	for _, inner := range leafFields(v.Message()) {
		all = append(all, func(c protoreflect.Message) { inner(c.Mutable(fd).List().Get(i).Message()) })
	}
	return all
}

func altered(fd protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.StringKind:
		s := []byte(v.String())
		s[len(s)-1] ^= 1
		return protoreflect.ValueOfString(string(s))
	case protoreflect.BytesKind:
		b := bytes.Clone(v.Bytes())
		b[0] ^= 1
		return protoreflect.ValueOfBytes(b)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint()) ^ 1)
	default:
		return protoreflect.ValueOfUint64(v.Uint() + 1)
	}
}
