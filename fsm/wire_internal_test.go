package fsm

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// TestUnknownFieldsAreFoundEverywhere puts a field that nobody knows into every message at every place where it can stand, and none.
func TestUnknownFieldsAreFoundEverywhere(t *testing.T) {
	messages := fsmpb.File_fsm_fsmpb_fsm_proto.Messages()
	places := 0
	for i := range messages.Len() {
		places += unknownWithin(t, messages.Get(i), func(m protoreflect.Message) protoreflect.Message { return m })
	}
	if places < 100 {
		t.Errorf("only %d places were tried", places)
	}
}

// unknownWithin tries a message and what can stand in it; inside puts it where it belongs and returns the outermost one.
func unknownWithin(t *testing.T, md protoreflect.MessageDescriptor, inside func(protoreflect.Message) protoreflect.Message) int {
	m := dynamicpb.NewMessage(md)
	if hasUnknown(inside(m)) {
		t.Errorf("%s: found where there is nothing", md.FullName())
	}
	m = dynamicpb.NewMessage(md)
	m.SetUnknown([]byte("\xfa\x06\x01x"))
	if !hasUnknown(inside(m)) {
		t.Errorf("%s: not found", md.FullName())
	}
	places := 1
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.IsMap() {
			t.Fatalf("%s is a map, into which hasUnknown does not look", fd.FullName())
		}
		if fd.Message() == nil {
			continue
		}
		places += unknownWithin(t, fd.Message(), func(child protoreflect.Message) protoreflect.Message {
			parent := dynamicpb.NewMessage(md)
			if fd.IsList() {
				parent.Mutable(fd).List().Append(protoreflect.ValueOfMessage(child))
			} else {
				parent.Set(fd, protoreflect.ValueOfMessage(child))
			}
			return inside(parent)
		})
	}
	return places
}
