package hsm_test

import (
	"bytes"
	"crypto/mlkem"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// TestEncryptOAEP: what is encrypted opens with crypto/rsa, twice the same is not the same, and each size has its limit.
func TestEncryptOAEP(t *testing.T) {
	for alg, bits := range map[hsm.Algorithm]int{hsm.RSA2048OAEP: 2048, hsm.RSA3072OAEP: 3072, hsm.RSA4096OAEP: 4096} {
		key := publishedRSA(t, bits)
		spki := marshal(t, alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
		most := bytes.Repeat([]byte{5}, bits/8-66)
		one, err1 := hsm.EncryptOAEP(alg, spki, most)
		two, err2 := hsm.EncryptOAEP(alg, spki, most)
		if err := errors.Join(err1, err2); err != nil || bytes.Equal(one, two) || len(one) != bits/8 {
			t.Errorf("%s: %d bytes, %v", alg, len(one), err)
		}
		if got, err := rsa.DecryptOAEP(sha256.New(), nil, key, one, nil); err != nil || !bytes.Equal(got, most) {
			t.Errorf("%s: crypto/rsa reads %x, %v", alg, got, err)
		}
		for name, err := range map[string]error{
			"a byte too many": third(hsm.EncryptOAEP(alg, spki, append(most, 0))), "no key": third(hsm.EncryptOAEP(alg, nil, most)),
			"a cut key": third(hsm.EncryptOAEP(alg, spki[1:], most)),
		} {
			if !errors.Is(err, hsm.ErrInput) {
				t.Errorf("%s, %s: %v", alg, name, err)
			}
		}
		if err := third(hsm.EncryptOAEP(hsm.RSA2048, spki, most)); !errors.Is(err, hsm.ErrUnsupported) {
			t.Errorf("with a signature key: %v", err)
		}
	}
}

func third(_ []byte, err error) error { return err }

// TestEncapsulate: what is encapsulated opens with crypto/mlkem, and a public key whose coefficients are not reduced is none.
func TestEncapsulate(t *testing.T) {
	key, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	public := key.EncapsulationKey().Bytes()
	spki := marshal(t, hsm.MLKEM768, public)
	shared, ciphertext, err := hsm.Encapsulate(hsm.MLKEM768, spki)
	if err != nil || len(shared) != 32 || len(ciphertext) != mlkem.CiphertextSize768 {
		t.Fatalf("%x, %d bytes, %v", shared, len(ciphertext), err)
	}
	if got, err := key.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, shared) {
		t.Errorf("crypto/mlkem has %x, %v; want %x", got, err, shared)
	}
	head := len(spki) - len(public)
	for name, bad := range map[string][]byte{
		"nothing": nil, "cut": spki[:len(spki)-1], "longer": append(bytes.Clone(spki), 0),
		"not reduced": append(append(bytes.Clone(spki[:head]), 0xff, 0xff, 0xff), spki[head+3:]...),
	} {
		if _, _, err := hsm.Encapsulate(hsm.MLKEM768, bad); !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := hsm.Encapsulate(hsm.ECDHX25519, spki); !errors.Is(err, hsm.ErrUnsupported) {
		t.Errorf("with an agreement key: %v", err)
	}
}
