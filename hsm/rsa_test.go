package hsm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// publishedRSA is the key that the soft token tests itself with.
func publishedRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	der, err := os.ReadFile(fmt.Sprintf("internal/selftest/rsa%d.der", bits))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

var rsaSizes = map[hsm.Algorithm]int{hsm.RSA2048: 2048, hsm.RSA3072: 3072, hsm.RSA4096: 4096}

func rsaSignatures(t testing.TB) (all []signed) {
	t.Helper()
	for alg, bits := range rsaSizes {
		key := publishedRSA(t, bits)
		spki := marshal(t, alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
		for _, scheme := range alg.Schemes() {
			in := hsm.SignInput{Scheme: scheme, Message: []byte("message")}
			var sig []byte
			var err error
			if strings.HasPrefix(string(scheme), "rsa-pss") {
				sig, err = rsa.SignPSS(rand.Reader, key, scheme.Hash(), in.Hash(scheme), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
			} else {
				sig, err = rsa.SignPKCS1v15(nil, key, scheme.Hash(), in.Hash(scheme))
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, signed{alg, in, spki, sig, nil})
		}
	}
	return all
}

// rsaHead is where the modulus begins in a SubjectPublicKeyInfo.
const rsaHead = 33

// TestRSAModulus: one of fewer bits, an even one, another exponent; and a signature is none of another scheme.
func TestRSAModulus(t *testing.T) {
	all := rsaSignatures(t)
	for _, s := range all {
		for what, at := range map[string]struct {
			byte int
			flip byte
		}{
			"no top bit": {rsaHead, 0x80}, "even": {len(s.spki) - 6, 1}, "a tag": {len(s.spki) - 5, 1}, "exponent": {len(s.spki) - 1, 2},
		} {
			bad := bytes.Clone(s.spki)
			bad[at.byte] ^= at.flip
			if _, err := hsm.ParsePublicKey(s.alg, bad); !errors.Is(err, hsm.ErrInput) {
				t.Errorf("%s, %s: %v", s.alg, what, err)
			}
		}
		for _, other := range all {
			if other.alg == s.alg && other.in.Scheme != s.in.Scheme {
				refused(t, "by "+string(other.in.Scheme), s, other.sig)
			}
		}
	}
}

// TestRSASalt: a salt of another length than the digest's is refused, though a lax verifier would take it.
func TestRSASalt(t *testing.T) {
	key := publishedRSA(t, 2048)
	public := marshal(t, hsm.RSA2048, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	for _, scheme := range []hsm.Scheme{hsm.SchemeRSAPSSSHA256, hsm.SchemeRSAPSSSHA384, hsm.SchemeRSAPSSSHA512} {
		in := hsm.SignInput{Scheme: scheme, Message: []byte("m")}
		for _, length := range []int{rsa.PSSSaltLengthAuto, 20, 32, 48, 64} { // auto: as long as possible
			sig, err := rsa.SignPSS(rand.Reader, key, scheme.Hash(), in.Hash(scheme), &rsa.PSSOptions{SaltLength: length})
			if err != nil {
				t.Fatal(err)
			}
			var want error
			if length != scheme.Hash().Size() {
				want = hsm.ErrVerify
			}
			if err := hsm.Verify(hsm.RSA2048, in, public, sig); err != want {
				t.Errorf("%s, salt of %d bytes: %v", scheme, length, err)
			}
		}
	}
}

// TestPKCS1PaddingIsWhole: without a check of the whole padding, whoever knows nothing but an exponent of 3 could make the cube root of
// something that begins right. Keys here have 65537, and the padding is compared as a whole: bytes behind the digest are refused.
func TestPKCS1PaddingIsWhole(t *testing.T) {
	key := publishedRSA(t, 2048)
	public := marshal(t, hsm.RSA2048, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	in := hsm.SignInput{Scheme: hsm.SchemeRSAPKCS1SHA256, Message: []byte("m")}
	info := append([]byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"), in.SHA256()...)
	for what, c := range map[string]struct {
		encoded []byte
		want    error
	}{
		"right":             {paddedInfo(info, 0), nil},
		"bytes behind":      {append(paddedInfo(info, 8), make([]byte, 8)...), hsm.ErrVerify},
		"no NULL":           {paddedInfo(append([]byte("\x30\x2f\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x20"), in.SHA256()...), 0), hsm.ErrVerify},
		"another hash":      {paddedInfo(append(append(bytes.Clone(info[:14]), 2), info[15:]...), 0), hsm.ErrVerify},
		"padding of type 2": {append([]byte{0, 2}, paddedInfo(info, 0)[2:]...), hsm.ErrVerify},
	} {
		m := new(big.Int).SetBytes(c.encoded)
		sig := new(big.Int).Exp(m, key.D, key.N).FillBytes(make([]byte, 256))
		if err := hsm.Verify(hsm.RSA2048, in, public, sig); err != c.want {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// paddedInfo is EMSA-PKCS1-v1_5 (RFC 8017 §9.2) of 256 bytes, short of the last ones.
func paddedInfo(info []byte, short int) []byte {
	out := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 256-3-short-len(info))...)
	return append(append(out, 0), info...)
}
