package keyuse

import (
	"context"

	"github.com/conclave-vault/conclave/hsm"
)

// Port opens wrapped keys for use.
type Port interface {
	// Open checks the binding MAC, then unwraps k into a working copy that is sensitive, not extractable and bound to the
	// master session. hsm.ErrSealed, hsm.ErrGeneration, hsm.ErrWrappedKey, hsm.ErrUnsupported. The caller releases the Key.
	Open(ctx context.Context, k hsm.WrappedKey) (Key, error)
}

// Exporter is a Port that hands material out, wrapped to somebody's public key. Not every device can: see the backend, and hsm.NoExport.
type Exporter interface {
	// Export checks k as Open does, then unwraps it and wraps the material (the raw secret, or PKCS#8 DER of the private key) to the recipient, inside
	// the token. Only what was wrapped under wrap-export leaves: hsm.ErrInput for any other key. hsm.ErrSealed, hsm.ErrGeneration,
	// hsm.ErrWrappedKey.
	Export(ctx context.Context, k hsm.WrappedKey, to hsm.Recipient) ([]byte, error)
}

// Key is a working copy. It is safe for concurrent use. After Release (called once) every method fails with hsm.ErrClosed;
// Release waits for nobody: operations under way finish first, the copy is destroyed when the last has ended. When the
// token is sealed, every method fails with hsm.ErrSealed.
type Key interface {
	// Sign returns a signature by the scheme: DER SEQUENCE{r,s} for ECDSA (low-S on secp256k1), r‖s‖v for the recoverable scheme,
	// 64 bytes for Ed25519, as many bytes as the modulus for RSA, the encoding of FIPS 204 for ML-DSA.
	Sign(ctx context.Context, in hsm.SignInput) ([]byte, error)
	// Encrypt returns nonce ‖ ciphertext ‖ tag; the nonce is the token's own random of 12 bytes.
	Encrypt(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Decrypt is the inverse; hsm.ErrVerify for anything that is not exactly what Encrypt returned for aad. With a key of
	// hsm.FamilyDecrypt it opens what hsm.EncryptOAEP made; then aad is empty, hsm.ErrInput otherwise.
	Decrypt(ctx context.Context, ciphertext, aad []byte) ([]byte, error)
	// MAC returns the full-length tag.
	MAC(ctx context.Context, message []byte) ([]byte, error)
	// VerifyMAC compares in constant time; hsm.ErrVerify.
	VerifyMAC(ctx context.Context, message, mac []byte) error
	// Agree computes the shared secret with a peer's public key, a DER SubjectPublicKeyInfo of the key's own algorithm: the x
	// coordinate on P-256, 32 bytes (SP 800-56A §5.7.1.2), the 32 bytes of RFC 7748 for X25519. It is no key yet: the caller puts it
	// through a key derivation function, and wipes it. hsm.ErrInput for what is no such public key, for a point whose shared secret
	// would be zero, and for the key's own public half.
	Agree(ctx context.Context, peer []byte) (secret []byte, err error)
	// Decapsulate returns the shared key of 32 bytes that the ciphertext leads to (FIPS 203). hsm.ErrInput for a ciphertext of the
	// wrong length; any other one gives some key (implicit rejection): that it is the peer's key shows in its use only.
	Decapsulate(ctx context.Context, ciphertext []byte) (sharedKey []byte, err error)
	// Release gives the working copy back.
	Release()
}
