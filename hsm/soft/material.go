package soft

import (
	"bytes"
	"fmt"
	"io"

	"github.com/conclave-vault/conclave/hsm"
)

// newMaterial draws a key of alg. It returns the bytes that are wrapped (the raw secret, or PKCS#8 DER), which the caller wipes,
// and the SubjectPublicKeyInfo where there is one. A key pair is tried before it is given away: the pairwise consistency test of
// FIPS 140-3 (IG 10.3.A), which finds a fault in the generation before anything is signed or encrypted with its outcome.
func newMaterial(alg hsm.Algorithm, random io.Reader) (material, spki []byte, err error) {
	material, spki, err = drawMaterial(alg, random)
	if err != nil || !alg.Asymmetric() {
		return material, spki, err
	}
	if err := tryPair(alg, material, spki); err != nil {
		clear(material)
		return nil, nil, fmt.Errorf("trying a new %s key: %w", alg, err)
	}
	return material, spki, nil
}

// drawMaterial is newMaterial without the trial.
func drawMaterial(alg hsm.Algorithm, random io.Reader) (material, spki []byte, err error) {
	if n := secretSize(alg); n != 0 {
		material = make([]byte, n)
		if _, err := io.ReadFull(random, material); err != nil {
			return nil, nil, fmt.Errorf("drawing a %s key: %w", alg, err)
		}
		return material, nil, nil
	}
	material, public, err := newPair(alg, random)
	if err != nil {
		return nil, nil, err
	}
	if spki, err = hsm.MarshalPublicKey(alg, public); err != nil {
		clear(material)
		return nil, nil, fmt.Errorf("encoding a new %s key: %w", alg, err)
	}
	return material, spki, nil
}

// secretSize is the length in bytes of a secret key of alg: a multiple of eight, so that a device that fills before it wraps does
// not change it; 0 if alg has key pairs.
func secretSize(alg hsm.Algorithm) int {
	switch alg {
	case hsm.AES128GCM:
		return 16
	case hsm.AES256GCM:
		return 32
	}
	if hash := macHash(alg); hash != 0 {
		return hash.Size()
	}
	return 0
}

// newPair draws a key pair: PKCS#8 DER, and the public key in the form of hsm.MarshalPublicKey.
func newPair(alg hsm.Algorithm, random io.Reader) (material, public []byte, err error) {
	if rsaBits(alg) != 0 {
		return newRSA(alg)
	}
	seed := make([]byte, seedSize(alg))
	defer clear(seed)
	if public, err = drawSeed(alg, random, seed); err != nil {
		return nil, nil, err
	}
	if material, err = marshalPrivate(alg, seed, public); err != nil {
		return nil, nil, fmt.Errorf("encoding a new %s key: %w", alg, err)
	}
	return material, public, nil
}

func tryPair(alg hsm.Algorithm, material, spki []byte) error {
	usable, err := openMaterial(alg, material, spki, nil) // nil: no key pair lives in the region
	if err != nil {
		return err
	}
	defer usable.wipe()
	return exercise(alg, usable, spki)
}

// marshalPrivate makes the PKCS#8 DER. On NIST curves it holds the public key, as Go's own encoder has it; for secp256k1 it does not,
// as devices have it: both forms are read.
func marshalPrivate(alg hsm.Algorithm, seed, public []byte) ([]byte, error) {
	curve := curveOf(alg)
	switch {
	case curve == nil:
		return marshalSeed(alg, seed), nil
	case alg == hsm.ECDSASecp256k1:
		return marshalEC(curve, seed, nil)
	}
	return marshalEC(curve, seed, public)
}

// errMaterial: unwrapped bytes are no key of the algorithm, or not the one whose public key is bound to them.
var errMaterial = fmt.Errorf("%w: its material", hsm.ErrWrappedKey)

// openMaterial makes a usable key of unwrapped bytes, which the caller wipes.
func openMaterial(alg hsm.Algorithm, material, spki []byte, r *region) (wiper, error) {
	switch alg.Family() {
	case hsm.FamilyCipher:
		return openCipher(alg, material)
	case hsm.FamilyMAC:
		return openMAC(alg, material, r)
	}
	if rsaBits(alg) != 0 {
		return openRSA(alg, material, spki)
	}
	seed, public, err := privateSeed(alg, material)
	if err != nil {
		return nil, err
	}
	// The binding MAC already ties the two together. This catches a wrapped key that was made wrong, before it signs anything that
	// would reveal its scalar.
	if bound, err := hsm.ParsePublicKey(alg, spki); err != nil || !bytes.Equal(bound, public) {
		return nil, errMaterial
	}
	return openPair(alg, seed, public)
}

// privateSeed parses PKCS#8 DER down to a view of the secret bytes, and derives the public key, which a public key inside must equal.
func privateSeed(alg hsm.Algorithm, der []byte) (seed, public []byte, err error) {
	var point []byte
	var ok bool
	if curve := curveOf(alg); curve != nil {
		seed, point, ok = parseEC(der, curve)
	} else {
		seed, ok = parseSeed(alg, der)
	}
	if !ok {
		return nil, nil, errMaterial
	}
	if public, err = publicOf(alg, seed); err != nil || point != nil && !bytes.Equal(public, point) {
		return nil, nil, errMaterial
	}
	return seed, public, nil
}
