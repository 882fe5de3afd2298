package hsmtest

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"sync"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// Private keys in the right form, or nearly, that no generator makes.

// cutSecrets: lengths that the blob does not show.
func cutSecrets(t *testing.T, r *rig) {
	for alg, size := range secretSizes {
		for n := size - 7; n < size && r.can(alg); n++ {
			r.refuse(t, fmt.Sprintf("%d bytes as %s", n, alg), r.wrap(t, binding(alg), make([]byte, n)), hsm.ErrWrappedKey)
		}
	}
}

// ecPrivateKey is RFC 5915 inside RFC 5958.
type ecPrivateKey struct {
	Version int
	D       []byte
}

// weakScalars: outside [1, n-1], and of another length than the order's, which for the number itself would be the same.
func weakScalars(t *testing.T, r *rig) {
	for alg, curve := range map[hsm.Algorithm]elliptic.Curve{
		hsm.ECDSAP256: elliptic.P256(), hsm.ECDHP256: elliptic.P256(), hsm.ECDSAP384: elliptic.P384(), hsm.ECDSAP521: elliptic.P521(),
	} {
		if r.can(alg) {
			weakScalarsOf(t, r, alg, curve)
		}
	}
}

func weakScalarsOf(t *testing.T, r *rig, alg hsm.Algorithm, curve elliptic.Curve) {
	t.Helper()
	oid := map[string]asn1.ObjectIdentifier{
		"P-256": {1, 2, 840, 10045, 3, 1, 7}, "P-384": {1, 3, 132, 0, 34}, "P-521": {1, 3, 132, 0, 35},
	}[curve.Params().Name]
	n, size := curve.Params().N, (curve.Params().N.BitLen()+7)/8
	encode := func(d []byte) []byte {
		return der(t, struct {
			Version   int
			Algorithm struct{ ID, Curve asn1.ObjectIdentifier }
			Private   []byte
		}{0, struct{ ID, Curve asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, oid}, der(t, ecPrivateKey{1, d})})
	}
	fixed := func(x *big.Int) []byte { return x.FillBytes(make([]byte, size)) }
	one := fixed(big.NewInt(1))
	b := binding(alg)
	b.PublicKey = spki(t, alg, append([]byte{4}, append(fixed(curve.Params().Gx), fixed(curve.Params().Gy)...)...)) // of the scalar 1
	for name, d := range map[string][]byte{
		"0": fixed(new(big.Int)), "the order": fixed(n), "the order and 1": fixed(new(big.Int).Add(n, big.NewInt(1))),
		"all ones": bytes.Repeat([]byte{0xff}, size), "a short 1": one[1:], "a long 1": append([]byte{0}, one...), "an empty scalar": {},
	} {
		r.refuse(t, string(alg)+", "+name, r.wrap(t, b, encode(d)), hsm.ErrWrappedKey)
	}
	k := r.wrap(t, b, encode(one))
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("%s, the scalar 1: %v", alg, err)
	}
}

// otherSeedForms: RFC 9881 and RFC 9935 know expanded keys too, and both together; here is the seed and nothing else.
func otherSeedForms(t *testing.T, r *rig) {
	for _, alg := range []hsm.Algorithm{hsm.MLDSA44, hsm.MLDSA65, hsm.MLDSA87, hsm.MLKEM768} {
		if r.can(alg) {
			otherSeedFormsOf(t, r, alg)
		}
	}
}

func otherSeedFormsOf(t *testing.T, r *rig, alg hsm.Algorithm) {
	t.Helper()
	good := fromSeed(t, alg, nil)
	k := seedKey(t, alg, nil)
	encode := func(inner any) []byte { return der(t, privateKeyInfo{0, algorithmIdentifier{k.oid}, der(t, inner)}) }
	b := binding(alg)
	b.PublicKey = good.spki
	for name, material := range map[string][]byte{
		"expanded": encode(make([]byte, 2400)), "both": encode([][]byte{k.seed, make([]byte, 2400)}), "a bare seed": encode(k.seed),
		"a short seed": encode(asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: k.seed[1:]}),
		"a long seed":  encode(asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: append(bytes.Clone(k.seed), 0)}),
		"another tag":  encode(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: k.seed}),
	} {
		r.refuse(t, string(alg)+", "+name, r.wrap(t, b, material), hsm.ErrWrappedKey)
	}
	again := r.wrapKnown(t, alg, good)
	if err := once(t, r.open(t, again), again); err != nil {
		t.Errorf("%s, the seed of zeros: %v", alg, err)
	}
}

// weakRSA: another exponent, primes so close that a square root finds them, a private exponent that is not the public one's, and numbers
// that are negative or too large.
func weakRSA(t *testing.T, r *rig) {
	for _, alg := range []hsm.Algorithm{hsm.RSA2048, hsm.RSA2048OAEP} {
		if r.can(alg) {
			weakRSAOf(t, r, alg)
		}
	}
}

func weakRSAOf(t *testing.T, r *rig, alg hsm.Algorithm) {
	t.Helper()
	good := knownRSA(t, alg, 0)
	var k pkcs1
	inner := decodeRSA(t, good.der, &k)
	b := binding(alg)
	b.PublicKey = good.spki
	try := func(name string, change func(*pkcs1)) {
		bad := k
		change(&bad)
		info := inner
		info.PrivateKey = der(t, bad)
		r.refuse(t, string(alg)+", "+name, r.wrap(t, b, der(t, info)), hsm.ErrWrappedKey)
	}
	negate := func(x *big.Int) *big.Int { return new(big.Int).Neg(x) }
	try("exponent 3", func(k *pkcs1) { k.E = 3 })
	try("exponent 1", func(k *pkcs1) { k.E, k.D = 1, big.NewInt(1) })
	try("an even exponent", func(k *pkcs1) { k.E = 65536 })
	try("another private exponent", func(k *pkcs1) { k.D = new(big.Int).Add(k.D, big.NewInt(2)) })
	try("private exponent 0", func(k *pkcs1) { k.D = new(big.Int) })
	try("a negative private exponent", func(k *pkcs1) { k.D = negate(k.D) })
	try("a negative modulus", func(k *pkcs1) { k.N = negate(k.N) })
	try("negative primes", func(k *pkcs1) { k.P, k.Q = negate(k.P), negate(k.Q) })
	try("primes 1 and n", func(k *pkcs1) { k.P, k.Q = big.NewInt(1), k.N })
	try("an even modulus", func(k *pkcs1) { k.N = new(big.Int).Add(k.N, big.NewInt(1)) })
	try("a modulus with a bit more", func(k *pkcs1) { k.N = new(big.Int).SetBit(k.N, 2048, 1) })
	try("a modulus of 16384 bits", func(k *pkcs1) { k.N = new(big.Int).SetBit(k.N, 16383, 1) })
	bound := b
	for name, weak := range weakRSAKeys() {
		b.PublicKey = spki(t, alg, x509.MarshalPKCS1PublicKey(&weak.PublicKey))
		try(name, func(k *pkcs1) { *k = pkcs1Of(weak) })
	}
	b = bound
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	r.refuse(t, string(alg)+", 1024 bits", r.wrap(t, b, pkcs8(t, small)), hsm.ErrWrappedKey)
	larger := binding(alg)
	larger.PublicKey = knownRSA(t, hsm.RSA3072, 0).spki
	r.refuse(t, string(alg)+", 3072 bits", r.wrap(t, larger, knownRSA(t, hsm.RSA3072, 0).der), hsm.ErrWrappedKey)
}

// pkcs1 is an RSAPrivateKey (RFC 8017 A.1.2).
type pkcs1 struct {
	Version            int
	N                  *big.Int
	E                  int
	D, P, Q, DP, DQ, U *big.Int
}

type rsaInfo struct {
	Version   int
	Algorithm struct {
		ID   asn1.ObjectIdentifier
		Null asn1.RawValue
	}
	PrivateKey []byte
}

func decodeRSA(t *testing.T, b []byte, k *pkcs1) (info rsaInfo) {
	t.Helper()
	if _, err := asn1.Unmarshal(b, &info); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(info.PrivateKey, k); err != nil {
		t.Fatal(err)
	}
	return info
}

func pkcs1Of(k *rsa.PrivateKey) pkcs1 {
	less1 := func(x *big.Int) *big.Int { return new(big.Int).Sub(x, big.NewInt(1)) }
	p, q := k.Primes[0], k.Primes[1]
	return pkcs1{
		N: k.N, E: k.E, D: k.D, P: p, Q: q, DP: new(big.Int).Mod(k.D, less1(p)), DQ: new(big.Int).Mod(k.D, less1(q)), U: new(big.Int).ModInverse(q, p),
	}
}

// weakRSAKeys are keys of 2048 bits: one whose primes differ by less than 2^(1024-100), and one that has a prime of 64 bits. The leading
// bytes are such that the products have all their bits.
var weakRSAKeys = sync.OnceValue(func() map[string]*rsa.PrivateKey {
	start := func(first byte, n int) *big.Int {
		return new(big.Int).SetBytes(append([]byte{first}, make([]byte, n-1)...))
	}
	p := nextPrime(start(0xc0, 128))
	return map[string]*rsa.PrivateKey{
		"primes too close": fromPrimes(p, nextPrime(p)), "a small prime": fromPrimes(nextPrime(start(0xff, 8)), nextPrime(start(0xff, 248))),
	}
})

var one, publicExponent = big.NewInt(1), big.NewInt(65537)

// nextPrime is the smallest one above p that suits the public exponent.
func nextPrime(p *big.Int) *big.Int {
	p = new(big.Int).Set(p)
	p.SetBit(p, 0, 1)
	for {
		p.Add(p, big.NewInt(2))
		coprime := new(big.Int).GCD(nil, nil, new(big.Int).Sub(p, one), publicExponent).Cmp(one) == 0
		if coprime && p.ProbablyPrime(0) {
			return p
		}
	}
}

func fromPrimes(p, q *big.Int) *rsa.PrivateKey {
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	return &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: new(big.Int).ModInverse(publicExponent, phi), Primes: []*big.Int{p, q},
	}
}
