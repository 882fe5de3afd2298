package ceremony

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted replaces every secret wherever one is printed.
const redacted = "[redacted]"

// redaction is embedded in each secret type: no verb of fmt, no logger and no encoder shows what stands beside it.
type redaction struct{}

func (redaction) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, redacted) }
func (redaction) String() string               { return redacted }
func (redaction) GoString() string             { return redacted }
func (redaction) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (redaction) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (redaction) MarshalText() ([]byte, error) { return []byte(redacted), nil }
