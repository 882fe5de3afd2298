package hsm

import (
	"context"
	"fmt"
)

// MaxImport bounds in bytes what ImportKey.Import takes: an RSA-OAEP block of 384 bytes, and a PKCS#8 of RSA-4096 under RFC 5649.
const MaxImport = 4096

// Importer is a Token that takes key material from elsewhere, wrapped to a key that the token made for this one purpose. Not every
// device can: see the backend.
type Importer interface {
	// NewImportKey makes a one-time import key in the open master session: an RSA-3072 pair (FormRSA) or a P-256 pair (FormECDH), whose private
	// half never leaves the token and dies with Destroy, with the session, or with the first Import. ErrSealed, ErrInput for another form,
	// ErrUnsupported (with the mechanism that is missing).
	NewImportKey(ctx context.Context, form Form) (ImportKey, error)
}

// ImportKey is one such key. It is safe for concurrent use; the caller calls Destroy.
type ImportKey interface {
	// PublicKey is a DER SubjectPublicKeyInfo: what material is wrapped to (keywrap.WrapRSA, keywrap.WrapECDH).
	PublicKey() []byte
	// Import unwraps material (the raw secret, or PKCS#8 DER of a private key), checks that it is a key of b.Algorithm of proper
	// strength, derives its public key, tries it, and wraps it under the open master as Generate does. Whatever comes of it, the import
	// key is destroyed: an attempt per key leaves nothing to probe. The caller chose b as for Generate, and with b.Exportable under which
	// of the master's keys it rests. ErrInput if it does not unwrap or is
	// not such a key, ErrUnsupported, ErrSealed; ErrClosed for a second attempt or after Destroy.
	Import(ctx context.Context, b Binding, wrapped []byte) (WrappedKey, error)
	// Destroy ends the key after what is under way. A second call does nothing.
	Destroy()
}

// NoImport is the refusal of a token that is no Importer. A device would have to unwrap with an RSA key of its own into what it can wrap
// again under the master and never show, and of that chain SoftHSM lacks the first link.
func NoImport(t Token) error {
	info := t.Info()
	return fmt.Errorf("%w: importing into a %s token (%s): it takes CKM_RSA_AES_KEY_WRAP, or CKM_RSA_PKCS_OAEP with SHA-256 and CKM_AES_KEY_WRAP_PAD under one template, which this release does not drive; import through a node with the soft token",
		ErrUnsupported, info.Backend, info.Model)
}
