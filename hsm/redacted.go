package hsm

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted, embedded in a struct that holds secrets, keeps every way of printing it from showing them: all verbs of fmt, slog,
// JSON and text encodings give the same placeholder. The struct must not be converted to another type, which would lose it.
type Redacted struct{}

const redacted = "[redacted]"

// Format serves every verb: String alone would leave %d and %x of the fields open.
func (Redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer.
func (Redacted) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Redacted) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (Redacted) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Redacted) MarshalText() ([]byte, error) { return []byte(redacted), nil }
