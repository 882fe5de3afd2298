package soft

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/conclave-vault/conclave/hsm"
)

// rsaBits is the length of an RSA algorithm's modulus, 0 for others.
func rsaBits(alg hsm.Algorithm) int {
	switch alg {
	case hsm.RSA2048, hsm.RSA2048OAEP:
		return 2048
	case hsm.RSA3072, hsm.RSA3072OAEP:
		return 3072
	case hsm.RSA4096, hsm.RSA4096OAEP:
		return 4096
	}
	return 0
}

// newRSA draws a key by FIPS 186-5 A.1.3, from the system's generator always: crypto/rsa takes no other.
func newRSA(alg hsm.Algorithm) (material, public []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits(alg))
	if err != nil {
		return nil, nil, fmt.Errorf("drawing a %s key: %w", alg, err)
	}
	defer wipeRSA(key)
	if material, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, fmt.Errorf("encoding a new %s key: %w", alg, err)
	}
	return material, x509.MarshalPKCS1PublicKey(&key.PublicKey), nil
}

// parseRSA parses PKCS#8 DER with at most maxPadding zeros behind. crypto/x509 checks that the two primes multiply to the modulus, fit
// both exponents and are not so near to each other that Fermat's method finds them. Here follows what it tolerates: primes of unequal
// length, of which the smaller one would decide how hard the key is (FIPS 186-5 §5.1). Whether primes were drawn well cannot be seen.
func parseRSA(material []byte) (*rsa.PrivateKey, error) {
	rest := cryptobyte.String(material)
	var der cryptobyte.String
	if !rest.ReadASN1Element(&der, casn1.SEQUENCE) || !isPadding(rest) {
		return nil, errMaterial
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errMaterial
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errMaterial
	}
	if half := key.N.BitLen() / 2; len(key.Primes) != 2 || key.Primes[0].BitLen() != half || key.Primes[1].BitLen() != half {
		wipeRSA(key)
		return nil, errMaterial
	}
	return key, nil
}

// openRSA: the public half must be the one that is bound, which also fixes size and exponent.
func openRSA(alg hsm.Algorithm, material, spki []byte) (wiper, error) {
	key, err := parseRSA(material)
	if err != nil {
		return nil, err
	}
	bound, err := hsm.ParsePublicKey(alg, spki)
	if err != nil || !bytes.Equal(bound, x509.MarshalPKCS1PublicKey(&key.PublicKey)) {
		wipeRSA(key)
		return nil, errMaterial
	}
	if alg.Family() == hsm.FamilyDecrypt {
		return &oaepKey{key}, nil
	}
	return &rsaKey{key: key, algorithm: alg}, nil
}

// wipeRSA overwrites what can be reached. crypto/rsa keeps a copy of its own, which dies with the key.
func wipeRSA(key *rsa.PrivateKey) {
	clear(key.D.Bits())
	for _, p := range key.Primes {
		clear(p.Bits())
	}
	if pre := &key.Precomputed; pre.Dp != nil {
		clear(pre.Dp.Bits())
		clear(pre.Dq.Bits())
		clear(pre.Qinv.Bits())
	}
}

// rsaKey signs.
type rsaKey struct {
	key       *rsa.PrivateKey
	algorithm hsm.Algorithm
}

func (r *rsaKey) wipe() { wipeRSA(r.key) }

// sign uses the scheme that the input names; all are blinded against timing by crypto/rsa.
func (r *rsaKey) sign(in hsm.SignInput) ([]byte, error) {
	scheme := in.For(r.algorithm)
	switch scheme {
	case hsm.SchemeRSAPKCS1SHA256, hsm.SchemeRSAPKCS1SHA384, hsm.SchemeRSAPKCS1SHA512:
		return rsa.SignPKCS1v15(rand.Reader, r.key, scheme.Hash(), in.Hash(scheme))
	}
	return rsa.SignPSS(rand.Reader, r.key, scheme.Hash(), in.Hash(scheme), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// oaepKey decrypts.
type oaepKey struct{ key *rsa.PrivateKey }

func (o *oaepKey) wipe() { wipeRSA(o.key) }

// decrypt gives one error for whatever is wrong with a ciphertext, after the same work: a difference would decrypt it (Manger 2001).
func (o *oaepKey) decrypt(ciphertext, aad []byte) ([]byte, error) {
	if len(aad) != 0 {
		return nil, fmt.Errorf("%w: associated data with RSA-OAEP, which has none here (the label is empty)", hsm.ErrInput)
	}
	plaintext, err := rsa.DecryptOAEP(sha256.New(), nil, o.key, ciphertext, nil)
	if err != nil {
		return nil, hsm.ErrVerify
	}
	return plaintext, nil
}
