package hsmtest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"github.com/conclave-vault/conclave/hsm"
)

// Keys that were made without the token.

// knownKey is a private key as PKCS#8 DER and its public half as SubjectPublicKeyInfo.
type knownKey struct{ der, spki []byte }

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

// publishedRSA are two keys of each size out of the vectors of NIST CAVP: finding primes takes seconds, and is tried where
// generation is the point.
var publishedRSA = sync.OnceValues(func() (map[int][]*rsa.PrivateKey, error) {
	all := make(map[int][]*rsa.PrivateKey)
	for _, name := range []string{"SigVer15_RSA2048.rsp.gz", "SigVer15_RSA3072.rsp.gz", "SigVer15_RSA4096.rsp.gz", "SigVerPSS_keys.txt"} {
		vectors, err := readRecords(name)
		if err != nil {
			return nil, err
		}
		for _, v := range vectors {
			key, err := rsaOf(v)
			if err != nil {
				return nil, err
			}
			bits := key.N.BitLen()
			same := func(k *rsa.PrivateKey) bool { return k.N.Cmp(key.N) == 0 }
			if v["Result"] == "P" && !slices.ContainsFunc(all[bits], same) {
				all[bits] = append(all[bits], key)
			}
		}
	}
	for bits, keys := range all {
		if len(keys) < 2 {
			return nil, fmt.Errorf("%d keys of %d bits among the vectors, two are needed", len(keys), bits)
		}
	}
	return all, nil
})

func rsaOf(v map[string]string) (*rsa.PrivateKey, error) {
	bad := false
	number := func(name string) *big.Int {
		n, ok := new(big.Int).SetString(v[name], 16)
		bad = bad || !ok
		return n
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number("n"), E: 65537}, D: number("d"), Primes: []*big.Int{number("p"), number("q")},
	}
	if bad {
		return nil, errors.New("an RSA vector without its numbers")
	}
	return key, nil
}

func knownRSA(t *testing.T, alg hsm.Algorithm, n int) knownKey {
	t.Helper()
	all, err := publishedRSA()
	if err != nil {
		t.Fatal(err)
	}
	return rsaKey(t, alg, all[rsaBits(alg)][n])
}

func rsaKey(t *testing.T, alg hsm.Algorithm, key *rsa.PrivateKey) knownKey {
	t.Helper()
	return knownKey{pkcs8(t, key), spki(t, alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))}
}

// secp256k1KAT is the PKCS#8 form without a public key that devices make, for the scalar 1, and the public key: the generator of
// the curve (SEC 2 §2.4.1).
const (
	secp256k1KAT = "303e020100301006072a8648ce3d020106052b8104000a042730250201010420" +
		"0000000000000000000000000000000000000000000000000000000000000001"
	secp256k1G = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798" +
		"483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
)

// known makes a key of alg without the token, encoded by crypto/x509 where that knows the algorithm.
func known(t *testing.T, alg hsm.Algorithm) knownKey {
	t.Helper()
	switch alg {
	case hsm.ECDSAP256, hsm.ECDHP256:
		return knownEC(t, alg, elliptic.P256())
	case hsm.ECDSAP384:
		return knownEC(t, alg, elliptic.P384())
	case hsm.ECDSAP521:
		return knownEC(t, alg, elliptic.P521())
	case hsm.ECDSASecp256k1:
		return knownKey{unhex(t, secp256k1KAT), spki(t, alg, unhex(t, secp256k1G))}
	case hsm.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return knownKey{pkcs8(t, key), spki(t, alg, key[32:])}
	case hsm.ECDHX25519:
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return knownKey{pkcs8(t, key), spki(t, alg, key.PublicKey().Bytes())}
	case hsm.MLDSA44, hsm.MLDSA65, hsm.MLDSA87, hsm.MLKEM768:
		return fromSeed(t, alg, random(t, len(seedKey(t, alg, nil).seed)))
	}
	return knownRSA(t, alg, 0)
}

func knownEC(t *testing.T, alg hsm.Algorithm, curve elliptic.Curve) knownKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return knownKey{pkcs8(t, key), spki(t, alg, point)}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// seeded is a key that a standard expands from a seed.
type seeded struct {
	oid    asn1.ObjectIdentifier
	seed   []byte
	public []byte
}

// mldsaSchemes are circl's, by its generic interface: another one than the token is likely to use.
var mldsaSchemes = map[hsm.Algorithm]sign.Scheme{hsm.MLDSA44: mldsa44.Scheme(), hsm.MLDSA65: mldsa65.Scheme(), hsm.MLDSA87: mldsa87.Scheme()}

// seedKey expands seed, or zeros if it is nil.
func seedKey(t *testing.T, alg hsm.Algorithm, seed []byte) seeded {
	t.Helper()
	if alg == hsm.MLKEM768 {
		if seed == nil {
			seed = make([]byte, mlkem.SeedSize)
		}
		key, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			t.Fatal(err)
		}
		return seeded{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 4, 2}, seed, key.EncapsulationKey().Bytes()}
	}
	scheme := mldsaSchemes[alg]
	if seed == nil {
		seed = make([]byte, scheme.SeedSize())
	}
	key, _ := scheme.DeriveKey(seed)
	public, err := key.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	last := map[hsm.Algorithm]int{hsm.MLDSA44: 17, hsm.MLDSA65: 18, hsm.MLDSA87: 19}[alg]
	return seeded{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, last}, seed, public}
}

// fromSeed encodes with encoding/asn1: PrivateKeyInfo with the seed as [0], and SubjectPublicKeyInfo (RFC 9881, RFC 9935).
func fromSeed(t *testing.T, alg hsm.Algorithm, seed []byte) knownKey {
	t.Helper()
	k := seedKey(t, alg, seed)
	inner := der(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: k.seed})
	return knownKey{der(t, privateKeyInfo{Algorithm: algorithmIdentifier{k.oid}, PrivateKey: inner}), der(t, struct {
		Algorithm algorithmIdentifier
		PublicKey asn1.BitString
	}{algorithmIdentifier{k.oid}, asn1.BitString{Bytes: k.public, BitLength: 8 * len(k.public)}})}
}

// The structures of RFC 5280 and RFC 5958, for algorithms without parameters.
type (
	algorithmIdentifier struct{ Algorithm asn1.ObjectIdentifier }
	privateKeyInfo      struct {
		Version    int
		Algorithm  algorithmIdentifier
		PrivateKey []byte
	}
)

func der(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
