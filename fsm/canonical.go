package fsm

import (
	"encoding/binary"
	"time"
)

// canonical builds bytes that are hashed or signed: big-endian integers, and strings behind their length in four bytes, so
// that no two different values have the same form. Protobuf promises no such thing.
type canonical []byte

// domain opens a message with its purpose and version, so that a signature for one purpose is none for another.
func domain(purpose string) canonical { return canonical(nil).text("conclave/v1/" + purpose) }

func (c canonical) text(s string) canonical {
	return append(c.uint32(uint32(len(s))), s...)
}

func (c canonical) bytes(b []byte) canonical {
	return append(c.uint32(uint32(len(b))), b...)
}

func (c canonical) uint32(n uint32) canonical { return binary.BigEndian.AppendUint32(c, n) }
func (c canonical) uint64(n uint64) canonical { return binary.BigEndian.AppendUint64(c, n) }
func (c canonical) time(t time.Time) canonical {
	return c.uint64(uint64(toMillis(t)))
}
