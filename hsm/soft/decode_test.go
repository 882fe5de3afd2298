package soft_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// TestMaterialIsStandard: what is wrapped is what other programs read: Go's own PKCS#8 where it knows the algorithm.
func TestMaterialIsStandard(t *testing.T) {
	secrets := map[hsm.Algorithm]int{hsm.AES128GCM: 16, hsm.AES256GCM: 32, hsm.HMACSHA256: 32, hsm.HMACSHA384: 48, hsm.HMACSHA512: 64}
	for _, alg := range hsm.Algorithms() {
		if alg == hsm.RSA3072OAEP || alg == hsm.RSA4096OAEP || alg == hsm.RSA4096 {
			continue // made like the smaller ones, in seconds
		}
		der, spki, err := soft.NewMaterial(alg, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if size, ok := secrets[alg]; ok {
			if len(der) != size || spki != nil {
				t.Errorf("%s: %d bytes, public %x", alg, len(der), spki)
			}
			continue
		}
		if _, err := hsm.ParsePublicKey(alg, spki); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		if _, known := draftForms[alg]; known || alg == hsm.ECDSASecp256k1 {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if again, err := x509.MarshalPKCS8PrivateKey(key); err != nil || !bytes.Equal(again, der) {
			t.Errorf("%s: crypto/x509 encodes %x, %v; we %x", alg, again, err, der)
		}
	}
}

// draftForms are the seed-only private keys of the appendices of RFC 9881 and RFC 9935: seeds 00 01 02 …
var draftForms = map[hsm.Algorithm]string{
	hsm.MLDSA44: "3034020100300b060960864801650304031104228020" + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	hsm.MLDSA65: "3034020100300b060960864801650304031204228020" + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	hsm.MLDSA87: "3034020100300b060960864801650304031304228020" + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	hsm.MLKEM768: "3054020100300b060960864801650304040204428040" +
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
}

func TestSeedForms(t *testing.T) {
	for alg, form := range draftForms {
		der, err := hex.DecodeString(form)
		if err != nil {
			t.Fatal(err)
		}
		seed, err := soft.ParsePrivate(alg, der)
		if err != nil || len(seed) != len(der)-22 || seed[31] != 31 {
			t.Errorf("%s: %x, %v", alg, seed, err)
		}
		for i := range der[:22] {
			bad := bytes.Clone(der)
			bad[i] ^= 1
			if _, err := soft.ParsePrivate(alg, bad); !errors.Is(err, hsm.ErrWrappedKey) {
				t.Errorf("%s, byte %d changed: %v", alg, i, err)
			}
		}
	}
}

// pkcs8Forms are encodings of the scalar 1 by others: with and without curve and public key inside.
func pkcs8Forms() map[string]string {
	const (
		k1Head = "301006072a8648ce3d020106052b8104000a"
		one    = "0000000000000000000000000000000000000000000000000000000000000001"
		k1G    = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
	)
	return map[string]string{
		"bare":           "303e020100" + k1Head + "0427" + "3025" + "0201010420" + one,
		"with curve":     "3047020100" + k1Head + "0430" + "302e" + "0201010420" + one + "a007" + "06052b8104000a",
		"with public":    "308184020100" + k1Head + "046d" + "306b" + "0201010420" + one + "a144" + "034200" + k1G,
		"with both":      "30818d020100" + k1Head + "0476" + "3074" + "0201010420" + one + "a007" + "06052b8104000a" + "a144" + "034200" + k1G,
		"wrong public":   "308184020100" + k1Head + "046d" + "306b" + "0201010420" + one[:62] + "02" + "a144" + "034200" + k1G,
		"wrong curve":    "304a020100" + k1Head + "0433" + "3031" + "0201010420" + one + "a00a" + "06082a8648ce3d030107",
		"zero":           "303e020100" + k1Head + "0427" + "3025" + "0201010420" + one[:62] + "00",
		"order":          "303e020100" + k1Head + "0427" + "3025" + "0201010420" + "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
		"short scalar":   "303d020100" + k1Head + "0426" + "3024" + "020101041f" + one[:62],
		"version 1":      "303e020101" + k1Head + "0427" + "3025" + "0201010420" + one,
		"inner version":  "303e020100" + k1Head + "0427" + "3025" + "0201020420" + one,
		"P-256 outside":  "3041020100" + "301306072a8648ce3d020106082a8648ce3d030107" + "0427" + "3025" + "0201010420" + one,
		"BER length":     "30813e020100" + k1Head + "0427" + "3025" + "0201010420" + one,
		"with attribute": "3040020100" + k1Head + "0427" + "3025" + "0201010420" + one + "a000",
	}
}

func TestPKCS8Forms(t *testing.T) {
	accepted := map[string]bool{"bare": true, "with curve": true, "with public": true, "with both": true}
	for name, form := range pkcs8Forms() {
		der, err := hex.DecodeString(form)
		if err != nil {
			t.Fatal(err)
		}
		seed, err := soft.ParsePrivate(hsm.ECDSASecp256k1, der)
		if accepted[name] {
			if err != nil || !bytes.Equal(seed, append(make([]byte, 31), 1)) {
				t.Errorf("%s: %x, %v", name, seed, err)
			}
		} else if !errors.Is(err, hsm.ErrWrappedKey) || seed != nil {
			t.Errorf("%s: %x, %v", name, seed, err)
		}
	}
}

// FuzzParsePrivateIsTotal: no panic, and whatever is accepted as PKCS#8 of an algorithm that crypto/x509 knows is accepted there too.
func FuzzParsePrivateIsTotal(f *testing.F) {
	for _, form := range pkcs8Forms() {
		der, err := hex.DecodeString(form)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	sizes := map[hsm.Algorithm]int{
		hsm.ECDSAP256: 32, hsm.ECDSAP384: 48, hsm.ECDSAP521: 66, hsm.ECDSASecp256k1: 32, hsm.ECDHP256: 32, hsm.Ed25519: 32, hsm.ECDHX25519: 32,
		hsm.MLDSA44: 32, hsm.MLKEM768: 64,
	}
	for alg := range sizes {
		der, _, err := soft.NewMaterial(alg, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for alg, size := range sizes {
			seed, err := soft.ParsePrivate(alg, der)
			if (err == nil) != (len(seed) == size) {
				t.Fatalf("%s: %x, %v", alg, seed, err)
			}
			if _, unknown := draftForms[alg]; err != nil || unknown || alg == hsm.ECDSASecp256k1 {
				continue
			}
			if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
				t.Fatalf("%s: crypto/x509 refuses what we take: %v", alg, err)
			}
		}
	})
}

// FuzzParseRSAIsTotal: no panic, and what is accepted is a key of two primes.
func FuzzParseRSAIsTotal(f *testing.F) {
	der, _, err := soft.NewMaterial(hsm.RSA2048, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(append(bytes.Clone(der), 0, 0, 0))
	f.Add(der[:len(der)-1])
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := soft.ParseRSA(der)
		if (err == nil) != (key != nil) || err != nil && !errors.Is(err, hsm.ErrWrappedKey) {
			t.Fatalf("%v, %v", key != nil, err)
		}
		if key != nil && (len(key.Primes) != 2 || key.Validate() != nil) {
			t.Fatal("a bad key is accepted")
		}
	})
}

// FuzzContentsRoundTrip: no panic, and what decodes encodes to the same bytes.
func FuzzContentsRoundTrip(f *testing.F) {
	f.Add(soft.SampleContents(false))
	f.Add(soft.SampleContents(true))
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := soft.DecodeContents(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes to %x", b, again)
		}
		if err != nil && !errors.Is(err, hsm.ErrTokenDamaged) {
			t.Fatal(err)
		}
	})
}

// TestContentsSamples: the seeds of the fuzz test are valid, and no cut of them is.
func TestContentsSamples(t *testing.T) {
	for _, kept := range []bool{false, true} {
		b := soft.SampleContents(kept)
		if again, err := soft.DecodeContents(b); err != nil || !bytes.Equal(again, b) {
			t.Errorf("kept %v: %v", kept, err)
		}
		for i := range b {
			if _, err := soft.DecodeContents(b[:i]); !errors.Is(err, hsm.ErrTokenDamaged) {
				t.Errorf("kept %v, cut at %d: %v", kept, i, err)
			}
		}
		if _, err := soft.DecodeContents(append(b, 0)); !errors.Is(err, hsm.ErrTokenDamaged) {
			t.Errorf("kept %v, a byte behind: %v", kept, err)
		}
	}
}

// FuzzParseKeystoreIsTotal gives each input a right checksum, which fuzzing would not find.
func FuzzParseKeystoreIsTotal(f *testing.F) {
	f.Add([]byte("CNCLVSFT\x00\x01\x01"))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := soft.ParseKeystore(resum(append(b, make([]byte, 32)...))); err != nil && !errors.Is(err, hsm.ErrTokenDamaged) {
			t.Fatal(err)
		}
	})
}
