package keywrap

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
)

// ephemeralSize is the length in bytes of the AES key between the two layers.
const ephemeralSize = 32

// WrapRSA wraps plaintext (1 to MaxPlaintext bytes) to an RSA public key: RSA-OAEP with SHA-256, MGF1 over SHA-256 and no label, of an
// ephemeral AES-256 key, followed by the plaintext wrapped under that key (Wrap). It is CKM_RSA_AES_KEY_WRAP of PKCS#11 v3.0 §6.1.9 with a
// key of 256 bits, the form in which cloud key managers take keys from outside. ErrInput for what Wrap does not take, or an RSA
// key that is too small for OAEP.
func WrapRSA(public *rsa.PublicKey, plaintext []byte) ([]byte, error) {
	ephemeral := make([]byte, ephemeralSize)
	defer clear(ephemeral)
	if _, err := rand.Read(ephemeral); err != nil {
		return nil, fmt.Errorf("drawing an ephemeral key: %w", err)
	}
	inner, err := Wrap(ephemeral, plaintext)
	if err != nil {
		return nil, err
	}
	outer, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, ephemeral, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: RSA-OAEP: %w", ErrInput, err)
	}
	return append(outer, inner...), nil
}

// UnwrapRSA is the inverse. Every failure is ErrUnwrap, and the inner layer is tried whether or not the outer one opened, so that neither text
// nor clock tells which layer failed (Manger 2001). The caller wipes what it gets.
func UnwrapRSA(private *rsa.PrivateKey, wrapped []byte) ([]byte, error) {
	size := private.Size()
	if len(wrapped) <= size {
		return nil, ErrUnwrap
	}
	kek := make([]byte, ephemeralSize)
	defer clear(kek)
	if _, err := rand.Read(kek); err != nil { // what the inner layer is tried with if the outer one fails
		return nil, ErrUnwrap
	}
	ephemeral, err := rsa.DecryptOAEP(sha256.New(), nil, private, wrapped[:size], nil)
	defer clear(ephemeral)
	opened := err == nil && len(ephemeral) == ephemeralSize
	if opened {
		copy(kek, ephemeral)
	}
	plaintext, err := Unwrap(kek, wrapped[size:])
	if err != nil || !opened {
		clear(plaintext)
		return nil, ErrUnwrap
	}
	return plaintext, nil
}
