package soft

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"github.com/conclave-vault/conclave/hsm"
)

// wiper is the material of a working copy, whatever it can be used for.
type wiper interface{ wipe() }

// What a working copy's material can do; each kind of key is one of them.
type (
	// signer signs; its input was validated for its algorithm.
	signer interface {
		wiper
		sign(hsm.SignInput) ([]byte, error)
	}
	// opener decrypts.
	opener interface {
		wiper
		decrypt(ciphertext, aad []byte) ([]byte, error)
	}
	// agreer agrees with the peer whose SubjectPublicKeyInfo it is given.
	agreer interface {
		wiper
		agree(peer []byte) ([]byte, error)
	}
	decapsulator interface {
		wiper
		decapsulate(ciphertext []byte) ([]byte, error)
	}
)

// openPair makes a usable key of a seed that is known to be good and to belong to public.
func openPair(alg hsm.Algorithm, seed, public []byte) (wiper, error) {
	switch alg {
	case hsm.ECDSAP256, hsm.ECDSAP384, hsm.ECDSAP521:
		return openECDSA(alg, seed)
	case hsm.ECDSASecp256k1:
		return openSecp256k1(seed), nil
	case hsm.Ed25519:
		return openEd25519(seed), nil
	case hsm.ECDHP256, hsm.ECDHX25519:
		return openAgreement(alg, seed, public)
	case hsm.MLDSA44, hsm.MLDSA65, hsm.MLDSA87:
		return openMLDSA(alg, seed)
	case hsm.MLKEM768:
		return openMLKEM(seed)
	}
	return nil, fmt.Errorf("%w: algorithm %q", hsm.ErrUnsupported, alg)
}

// cipherKey encrypts. Its key schedule cannot be overwritten from outside crypto/aes: wipe drops it for the collector.
type cipherKey struct{ aead cipher.AEAD }

func openCipher(alg hsm.Algorithm, material []byte) (*cipherKey, error) {
	if len(material) != secretSize(alg) {
		return nil, errMaterial
	}
	aead, err := newGCM(material)
	if err != nil {
		return nil, fmt.Errorf("opening a cipher key: %w", err)
	}
	return &cipherKey{aead: aead}, nil
}

// newGCM is AES-GCM with nonces of 12 bytes that the implementation draws and puts in front, so that no caller can repeat one, and
// which passes FIPS 140-3 (SP 800-38D §8.2.2).
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (c *cipherKey) wipe() { c.aead = nil }

func (c *cipherKey) encrypt(plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) > hsm.MaxMessage || len(aad) > hsm.MaxAAD {
		return nil, fmt.Errorf("%w: %d bytes with %d associated, at most %d and %d are; use a data key",
			hsm.ErrInput, len(plaintext), len(aad), hsm.MaxMessage, hsm.MaxAAD)
	}
	return c.aead.Seal(nil, nil, plaintext, aad), nil
}

func (c *cipherKey) decrypt(ciphertext, aad []byte) ([]byte, error) {
	// What encrypt would not have made does not verify.
	if len(ciphertext) > hsm.MaxMessage+c.aead.Overhead() || len(aad) > hsm.MaxAAD {
		return nil, hsm.ErrVerify
	}
	plaintext, err := c.aead.Open(nil, nil, ciphertext, aad)
	if err != nil {
		return nil, hsm.ErrVerify
	}
	return plaintext, nil
}

// macKey computes HMAC. Its key is a slot of the region.
type macKey struct {
	key    []byte
	hash   func() hash.Hash
	region *region
}

// macHash is the hash of an HMAC algorithm, 0 for others. Keys have its length (RFC 2104 §3).
func macHash(alg hsm.Algorithm) crypto.Hash {
	switch alg {
	case hsm.HMACSHA256:
		return crypto.SHA256
	case hsm.HMACSHA384:
		return crypto.SHA384
	case hsm.HMACSHA512:
		return crypto.SHA512
	}
	return 0
}

func openMAC(alg hsm.Algorithm, material []byte, r *region) (*macKey, error) {
	if len(material) != secretSize(alg) {
		return nil, errMaterial
	}
	m := &macKey{hash: sha256.New, region: r}
	switch alg {
	case hsm.HMACSHA384:
		m.hash = sha512.New384
	case hsm.HMACSHA512:
		m.hash = sha512.New
	}
	m.key = r.keep(material)
	return m, nil
}

func (m *macKey) wipe() {
	m.region.give(m.key)
	m.key = nil
}

func (m *macKey) mac(message []byte) ([]byte, error) {
	if len(message) > hsm.MaxMessage {
		return nil, fmt.Errorf("%w: a message of %d bytes, at most %d are", hsm.ErrInput, len(message), hsm.MaxMessage)
	}
	h := hmac.New(m.hash, m.key)
	h.Write(message)
	return h.Sum(nil), nil
}

func (m *macKey) verify(message, mac []byte) error {
	want, err := m.mac(message)
	if err != nil || !hmac.Equal(want, mac) {
		return hsm.ErrVerify // too large a message has no MAC of this key
	}
	return nil
}
