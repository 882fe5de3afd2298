package hsm

// Binding names everything that a wrapped key is tied to. RFC 5649 has no associated data, and any blob can be unwrapped as
// another type; the binding MAC closes that (see Binding.Encode).
type Binding struct {
	ClusterID  string
	KeyID      string // the key's UUID
	Version    uint32 // from 1
	Algorithm  Algorithm
	Generation uint32 // of the master under which the blob was wrapped
	PublicKey  []byte // DER SubjectPublicKeyInfo; empty for secret keys
	Exportable bool   // wrapped under wrap-export and not under wrap
}

// WrappedKey is key material as it rests in the catalog: an RFC 5649 blob of the raw secret (length a multiple of 8) or of
// the PKCS#8 DER of a private key, and an HMAC-SHA-256 under the bind key over the binding and the blob. It is no secret, but
// it is checked before any device sees it.
type WrappedKey struct {
	Binding Binding
	Blob    []byte
	MAC     []byte // 32 bytes
}

// Limits of what is accepted from outside before any cryptography is done.
const (
	MaxBlob = 4096 // the largest wrapped PKCS#8 here (RSA-4096) needs 2384
	// MaxPublicKey: an ML-DSA-87 public key has 2592 bytes, its SubjectPublicKeyInfo 2614. A state machine that keeps public keys needs the
	// same limit.
	MaxPublicKey = 3072
)
