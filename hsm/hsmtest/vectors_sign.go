package hsmtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha3"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// ecVectors is a curve and its file.
type ecVectors struct {
	size   int            // of a coordinate, in bytes
	curve  elliptic.Curve // nil: secp256k1
	order  *big.Int
	sigGen string
	pairs  string // more keys; empty: none
}

var ecFiles = map[hsm.Algorithm]ecVectors{
	hsm.ECDSAP256: {32, elliptic.P256(), elliptic.P256().Params().N, "SigGen_P256_SHA256.txt", "KeyPair_P256.rsp"},
	hsm.ECDSAP384: {48, elliptic.P384(), elliptic.P384().Params().N, "SigGen_P384_SHA384.txt.gz", "KeyPair_P384.rsp"},
	hsm.ECDSAP521: {66, elliptic.P521(), elliptic.P521().Params().N, "SigGen_P521_SHA512.txt.gz", "KeyPair_P521.rsp"},
	hsm.ECDSASecp256k1: {
		32, nil, bigHex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"), "SigGen_K256_SHA256.txt.gz", "",
	},
}

func bigHex(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("hsmtest: a constant is no number: " + s)
	}
	return n
}

// number reads one out of a vector; the files drop leading zeros.
func number(t *testing.T, s string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return n
}

// point encodes two coordinates; ok is false if one is too large for the field's bytes.
func (f ecVectors) point(t *testing.T, v map[string]string, x, y string) (p []byte, ok bool) {
	t.Helper()
	nx, ny := number(t, v[x]), number(t, v[y])
	if nx.BitLen() > 8*f.size || ny.BitLen() > 8*f.size {
		return nil, false
	}
	p = append([]byte{4}, nx.FillBytes(make([]byte, f.size))...)
	return append(p, ny.FillBytes(make([]byte, f.size))...), true
}

func (f ecVectors) signature(t *testing.T, v map[string]string) []byte {
	t.Helper()
	return der(t, struct{ R, S *big.Int }{number(t, v["R"]), number(t, v["S"])})
}

// private encodes the scalar of a vector as PKCS#8.
func (f ecVectors) private(t *testing.T, v map[string]string) []byte {
	t.Helper()
	d := number(t, v["d"]).FillBytes(make([]byte, f.size))
	if f.curve == nil {
		return append(unhex(t, secp256k1KAT[:len(secp256k1KAT)-64]), d...)
	}
	key, err := ecdsa.ParseRawPrivateKey(f.curve, d)
	if err != nil {
		t.Fatal(err)
	}
	return pkcs8(t, key)
}

// signECVectors: the nonce is the token's own, so the check is that the key signs for the public key given, and that the signature
// given verifies: on secp256k1 if its s is low, and as (r, n-s) if not.
func signECVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	f := ecFiles[alg]
	all := records(t, f.sigGen)
	for _, v := range all {
		point, ok := f.point(t, v, "Qx", "Qy")
		if !ok {
			t.Fatalf("d %s: coordinates too large", v["d"])
		}
		b := binding(alg)
		b.PublicKey = spki(t, alg, point)
		in := hsm.SignInput{Message: unhex(t, v["Msg"])}
		key := r.open(t, r.wrap(t, b, f.private(t, v)))
		signature, err := key.Sign(t.Context(), in)
		if err = errors.Join(err, hsm.Verify(alg, in, b.PublicKey, signature)); err != nil {
			t.Errorf("%s, d %s: %v", alg, v["d"], err)
		}
		s := number(t, v["S"])
		if high := new(big.Int).Lsh(s, 1).Cmp(f.order) > 0; high && alg == hsm.ECDSASecp256k1 {
			is(t, "a high s", hsm.Verify(alg, in, b.PublicKey, f.signature(t, v)), hsm.ErrVerify)
			v["S"] = new(big.Int).Sub(f.order, s).Text(16)
		}
		if err := hsm.Verify(alg, in, b.PublicKey, f.signature(t, v)); err != nil {
			t.Errorf("%s, the signature of d %s: %v", alg, v["d"], err)
		}
	}
	return len(all) + f.keyPairs(t, r, alg)
}

// keyPairs: each private key opens with the public one given, and not with the next one's.
func (f ecVectors) keyPairs(t *testing.T, r *rig, alg hsm.Algorithm) int {
	if f.pairs == "" {
		return 0
	}
	all := records(t, f.pairs)
	for i, v := range all {
		next := all[(i+1)%len(all)]
		k := knownKey{f.private(t, v), spki(t, alg, point(t, f, v, "Qx", "Qy"))}
		if w := r.wrapKnown(t, alg, k); once(t, r.open(t, w), w) != nil {
			t.Errorf("%s, d %s does not serve", alg, v["d"])
		}
		k.spki = spki(t, alg, point(t, f, next, "Qx", "Qy"))
		r.refuse(t, "the public key of another pair", r.wrapKnown(t, alg, k), hsm.ErrWrappedKey)
	}
	return len(all)
}

var pkcs1Schemes = map[string]hsm.Scheme{
	"SHA256": hsm.SchemeRSAPKCS1SHA256, "SHA384": hsm.SchemeRSAPKCS1SHA384, "SHA512": hsm.SchemeRSAPKCS1SHA512,
}

// rsaVectors: NIST CAVP, FIPS 186-3, PKCS #1 v1.5, which is deterministic: what must verify is also what the token must sign.
// (The suite's PSS vectors have another salt length than the one that is accepted here.)
func rsaVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	name := map[hsm.Algorithm]string{hsm.RSA2048: "2048", hsm.RSA3072: "3072", hsm.RSA4096: "4096"}[alg]
	all, good := records(t, "SigVer15_RSA"+name+".rsp.gz"), 0
	for _, v := range all {
		key, err := rsaOf(v)
		if err != nil {
			t.Fatal(err)
		}
		in := hsm.SignInput{Scheme: pkcs1Schemes[v["SHAAlg"]], Message: unhex(t, v["Msg"])}
		public, want := spki(t, alg, x509.MarshalPKCS1PublicKey(&key.PublicKey)), unhex(t, v["S"])
		verdict := hsm.Verify(alg, in, public, want)
		if v["Result"] != "P" { // in some of them the private key does not fit the public one
			is(t, v["Result"], verdict, hsm.ErrVerify)
			continue
		}
		good++
		got, err := r.open(t, r.wrapKnown(t, alg, rsaKey(t, alg, key))).Sign(t.Context(), in)
		if err != nil || verdict != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, message %x: verified %v, signed %x, %v; want %x", alg, in.Message, verdict, got, err, want)
		}
	}
	mixed(t, string(alg), good, len(all))
	return len(all) + rsaSignVectors(t, r, alg, "SigGen15_RSA"+name+".txt.gz")
}

// rsaSignVectors: NIST CAVP, FIPS 186-2 with SHA-2: signatures of one key, all of which the token must make.
func rsaSignVectors(t *testing.T, r *rig, alg hsm.Algorithm, file string) int {
	all := records(t, file)
	var key keyuse.Key
	for _, v := range all {
		if key == nil || v["n"] != all[0]["n"] {
			key = r.open(t, r.wrapKnown(t, alg, rsaKey(t, alg, withPrimes(t, v))))
		}
		in := hsm.SignInput{Scheme: pkcs1Schemes[v["SHAAlg"]], Message: unhex(t, v["Msg"])}
		got, err := key.Sign(t.Context(), in)
		if err != nil || !bytes.Equal(got, unhex(t, v["S"])) {
			t.Errorf("%s, message %s: %x, %v; want %s", alg, v["Msg"], got, err, v["S"])
		}
	}
	return len(all)
}

// withPrimes finds the primes of a vector that gives n and d only: a square root of 1 that is not ±1 shares one with n (SP 800-56B
// Appendix C).
func withPrimes(t *testing.T, v map[string]string) *rsa.PrivateKey {
	t.Helper()
	n, d, one := number(t, v["n"]), number(t, v["d"]), big.NewInt(1)
	k := new(big.Int).Mul(d, big.NewInt(65537))
	k.Sub(k, one)
	odd := new(big.Int).Rsh(k, k.TrailingZeroBits())
	for base := int64(2); base < 200; base++ {
		x := new(big.Int).Exp(big.NewInt(base), odd, n)
		for range k.TrailingZeroBits() {
			p := new(big.Int).GCD(nil, nil, new(big.Int).Sub(x, one), n)
			if p.Cmp(one) > 0 && p.Cmp(n) < 0 {
				return &rsa.PrivateKey{
					PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: []*big.Int{p, new(big.Int).Div(n, p)},
				}
			}
			x.Mul(x, x).Mod(x, n)
		}
	}
	t.Fatalf("d is no exponent of n %s", v["n"])
	return nil
}

// ed25519Vectors: the authors' sign.input, lines of "seed ‖ public : public : message : signature ‖ message :".
func ed25519Vectors(t *testing.T, r *rig, _ hsm.Algorithm) (n int) {
	for _, line := range lines(t, "ed25519_sign.input.gz") {
		f := strings.Split(line, ":")
		if len(f) != 5 {
			t.Fatalf("a line of %d fields", len(f))
		}
		n++
		seed, message, want := unhex(t, f[0])[:32], unhex(t, f[2]), unhex(t, f[3])[:64]
		b := binding(hsm.Ed25519)
		b.PublicKey = spki(t, hsm.Ed25519, unhex(t, f[1]))
		key := r.open(t, r.wrap(t, b, pkcs8(t, ed25519.NewKeyFromSeed(seed))))
		in := hsm.SignInput{Message: message}
		got, err := key.Sign(t.Context(), in)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("seed %x: %x, %v; want %x", seed, got, err, want)
		}
		if err := hsm.Verify(hsm.Ed25519, in, b.PublicKey, want); err != nil {
			t.Errorf("seed %x: %v", seed, err)
		}
	}
	return n
}

// accumulated are SHAKE128 digests over 100 public keys and deterministic signatures of the empty message, with seeds from SHAKE128 of
// nothing: of the test TestMLDSAAccumulated in Go's own implementation, which shares no code with circl's.
var accumulated = map[hsm.Algorithm]string{
	hsm.MLDSA44: "d51148e1f9f4fa1a723a6cf42e25f2a99eb5c1b378b3d2dbbd561b1203beeae4",
	hsm.MLDSA65: "8358a1843220194417cadbc2651295cd8fc65125b5a5c1a239a16dc8b57ca199",
	hsm.MLDSA87: "8c3ad714777622b8f21ce31bb35f71394f23bc0fcf3c78ace5d608990f3b061b",
}

// mldsaVectors: NIST ACVP, FIPS 204: each seed opens with the public key given, and signs for it. A hedged signature cannot be compared;
// so the deterministic ones that another implementation published the digest of must verify.
func mldsaVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	all := records(t, "acvp_"+string(alg)+"_keygen.txt.gz")
	for _, v := range all {
		k := fromSeed(t, alg, unhex(t, v["seed"]))
		k.spki = spki(t, alg, unhex(t, v["pk"]))
		w := r.wrapKnown(t, alg, k)
		if err := once(t, r.open(t, w), w); err != nil {
			t.Errorf("%s, tcId %s: %v", alg, v["tcId"], err)
		}
	}
	seeds, digest, scheme := sha3.NewSHAKE128(), sha3.NewSHAKE128(), mldsaSchemes[alg]
	for range 100 {
		seed := make([]byte, scheme.SeedSize())
		if _, err := seeds.Read(seed); err != nil {
			t.Fatal(err)
		}
		_, private := scheme.DeriveKey(seed)
		public, signature := seedKey(t, alg, seed).public, scheme.Sign(private, nil, nil)
		_, err1 := digest.Write(public)
		_, err2 := digest.Write(signature)
		if err := errors.Join(err1, err2, hsm.Verify(alg, hsm.SignInput{}, spki(t, alg, public), signature)); err != nil {
			t.Errorf("%s, seed %x: %v", alg, seed, err)
		}
	}
	sum := make([]byte, 32)
	if _, err := digest.Read(sum); err != nil || hex.EncodeToString(sum) != accumulated[alg] {
		t.Errorf("%s: signatures accumulate to %x, %v; want %s", alg, sum, err, accumulated[alg])
	}
	return len(all) + 100
}
