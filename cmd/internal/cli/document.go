package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// object is a JSON object whose members keep their order. Values are object, []any, string, bool, integers, json.Number or nil.
type object []member

type member struct {
	name  string
	value any
}

// get returns a member's value; nil if there is none.
func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// without returns o without the named members.
func (o object) without(names ...string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return slices.Contains(names, m.name) })
}

// with returns o with one more member at its end.
func (o object) with(name string, value any) object {
	return append(slices.Clip(o), member{name, value})
}

// MarshalJSON keeps the order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := encode(m.name)
		if err != nil {
			return nil, err
		}
		value, err := encode(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode is JSON without the escapes meant for HTML, which only make texts hard to read.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// documentOf turns what a command prints into an object: protobuf messages field by field, anything else by its own JSON.
func documentOf(v any) (object, error) {
	switch v := v.(type) {
	case object:
		return v, nil
	case *vaultpb.KeyReply: // the key is what was asked for; the index goes beside its fields
		return message(v.GetKey().ProtoReflect()).with("index", v.GetIndex()), nil
	case *vaultpb.ClassReply: // likewise
		return message(v.GetClass().ProtoReflect()).with("index", v.GetIndex()), nil
	case proto.Message:
		return message(v.ProtoReflect()), nil
	}
	text, err := encode(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	tree, err := ordered(dec)
	if err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	if o, ok := tree.(object); ok {
		return o, nil
	}
	return object{{"value", tree}}, nil
}

// ordered reads one JSON value and keeps the order of objects.
func ordered(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			o = append(o, member{name.(string), value})
		}
		_, err = dec.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = dec.Token()
		return list, err
	}
	return token, nil
}

// message lists every field in the order of its number, set or not.
func message(m protoreflect.Message) object {
	o := object{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		o = append(o, member{string(fields.Get(i).Name()), fieldValue(m, fields.Get(i))})
	}
	return o
}

func fieldValue(m protoreflect.Message, f protoreflect.FieldDescriptor) any {
	value := m.Get(f)
	switch {
	case f.IsMap():
		return mapValue(value.Map(), f)
	case f.IsList() && isLabel(f):
		return labelsValue(value.List())
	case f.IsList():
		list := make([]any, value.List().Len())
		for i := range list {
			list[i] = scalar(value.List().Get(i), f)
		}
		return list
	case f.Message() != nil && !m.Has(f):
		return nil
	}
	return scalar(value, f)
}

func scalar(v protoreflect.Value, f protoreflect.FieldDescriptor) any {
	switch f.Kind() {
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return strings.ToLower(string(d.Name()))
		}
		return int64(v.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().Format(time.RFC3339Nano)
		case *durationpb.Duration:
			return m.AsDuration().String()
		}
		return message(v.Message())
	}
	return v.Interface()
}

func mapValue(m protoreflect.Map, f protoreflect.FieldDescriptor) object {
	o := object{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		o = append(o, member{k.String(), scalar(v, f.MapValue())})
		return true
	})
	slices.SortFunc(o, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return o
}

// isLabel: labels are unique by name, so {"env": "prod"} says all, and is what a script looks into.
func isLabel(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == (*vaultpb.Label)(nil).ProtoReflect().Descriptor().FullName()
}

func labelsValue(list protoreflect.List) object {
	o := object{}
	for i := range list.Len() {
		l := list.Get(i).Message().Interface().(*vaultpb.Label)
		o = append(o, member{l.GetName(), l.GetValue()})
	}
	return o
}
