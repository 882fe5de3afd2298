package ceremony

import (
	"crypto/sha256"
	"encoding/binary"
)

// frame is a message under construction: a domain, then fields, each with its length as 32 bits big endian. Lengths make the
// encoding injective; the domain keeps a message of one purpose from being one of another.
type frame []byte

func newFrame(domain string) frame { return frame(nil).text(domain) }

func (f frame) bytes(b []byte) frame {
	return append(binary.BigEndian.AppendUint32(f, uint32(len(b))), b...)
}

func (f frame) text(s string) frame { return f.bytes([]byte(s)) }

// number writes a count or a place; it has a fixed width, so it needs no length.
func (f frame) number(n int) frame { return binary.BigEndian.AppendUint64(f, uint64(n)) }

// list writes a count and the fields, so that the end of one list is not the start of the next.
func (f frame) list(items [][]byte) frame {
	f = f.number(len(items))
	for _, item := range items {
		f = f.bytes(item)
	}
	return f
}

func (f frame) sum() [32]byte { return sha256.Sum256(f) }
