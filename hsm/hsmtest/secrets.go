package hsmtest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// Keys that open secrets and agree on them.

func ecdhCurve(alg hsm.Algorithm) ecdh.Curve {
	if alg == hsm.ECDHX25519 {
		return ecdh.X25519()
	}
	return ecdh.P256()
}

// peer is the other side of an agreement, in Go's crypto/ecdh.
type peer struct {
	key  *ecdh.PrivateKey
	spki []byte
}

func newPeer(t *testing.T, alg hsm.Algorithm) peer {
	t.Helper()
	key, err := ecdhCurve(alg).GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return peer{key, spki(t, alg, key.PublicKey().Bytes())}
}

// secret is what the peer computes with the public half of k.
func (p peer) secret(t *testing.T, k hsm.WrappedKey) []byte {
	t.Helper()
	point, err := hsm.ParsePublicKey(k.Binding.Algorithm, k.Binding.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ecdhCurve(k.Binding.Algorithm).NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := p.key.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// lowOrder are the points of small order on Curve25519 and its twist, reduced or not: with them any key agrees on zero (RFC 7748
// §6.1). The top bit of the last byte is ignored (§5), so each has a second encoding.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// testAgreement: both sides have the same secret, another peer another one; what is no key of a peer is refused as an input.
func testAgreement(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.of(hsm.FamilyAgree) {
		k := r.generate(t, alg)
		key := r.open(t, k)
		first, second := newPeer(t, alg), newPeer(t, alg)
		a, err1 := key.Agree(t.Context(), first.spki)
		b, err2 := key.Agree(t.Context(), second.spki)
		if err1 != nil || err2 != nil || len(a) != 32 || bytes.Equal(a, b) {
			t.Errorf("%s: %x, %v; %x, %v", alg, a, err1, b, err2)
		}
		// Two tokens' keys agree with each other.
		other := r.generate(t, alg)
		ours, err1 := key.Agree(t.Context(), other.Binding.PublicKey)
		theirs, err2 := r.open(t, other).Agree(t.Context(), k.Binding.PublicKey)
		if err1 != nil || err2 != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%s, two keys: %x, %v; %x, %v", alg, ours, err1, theirs, err2)
		}
		for name, bad := range badPeers(t, alg, first.spki) {
			secret, err := key.Agree(t.Context(), bad)
			is(t, string(alg)+" with "+name, err, hsm.ErrInput)
			if secret != nil {
				t.Errorf("%s with %s: a secret came out", alg, name)
			}
		}
		_, err := key.Agree(t.Context(), k.Binding.PublicKey)
		is(t, string(alg)+" with itself", err, hsm.ErrInput)
	}
}

func badPeers(t *testing.T, alg hsm.Algorithm, good []byte) map[string][]byte {
	t.Helper()
	bad := map[string][]byte{
		"nothing": nil, "a cut key": good[:len(good)-1], "a byte behind": append(bytes.Clone(good), 0), "a bare point": good[len(good)-32:],
	}
	if alg == hsm.ECDHX25519 {
		bad["a key for signing"] = known(t, hsm.Ed25519).spki
		bad["a key of another curve"] = newPeer(t, hsm.ECDHP256).spki
		for _, point := range lowOrder {
			low := append(bytes.Clone(good[:len(good)-32]), unhex(t, point)...)
			masked := bytes.Clone(low)
			masked[len(masked)-1] |= 0x80
			bad["low order "+point[:8]], bad["low order with the top bit "+point[:8]] = low, masked
		}
		return bad
	}
	off := bytes.Clone(good)
	off[len(off)-1] ^= 1
	at := len(good) - 65
	form := func(point ...byte) []byte { return append(bytes.Clone(good[:at]), point...) }
	bad["a point off the curve"] = off
	bad["zero coordinates"] = form(append([]byte{4}, make([]byte, 64)...)...)
	bad["coordinates not reduced"] = form(append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...)...)
	bad["infinity"] = form(0)
	bad["a compressed point"] = form(append([]byte{2 | good[len(good)-1]&1}, good[at+1:at+33]...)...)
	bad["a hybrid point"] = form(append([]byte{6 | good[len(good)-1]&1}, good[at+1:]...)...)
	bad["a key of another curve"] = known(t, hsm.ECDSASecp256k1).spki
	bad["a key of a longer curve"] = known(t, hsm.ECDSAP384).spki
	return bad
}

// testDecapsulation: implicit rejection gives a key for any ciphertext of the right length, the same for the same one, and not the
// one that was encapsulated; other lengths are refused.
func testDecapsulation(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.of(hsm.FamilyDecapsulate) {
		k := r.generate(t, alg)
		key := r.open(t, k)
		shared, ciphertext, err := hsm.Encapsulate(alg, k.Binding.PublicKey)
		if err != nil || len(shared) != 32 {
			t.Fatalf("%s: %x, %v", alg, shared, err)
		}
		for _, i := range []int{0, len(ciphertext) / 2, len(ciphertext) - 1} {
			bad := bytes.Clone(ciphertext)
			bad[i] ^= 1
			once, err1 := key.Decapsulate(t.Context(), bad)
			again, err2 := key.Decapsulate(t.Context(), bad)
			if err1 != nil || err2 != nil || len(once) != 32 || !bytes.Equal(once, again) || bytes.Equal(once, shared) {
				t.Errorf("%s, byte %d changed: %x, %v; %x, %v", alg, i, once, err1, again, err2)
			}
		}
		other, err := r.open(t, r.generate(t, alg)).Decapsulate(t.Context(), ciphertext)
		if err != nil || bytes.Equal(other, shared) {
			t.Errorf("%s, another key: %x, %v", alg, other, err)
		}
		for _, bad := range [][]byte{nil, ciphertext[:len(ciphertext)-1], append(bytes.Clone(ciphertext), 0)} {
			got, err := key.Decapsulate(t.Context(), bad)
			is(t, string(alg)+" with a ciphertext of another length", err, hsm.ErrInput)
			if got != nil {
				t.Errorf("%s: a key came out of %d bytes", alg, len(bad))
			}
		}
	}
}

// testDecryption: RSA-OAEP from the smallest to the largest plaintext; one error, without a word about the cause, for everything else.
func testDecryption(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.of(hsm.FamilyDecrypt) {
		k := r.key(t, alg, 0)
		key := r.open(t, k)
		public := oaepPublic(t, k)
		most := public.Size() - 66
		for _, n := range []int{0, 1, most} {
			plain := bytes.Repeat([]byte{7}, n)
			sealed, err := hsm.EncryptOAEP(alg, k.Binding.PublicKey, plain)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", alg, n, err)
			}
			if got, err := key.Decrypt(t.Context(), sealed, nil); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, %d bytes came back as %x, %v", alg, n, got, err)
			}
		}
		_, err := hsm.EncryptOAEP(alg, k.Binding.PublicKey, make([]byte, most+1))
		is(t, "a byte too many for "+string(alg), err, hsm.ErrInput)
		sealed, err := hsm.EncryptOAEP(alg, k.Binding.PublicKey, []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = key.Decrypt(t.Context(), sealed, []byte("context"))
		is(t, "associated data with "+string(alg), err, hsm.ErrInput)
		for name, bad := range badOAEP(t, public, sealed) {
			if got, err := key.Decrypt(t.Context(), bad, nil); err != hsm.ErrVerify || got != nil { // not errors.Is: no words that tell causes apart
				t.Errorf("%s, %s: %x, %v", alg, name, got, err)
			}
		}
		_, err = r.open(t, r.key(t, alg, 1)).Decrypt(t.Context(), sealed, nil)
		is(t, "another "+string(alg), err, hsm.ErrVerify)
	}
}

func oaepPublic(t *testing.T, k hsm.WrappedKey) *rsa.PublicKey {
	t.Helper()
	public, err := hsm.ParsePublicKey(k.Binding.Algorithm, k.Binding.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS1PublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// badOAEP are ciphertexts that are none: of other parameters, changed, and numbers out of range.
func badOAEP(t *testing.T, public *rsa.PublicKey, good []byte) map[string][]byte {
	t.Helper()
	sha1OAEP, err1 := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, []byte("m"), nil)
	labelled, err2 := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, []byte("m"), []byte("label"))
	//lint:ignore SA1019 that the old padding is refused is the point
	pkcs1, err3 := rsa.EncryptPKCS1v15(rand.Reader, public, []byte("m"))
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c, size := new(big.Int).SetBytes(good), len(good)
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	number := func(x *big.Int) []byte { return x.FillBytes(make([]byte, max(size, (x.BitLen()+7)/8))) }
	return map[string][]byte{
		"nothing": nil, "cut": good[:size-1], "longer": append(bytes.Clone(good), 0), "a zero in front": append([]byte{0}, good...),
		"first byte": flip(0), "middle": flip(size / 2), "last byte": flip(size - 1),
		"SHA-1": sha1OAEP, "a label": labelled, "PKCS #1 v1.5": pkcs1,
		"0": number(new(big.Int)), "1": number(big.NewInt(1)), "the modulus": number(public.N),
		"the modulus less 1": number(new(big.Int).Sub(public.N, big.NewInt(1))), "more than the modulus": number(new(big.Int).Add(c, public.N)),
		"all ones": bytes.Repeat([]byte{0xff}, size),
	}
}
