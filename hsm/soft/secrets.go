package soft

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/subtle"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
)

// Keys that establish secrets.

// agreement is a static Diffie-Hellman key. Go's key cannot be overwritten from outside: wipe drops it for the collector.
type agreement struct {
	algorithm hsm.Algorithm
	curve     ecdh.Curve
	public    []byte
	key       *ecdh.PrivateKey
}

func openAgreement(alg hsm.Algorithm, seed, public []byte) (*agreement, error) {
	curve := ecdh.P256()
	if alg == hsm.ECDHX25519 {
		curve = ecdh.X25519()
	}
	key, err := curve.NewPrivateKey(seed)
	if err != nil {
		return nil, errMaterial
	}
	return &agreement{algorithm: alg, curve: curve, public: public, key: key}, nil
}

func (a *agreement) wipe() { a.key = nil }

// agree refuses what gives a secret that others know. A point off the curve fails to parse; one of small order on X25519 makes the
// secret zero, which crypto/ecdh refuses and which is checked here again, because all depends on it. The key's own public half
// is a reflected message (SP 800-56A §5.6.2 lets a party refuse what it did not expect), and no use of a static key needs it.
func (a *agreement) agree(peer []byte) ([]byte, error) {
	point, err := hsm.ParsePublicKey(a.algorithm, peer)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(point, a.public) {
		return nil, fmt.Errorf("%w: the peer's public key is the key's own", hsm.ErrInput)
	}
	public, err := a.curve.NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("%w: no %s public key", hsm.ErrInput, a.algorithm)
	}
	secret, err := a.key.ECDH(public)
	if err != nil || isZero(secret) {
		clear(secret)
		return nil, fmt.Errorf("%w: the peer's public key leads to no secret", hsm.ErrInput)
	}
	return secret, nil
}

func isZero(b []byte) bool { return subtle.ConstantTimeCompare(b, make([]byte, len(b))) == 1 }

// kemKey decapsulates. crypto/mlkem keeps its key to itself: wipe drops it for the collector.
type kemKey struct{ key *mlkem.DecapsulationKey768 }

func openMLKEM(seed []byte) (*kemKey, error) {
	key, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		return nil, errMaterial
	}
	return &kemKey{key}, nil
}

func (k *kemKey) wipe() { k.key = nil }

func (k *kemKey) decapsulate(ciphertext []byte) ([]byte, error) {
	shared, err := k.key.Decapsulate(ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: a ciphertext of %d bytes, %s has %d", hsm.ErrInput, len(ciphertext), hsm.MLKEM768, mlkem.CiphertextSize768)
	}
	return shared, nil
}
