package hsm

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// bindingLabel separates the binding MAC from any other use of the bind key. A new layout gets a new label.
const bindingLabel = "conclave/v1/binding"

// Limits of the names in a binding, in bytes. They keep the encoding small; both names are UUIDs or short labels.
const (
	MaxClusterID = 128
	MaxKeyID     = 128
)

// Encode returns the canonical bytes of b: the label and every field, each string preceded by its length in four bytes, so that
// no two bindings have the same encoding. All integers are big endian.
func (b Binding) Encode() []byte {
	out := appendField(nil, []byte(bindingLabel))
	out = appendField(out, []byte(b.ClusterID))
	out = appendField(out, []byte(b.KeyID))
	out = binary.BigEndian.AppendUint32(out, b.Version)
	out = appendField(out, []byte(b.Algorithm))
	out = binary.BigEndian.AppendUint32(out, b.Generation)
	out = appendField(out, b.PublicKey)
	if b.Exportable {
		return append(out, 1)
	}
	return append(out, 0)
}

func appendField(out, field []byte) []byte {
	return append(binary.BigEndian.AppendUint32(out, uint32(len(field))), field...)
}

// BindingMessage is what the binding MAC is computed over: the encoded binding, then the blob with its length. A device that
// holds the bind key signs these bytes with HMAC-SHA-256.
func BindingMessage(b Binding, blob []byte) []byte { return appendField(b.Encode(), blob) }

// BindingMAC computes the binding MAC of blob in software.
func BindingMAC(bindKey []byte, b Binding, blob []byte) []byte {
	h := hmac.New(sha256.New, bindKey)
	h.Write(BindingMessage(b, blob))
	return h.Sum(nil)
}

// CheckBinding verifies the binding MAC of k in constant time. ErrWrappedKey.
func CheckBinding(bindKey []byte, k WrappedKey) error {
	if !hmac.Equal(BindingMAC(bindKey, k.Binding, k.Blob), k.MAC) {
		return fmt.Errorf("%w: its binding", ErrWrappedKey)
	}
	return nil
}

// ValidateSubject checks what the caller of Generate chooses: cluster, key, version and algorithm. ErrInput, ErrUnsupported.
func (b Binding) ValidateSubject() error {
	switch {
	case b.ClusterID == "" || len(b.ClusterID) > MaxClusterID:
		return fmt.Errorf("%w: a cluster id of %d bytes, from 1 to %d are", ErrInput, len(b.ClusterID), MaxClusterID)
	case b.KeyID == "" || len(b.KeyID) > MaxKeyID:
		return fmt.Errorf("%w: a key id of %d bytes, from 1 to %d are", ErrInput, len(b.KeyID), MaxKeyID)
	case b.Version == 0:
		return fmt.Errorf("%w: key version 0, they start at 1", ErrInput)
	case !b.Algorithm.Known():
		return fmt.Errorf("%w: algorithm %q", ErrUnsupported, b.Algorithm)
	}
	return nil
}

// Validate checks a complete binding: ValidateSubject, a generation, and a public key exactly where the algorithm has one.
// ErrInput, ErrUnsupported.
func (b Binding) Validate() error {
	if err := b.ValidateSubject(); err != nil {
		return err
	}
	if b.Generation == 0 {
		return fmt.Errorf("%w: master generation 0, they start at 1", ErrInput)
	}
	if !b.Algorithm.Asymmetric() {
		if len(b.PublicKey) != 0 {
			return fmt.Errorf("%w: a public key for %s", ErrInput, b.Algorithm)
		}
		return nil
	}
	_, err := ParsePublicKey(b.Algorithm, b.PublicKey)
	return err
}

// Validate checks the limits of k before any cryptography is done: a complete binding, a blob that key wrap can have made, a
// MAC of full length. ErrWrappedKey; ErrUnsupported for an algorithm that this release does not know.
func (k WrappedKey) Validate() error {
	if err := k.Binding.ValidateSubject(); err != nil && !k.Binding.Algorithm.Known() {
		return err
	}
	if err := k.Binding.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrWrappedKey, err) // %v: one sentinel only, callers map it to one code
	}
	// RFC 5649 makes at least two semiblocks of eight bytes and nothing between.
	if n := len(k.Blob); n < 16 || n > MaxBlob || n%8 != 0 {
		return fmt.Errorf("%w: a blob of %d bytes", ErrWrappedKey, n)
	}
	if len(k.MAC) != sha256.Size {
		return fmt.Errorf("%w: a binding MAC of %d bytes", ErrWrappedKey, len(k.MAC))
	}
	return nil
}
