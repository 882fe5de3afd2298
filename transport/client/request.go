package client

import (
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// requestIDField is the field that makes a message a write that can be repeated safely.
const requestIDField protoreflect.Name = "request_id"

// NewRequestID makes a request id: a UUIDv7, whose time lets the cluster refuse ids older than its horizon.
func NewRequestID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making a request id: %w", err)
	}
	return id.String(), nil
}

// withRequestID returns args, or a copy with a new id where the field is there and empty, and the id that is sent (empty for
// reads).
func withRequestID(args any) (any, string, error) {
	message, ok := args.(proto.Message)
	if !ok {
		return args, "", nil
	}
	field := message.ProtoReflect().Descriptor().Fields().ByName(requestIDField)
	if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
		return args, "", nil
	}
	if id := message.ProtoReflect().Get(field).String(); id != "" {
		return args, id, nil
	}
	id, err := NewRequestID()
	if err != nil {
		return nil, "", err
	}
	filled := proto.Clone(message)
	filled.ProtoReflect().Set(field, protoreflect.ValueOfString(id))
	return filled, id, nil
}
