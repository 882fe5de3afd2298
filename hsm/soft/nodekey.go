package soft

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
)

// identity is the node's signing key behind crypto.Signer. The lock lets Close wipe it while a stray handshake is signing.
type identity struct {
	hsm.Redacted
	public *ecdsa.PublicKey
	mu     sync.RWMutex
	key    *ecdsa.PrivateKey // nil: closed
}

// Public implements crypto.Signer.
func (i *identity) Public() crypto.PublicKey { return i.public }

// Sign takes SHA-256 digests only: that is what P-256 certificates and TLS 1.3 use, and a device may not cut or fill another
// length the way Go does. The first argument is ignored, as by crypto/ecdsa.
func (i *identity) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("%w: the node's identity signs SHA-256 digests only", hsm.ErrInput)
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.key == nil {
		return nil, hsm.ErrClosed
	}
	return erased(func() ([]byte, error) { return ecdsa.SignASN1(rand.Reader, i.key, digest) })
}

func (i *identity) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.key != nil {
		wipeECDSA(i.key)
	}
	i.key = nil
}

// exchange is the node's key agreement key behind ecdh.KeyExchanger. Go's key cannot be overwritten from outside: close drops it
// for the collector.
type exchange struct {
	hsm.Redacted
	public *ecdh.PublicKey
	mu     sync.RWMutex
	key    *ecdh.PrivateKey // nil: closed
}

// PublicKey implements ecdh.KeyExchanger.
func (e *exchange) PublicKey() *ecdh.PublicKey { return e.public }

// Curve implements ecdh.KeyExchanger.
func (e *exchange) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH implements ecdh.KeyExchanger.
func (e *exchange) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.key == nil {
		return nil, hsm.ErrClosed
	}
	return erased(func() ([]byte, error) { return e.key.ECDH(remote) })
}

func (e *exchange) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.key = nil
}

// openNodeKeys parses the two keys of the keystore. hsm.ErrTokenDamaged.
func openNodeKeys(c *contents) (*identity, *exchange, error) {
	signing, err := parseNodeKey(c.identity)
	if err != nil {
		return nil, nil, err
	}
	agreement, err := parseNodeKey(c.exchange)
	if err != nil {
		return nil, nil, err
	}
	defer wipeECDSA(agreement)
	dh, err := agreement.ECDH()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the exchange key", hsm.ErrTokenDamaged)
	}
	return &identity{public: &signing.PublicKey, key: signing}, &exchange{public: dh.PublicKey(), key: dh}, nil
}

func parseNodeKey(der []byte) (*ecdsa.PrivateKey, error) {
	seed, _, err := privateSeed(hsm.ECDSAP256, der)
	if err != nil {
		return nil, fmt.Errorf("%w: a key of the node", hsm.ErrTokenDamaged)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed)
	if err != nil {
		return nil, fmt.Errorf("%w: a key of the node", hsm.ErrTokenDamaged)
	}
	return key, nil
}
