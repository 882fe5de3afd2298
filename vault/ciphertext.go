package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
)

// A ciphertext is: format (1 byte) ‖ key id (16 bytes) ‖ version (4 bytes) ‖ nonce ‖ AES-256-GCM ciphertext ‖ tag. The header
// is part of the associated data, so it cannot be exchanged; a key recreated under an old name has another id.
const (
	ciphertextFormat = 1
	headerSize       = 1 + 16 + 4
	maxOverhead      = headerSize + 12 + 16
)

// Limits of an encryption context.
const (
	maxContextPairs = 32
	maxContextBytes = 4096
)

var errHeader = errors.New("this is no ciphertext of Conclave")

type header struct {
	key     uuid.UUID
	version fsm.Version
}

func newHeader(id fsm.KeyID, v fsm.Version) (header, error) {
	u, err := uuid.Parse(string(id))
	return header{key: u, version: v}, err
}

func (h header) encode() []byte {
	b := append([]byte{ciphertextFormat}, h.key[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(h.version))
}

func (h header) names(id fsm.KeyID) bool { return h.key.String() == string(id) }

// parseHeader is total. Version 0 never occurs in a ciphertext.
func parseHeader(b []byte) (header, []byte, error) {
	if len(b) < maxOverhead || b[0] != ciphertextFormat {
		return header{}, nil, errHeader
	}
	h := header{key: uuid.UUID(b[1:17]), version: fsm.Version(binary.BigEndian.Uint32(b[17:headerSize]))}
	if h.version == 0 {
		return header{}, nil, errHeader
	}
	return h, b[headerSize:], nil
}

// aad is the associated data: the header, then the context's pairs sorted by name, each string length-prefixed.
func (h header) aad(c Context) []byte {
	b := append([]byte("conclave/v1/ciphertext"), h.encode()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c)))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, s := range []string{name, c[name]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return b
}

func (c Context) validate() error {
	if len(c) > maxContextPairs {
		return fmt.Errorf("%w: a context of %d pairs, at most %d", ErrInvalid, len(c), maxContextPairs)
	}
	size := 0
	for name, value := range c {
		if name == "" {
			return fmt.Errorf("%w: a context pair without a name", ErrInvalid)
		}
		size += len(name) + len(value)
	}
	if size > maxContextBytes {
		return fmt.Errorf("%w: a context of %d bytes, at most %d", ErrInvalid, size, maxContextBytes)
	}
	return nil
}
