package ceremony

import (
	"encoding/binary"
	"fmt"
)

// ShareSize is the length of an encoded share: the number as 16 bits big endian, then the scalar.
const ShareSize = 2 + SecretSize

// Share is one custodian's share: the value of the dealt polynomial at Number, which is the custodian's place in the roster,
// from 1. Copies share their value: Wipe ends them all.
type Share struct {
	redaction
	Number uint16
	value  *shareValue
}

// shareValue is reached over two pointers. In someone's unexported field Format is not asked: there fmt prints a pointer as an
// address, but follows one of them when the verb is a wrong one, as %s.
type shareValue struct{ scalar *[SecretSize]byte }

// Encode returns the share's ShareSize bytes, which the caller wipes.
func (s Share) Encode() []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, ShareSize), s.Number)
	if s.value == nil {
		return append(b, make([]byte, SecretSize)...)
	}
	return append(b, s.value.scalar[:]...)
}

// DecodeShare reads an encoded share. It says that the bytes are a share, not that it is a right one: that is Verify.
func DecodeShare(b []byte) (Share, error) {
	if len(b) != ShareSize {
		return Share{}, fmt.Errorf("%w: %d bytes, not %d", ErrShare, len(b), ShareSize)
	}
	if _, ok := decodeScalar(b[2:]); !ok {
		return Share{}, fmt.Errorf("%w: the value is not a scalar", ErrShare)
	}
	n := binary.BigEndian.Uint16(b)
	if n == 0 || n > MaxCustodians {
		return Share{}, fmt.Errorf("%w: number %d is not in 1…%d", ErrShare, n, MaxCustodians)
	}
	return newShare(n, b[2:]), nil
}

func newShare(number uint16, value []byte) Share {
	scalar := new([SecretSize]byte)
	copy(scalar[:], value)
	return Share{Number: number, value: &shareValue{scalar}}
}

// Wipe overwrites the value in every copy of the share; best effort, since the runtime may have copied it.
func (s Share) Wipe() {
	if s.value != nil {
		clear(s.value.scalar[:])
	}
}
