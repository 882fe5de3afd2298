package soft

import (
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
)

// ParsePrivate is the strict PKCS#8 parser, for fuzzing; the result is the secret bytes.
func ParsePrivate(alg hsm.Algorithm, der []byte) ([]byte, error) {
	seed, _, err := privateSeed(alg, der)
	return seed, err
}

// NewMaterial draws a key as Generate does.
var NewMaterial = newMaterial

// ParseRSA is the parser of an RSA key's PKCS#8.
var ParseRSA = parseRSA

// DecodeContents decodes and encodes again.
func DecodeContents(b []byte) ([]byte, error) {
	c, err := decodeContents(b)
	if err != nil {
		return nil, err
	}
	return c.encode(), nil
}

// SampleContents are valid contents, with and without a kept master.
func SampleContents(kept bool) []byte {
	c := &contents{
		serial: "0123456789abcdef", identity: []byte{1, 2}, exchange: []byte{3}, storage: storageKey{epoch: 1, key: make([]byte, keySize)},
	}
	if kept {
		c.kept = &keptMaster{
			Persistence: hsm.Persistence{ClusterID: "c", Generation: 2, UnsealedAt: 3},
			wrap:        make([]byte, keySize), export: make([]byte, keySize), bind: make([]byte, keySize),
		}
	}
	return c.encode()
}

// ParseKeystore is the parser of the file.
func ParseKeystore(file []byte) error {
	_, _, err := parseKeystore(file)
	return err
}

// Slots gives every slot in the token's protected memory, those in use and those not, as one copy.
func (t *Token) Slots() (all []byte) {
	t.region.mu.Lock()
	defer t.region.mu.Unlock()
	for _, chunk := range t.region.chunks {
		all = append(all, chunk...)
	}
	return all
}

// Leaked is how many slots are taken.
func (t *Token) Leaked() int {
	t.region.mu.Lock()
	defer t.region.mu.Unlock()
	return len(t.region.chunks)*chunkSize/slotSize - len(t.region.free)
}

// Residue opens a key, wipes it, and gives the secret words that can be reached before and after. nil: none can.
func Residue(alg hsm.Algorithm, material, spki []byte) (before, after []byte, err error) {
	key, err := openMaterial(alg, material, spki, nil)
	if err != nil {
		return nil, nil, err
	}
	look := reachable(key)
	before = slices.Clone(look())
	key.wipe()
	return before, look(), nil
}

func reachable(key wiper) func() []byte {
	numbers := func(all ...*big.Int) func() []byte {
		var words [][]big.Word
		for _, n := range all {
			words = append(words, n.Bits()) // the words themselves, which stay when the number is set anew
		}
		return func() (b []byte) {
			for _, w := range words {
				b = append(b, new(big.Int).SetBits(slices.Clone(w)).Bytes()...)
			}
			return b
		}
	}
	ofRSA := func(k *rsa.PrivateKey) func() []byte {
		return numbers(k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv)
	}
	switch k := key.(type) {
	case *ecdsaKey:
		//lint:ignore SA1019 there is no other way to reach the words that hold the scalar
		return numbers(k.key.D)
	case *secp256k1Key:
		return func() []byte { b := k.key.Key.Bytes(); return b[:] }
	case *ed25519Key:
		return func() []byte { return k.key }
	case *rsaKey:
		return ofRSA(k.key)
	case *oaepKey:
		return ofRSA(k.key)
	}
	return func() []byte { return nil }
}

// PublishedImportPair has import keys made of published primes until restore is called.
func PublishedImportPair() (restore func()) {
	real := drawImportPair
	drawImportPair = func() (*rsa.PrivateKey, error) {
		key, err := x509.ParsePKCS8PrivateKey(selftest.RSA(importBits))
		if err != nil {
			return nil, err
		}
		return key.(*rsa.PrivateKey), nil
	}
	return func() { drawImportPair = real }
}
