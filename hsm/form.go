package hsm

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// Form is how key material is wrapped to a public key, on its way into a token or out of it. Both forms end in RFC 5649 under an AES-256 key
// that serves once; they differ in how the other side comes to that key.
type Form string

const (
	FormRSA  Form = "rsa-oaep-sha256+aes256-kwp"          // keywrap.WrapRSA; CKM_RSA_AES_KEY_WRAP
	FormECDH Form = "ecdh-p256+x963kdf-sha256+aes256-kwp" // keywrap.WrapECDH; CKM_ECDH_AES_KEY_WRAP
)

// shortForms are the names that users type.
var shortForms = map[string]Form{"rsa-aes": FormRSA, "ecdh": FormECDH}

// FormNames lists the short names.
func FormNames() []string { return []string{"rsa-aes", "ecdh"} }

// ParseForm finds a form by its name, long or short. ErrInput.
func ParseForm(name string) (Form, error) {
	if f, ok := shortForms[name]; ok {
		return f, nil
	}
	if f := Form(name); f == FormRSA || f == FormECDH {
		return f, nil
	}
	return "", fmt.Errorf("%w: a form of wrapping %.64q; there are %v", ErrInput, name, FormNames())
}

// Limits of a recipient's key.
const (
	minRecipientBits = 3072 // 128 bits of strength (SP 800-57 Part 1 §5.6.1), what protects a key being no weaker than most keys
	maxRecipientBits = 8192
	maxRecipient     = 2048 // bytes of SubjectPublicKeyInfo; RSA-8192 has 1062
)

// Recipient is a public key to which key material is exported: RSA of 3072 to 8192 bits, or P-256.
type Recipient struct {
	form Form
	spki []byte
	rsa  *rsa.PublicKey
	ecdh *ecdh.PublicKey
}

// ParseRecipient takes a DER SubjectPublicKeyInfo. Form is that of its kind of key; empty: whichever that is. The DER must be the one encoding of the key, so
// that the fingerprint names it. ErrInput.
func ParseRecipient(spki []byte, form Form) (Recipient, error) {
	r, err := parseRecipient(spki)
	if err != nil {
		return Recipient{}, err
	}
	if form != "" && form != r.form {
		return Recipient{}, fmt.Errorf("%w: the recipient's key is for the form %s, not %.64s", ErrInput, r.form, form)
	}
	return r, nil
}

func parseRecipient(spki []byte) (Recipient, error) {
	if len(spki) == 0 || len(spki) > maxRecipient {
		return Recipient{}, fmt.Errorf("%w: a recipient's SubjectPublicKeyInfo of %d bytes, from 1 to %d are", ErrInput, len(spki), maxRecipient)
	}
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return Recipient{}, fmt.Errorf("%w: the recipient's key is no SubjectPublicKeyInfo", ErrInput)
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, spki) {
		return Recipient{}, fmt.Errorf("%w: the recipient's SubjectPublicKeyInfo is not in DER", ErrInput)
	}
	r := Recipient{spki: bytes.Clone(spki)}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRecipientBits || n > maxRecipientBits || key.E < 65537 || key.E%2 == 0 {
			return Recipient{}, fmt.Errorf("%w: a recipient's RSA key has %d to %d bits and an odd exponent from 65537, not %d bits and %d", ErrInput, minRecipientBits, maxRecipientBits, n, key.E)
		}
		r.form, r.rsa = FormRSA, key
		return r, nil
	case *ecdsa.PublicKey:
		if public, err := key.ECDH(); err == nil && public.Curve() == ecdh.P256() {
			r.form, r.ecdh = FormECDH, public
			return r, nil
		}
	}
	return Recipient{}, fmt.Errorf("%w: a recipient's key is RSA of at least %d bits, or on P-256", ErrInput, minRecipientBits)
}

// Form is how material is wrapped to the key.
func (r Recipient) Form() Form { return r.form }

// PublicKey is the DER SubjectPublicKeyInfo.
func (r Recipient) PublicKey() []byte { return bytes.Clone(r.spki) }

// RSA is the key of FormRSA, else nil.
func (r Recipient) RSA() *rsa.PublicKey { return r.rsa }

// ECDH is the key of FormECDH, else nil.
func (r Recipient) ECDH() *ecdh.PublicKey { return r.ecdh }

// Fingerprint names the key: SHA-256 of its SubjectPublicKeyInfo.
func (r Recipient) Fingerprint() [sha256.Size]byte { return sha256.Sum256(r.spki) }

// NoExport is the refusal of a token that is no keyuse.Exporter. The device would have to unwrap under wrap-export into what it can wrap
// again, and wrap that to a key from outside; of the mechanisms for it, SoftHSM has none.
func NoExport(t Token) error {
	info := t.Info()
	return fmt.Errorf("%w: exporting from a %s token (%s): it takes CKM_RSA_AES_KEY_WRAP or CKM_ECDH_AES_KEY_WRAP with SHA-256, which this release does not drive (SoftHSM has CKM_RSA_PKCS_OAEP with SHA-1 only)",
		ErrUnsupported, info.Backend, info.Model)
}
