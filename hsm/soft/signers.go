package soft

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/conclave-vault/conclave/hsm"
)

// ecdsaKey signs on a NIST curve, by the one scheme of its algorithm.
type ecdsaKey struct {
	key    *ecdsa.PrivateKey
	scheme hsm.Scheme
}

func openECDSA(alg hsm.Algorithm, scalar []byte) (*ecdsaKey, error) {
	key, err := ecdsa.ParseRawPrivateKey(nistCurve(alg), scalar)
	if err != nil {
		return nil, errMaterial
	}
	return &ecdsaKey{key: key, scheme: hsm.SignInput{}.For(alg)}, nil
}

func (e *ecdsaKey) wipe() { wipeECDSA(e.key) }

// sign is randomised by crypto/ecdsa from key, digest and the system's generator together, so that a weak generator does not
// reveal the key.
func (e *ecdsaKey) sign(in hsm.SignInput) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, e.key, in.Hash(e.scheme))
}

// wipeECDSA overwrites the scalar. crypto/ecdsa may have a copy of its own, which dies with the key.
func wipeECDSA(key *ecdsa.PrivateKey) {
	//lint:ignore SA1019 there is no other way to reach the words that hold the scalar
	clear(key.D.Bits())
}

type secp256k1Key struct{ key *secp256k1.PrivateKey }

func openSecp256k1(scalar []byte) *secp256k1Key {
	return &secp256k1Key{secp256k1.PrivKeyFromBytes(scalar)}
}

func (s *secp256k1Key) wipe() { s.key.Zero() }

// compactOffset is what the library adds to a recovery id, by Bitcoin's custom, and puts in front.
const compactOffset = 27

// sign is deterministic (RFC 6979) with low s, and the same r and s in both schemes.
func (s *secp256k1Key) sign(in hsm.SignInput) ([]byte, error) {
	digest := in.Hash(hsm.SchemeECDSASHA256)
	if in.For(hsm.ECDSASecp256k1) != hsm.SchemeECDSASHA256Recoverable {
		return k1ecdsa.Sign(s.key, digest).Serialize(), nil
	}
	compact := k1ecdsa.SignCompact(s.key, digest, false)
	return append(compact[1:], compact[0]-compactOffset), nil
}

// ed25519Key is on the Go heap: crypto/ed25519 keeps a weak reference to the key it is given, which memory outside the heap
// cannot have.
type ed25519Key struct{ key ed25519.PrivateKey }

func openEd25519(seed []byte) *ed25519Key { return &ed25519Key{ed25519.NewKeyFromSeed(seed)} }

func (e *ed25519Key) wipe() { clear(e.key) }

func (e *ed25519Key) sign(in hsm.SignInput) ([]byte, error) {
	return ed25519.Sign(e.key, in.Message), nil
}

// mldsaKey has one expanded key, with the functions of its parameter set. The library's types are structs without pointers to
// secrets, so wiping overwrites all of it.
type mldsaKey struct {
	signTo func(message, signature []byte) error
	size   int // of a signature, in bytes
	erase  func()
}

func openMLDSA(alg hsm.Algorithm, seed []byte) (*mldsaKey, error) {
	switch {
	case len(seed) != mldsa44.SeedSize: // of all three
	case alg == hsm.MLDSA44:
		_, key := mldsa44.NewKeyFromSeed((*[mldsa44.SeedSize]byte)(seed))
		sign := func(m, sig []byte) error { return mldsa44.SignTo(key, m, nil, hedged, sig) }
		return &mldsaKey{sign, mldsa44.SignatureSize, func() { *key = mldsa44.PrivateKey{} }}, nil
	case alg == hsm.MLDSA65:
		_, key := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
		sign := func(m, sig []byte) error { return mldsa65.SignTo(key, m, nil, hedged, sig) }
		return &mldsaKey{sign, mldsa65.SignatureSize, func() { *key = mldsa65.PrivateKey{} }}, nil
	case alg == hsm.MLDSA87:
		_, key := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
		sign := func(m, sig []byte) error { return mldsa87.SignTo(key, m, nil, hedged, sig) }
		return &mldsaKey{sign, mldsa87.SignatureSize, func() { *key = mldsa87.PrivateKey{} }}, nil
	}
	return nil, errMaterial
}

// hedged: fresh randomness goes into each signature beside the key, against faults and side channels (FIPS 204 §3.4). It is the
// library's own, from the system's generator.
const hedged = true

func (m *mldsaKey) wipe() { m.erase() }

func (m *mldsaKey) sign(in hsm.SignInput) ([]byte, error) {
	signature := make([]byte, m.size)
	if err := m.signTo(in.Message, signature); err != nil {
		return nil, err
	}
	return signature, nil
}
