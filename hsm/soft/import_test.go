package soft_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// importKey makes one with published primes: to search for new ones is a matter of TestOpenSSLWraps.
func importKey(t *testing.T, token *soft.Token) (hsm.ImportKey, *rsa.PublicKey) {
	t.Helper()
	defer soft.PublishedImportPair()()
	return drawnImportKey(t, token)
}

func drawnImportKey(t *testing.T, token *soft.Token) (hsm.ImportKey, *rsa.PublicKey) {
	t.Helper()
	k, err := token.NewImportKey(t.Context(), hsm.FormRSA)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Destroy)
	public, err := x509.ParsePKIXPublicKey(k.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return k, public.(*rsa.PublicKey)
}

func subject(m *hsm.Master, alg hsm.Algorithm) hsm.Binding {
	return hsm.Binding{ClusterID: m.ClusterID, KeyID: "imported", Version: 1, Algorithm: alg}
}

// bring wraps material to a fresh import key and imports it.
func bring(t *testing.T, token *soft.Token, m *hsm.Master, alg hsm.Algorithm, material []byte) (hsm.WrappedKey, error) {
	t.Helper()
	k, public := importKey(t, token)
	wrapped, err := keywrap.WrapRSA(public, material)
	if err != nil {
		t.Fatal(err)
	}
	return k.Import(t.Context(), subject(m, alg), wrapped)
}

// opened is a wrapped key's working copy.
func opened(t *testing.T, token *soft.Token, k hsm.WrappedKey) keyuse.Key {
	t.Helper()
	c, err := token.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	return c
}

// TestImportEveryAlgorithm: material of each kind comes in and is the very key that went out, in the form in which a generated one rests.
func TestImportEveryAlgorithm(t *testing.T) {
	token, m := unsealed(t)
	for _, alg := range hsm.Algorithms() {
		material, spki := someMaterial(t, alg)
		w, err := bring(t, token, m, alg, material)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if !bytes.Equal(w.Binding.PublicKey, spki) || w.Binding.Exportable || w.Binding.Generation != m.Generation {
			t.Errorf("%s: bound to %+v", alg, w.Binding)
		}
		if again, err := keywrap.Unwrap(m.Wrap, w.Blob); err != nil || !bytes.Equal(again, material) {
			t.Errorf("%s: wrapped as other material than came in (%v)", alg, err)
		}
		opened(t, token, w)
	}
}

func someMaterial(t *testing.T, alg hsm.Algorithm) (material, spki []byte) {
	t.Helper()
	if bits := rsaBits[alg]; bits != 0 {
		der, key := publishedRSA(t, bits)
		spki, err := hsm.MarshalPublicKey(alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		return der, spki
	}
	material, spki, err := soft.NewMaterial(alg, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return material, spki
}

// TestOpenSSLWraps: who has nothing but openssl makes the wrapped form by its commands, as README shows them.
func TestOpenSSLWraps(t *testing.T) {
	token, m := unsealed(t)
	dir := t.TempDir()
	k, _ := drawnImportKey(t, token)
	pub := file(t, dir, "import.pem", []byte(hsm.PublicKeyPEM(k.PublicKey())))
	pem, der := filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.der")
	openssl(t, append([]string{"genpkey", "-out", pem}, ecArgs("P-384")...)...)
	openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", pem, "-outform", "DER", "-out", der)
	ephemeral := make([]byte, 32)
	if _, err := rand.Read(ephemeral); err != nil {
		t.Fatal(err)
	}
	outer, inner := filepath.Join(dir, "outer"), filepath.Join(dir, "inner")
	openssl(t, "pkeyutl", "-encrypt", "-pubin", "-inkey", pub, "-in", file(t, dir, "ephemeral", ephemeral), "-out", outer,
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	openssl(t, "enc", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(ephemeral), "-iv", "A65959A6", "-in", der, "-out", inner)
	var wrapped []byte
	for _, part := range []string{outer, inner} {
		data, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		wrapped = append(wrapped, data...)
	}
	w, err := k.Import(t.Context(), subject(m, hsm.ECDSAP384), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if want := openssl(t, "pkey", "-in", pem, "-pubout", "-outform", "DER"); !bytes.Equal(w.Binding.PublicKey, want) {
		t.Errorf("the public key is %x, of openssl %x", w.Binding.PublicKey, want)
	}
	in := hsm.SignInput{Message: []byte("message")}
	signature, err := opened(t, token, w).Sign(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	message := file(t, dir, "message", in.Message)
	openssl(t, verifyArgs(hsm.SchemeECDSASHA384, file(t, dir, "pub.pem", []byte(hsm.PublicKeyPEM(w.Binding.PublicKey))), file(t, dir, "sig", signature), message)...)
}

// TestImportRefusesOtherMaterial: each with ErrInput, and each spends its import key.
func TestImportRefusesOtherMaterial(t *testing.T) {
	token, m := unsealed(t)
	p256, _ := someMaterial(t, hsm.ECDSAP256)
	rsa2048, _ := publishedRSA(t, 2048)
	for _, c := range []struct {
		what     string
		alg      hsm.Algorithm
		material []byte
	}{
		{"a short secret", hsm.AES256GCM, make([]byte, 16)},
		{"a secret of zeros", hsm.AES256GCM, make([]byte, 32)},
		{"a private key for a secret", hsm.HMACSHA512, p256},
		{"another curve", hsm.ECDSAP384, p256},
		{"another kind", hsm.Ed25519, p256},
		{"a secret for a private key", hsm.ECDSAP256, bytes.Repeat([]byte{1}, 32)},
		{"a smaller modulus", hsm.RSA3072, rsa2048},
		{"an EC key for RSA", hsm.RSA2048, p256},
		{"another's public half inside", hsm.ECDSAP256, mixedPair(t)},
		{"a scalar of zero", hsm.ECDSAP256, zeroScalar(t, p256)},
		{"bytes behind it", hsm.ECDSAP256, append(bytes.Clone(p256), 1)},
		{"a tail cut off", hsm.RSA2048, rsa2048[:len(rsa2048)-1]},
	} {
		if w, err := bring(t, token, m, c.alg, c.material); !errors.Is(err, hsm.ErrInput) || w.Blob != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// mixedPair is a P-256 key with the public half of another.
func mixedPair(t *testing.T) []byte {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	a, err := x509.MarshalPKCS8PrivateKey(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := keys[0].PublicKey.Bytes()
	other, _ := keys[1].PublicKey.Bytes()
	mixed := bytes.Replace(a, mine, other, 1)
	if bytes.Equal(mixed, a) {
		t.Fatal("nothing was mixed")
	}
	return mixed
}

func zeroScalar(t *testing.T, der []byte) []byte {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	d, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(der, d, make([]byte, len(d)), 1)
}

// TestImportRefusesOtherForms: OAEP with a label, with another size of the ephemeral key; and bytes that are no form at all.
func TestImportRefusesOtherForms(t *testing.T) {
	token, m := unsealed(t)
	inner := func(kek []byte) []byte {
		blob, err := keywrap.Wrap(kek, bytes.Repeat([]byte{7}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	kek := bytes.Repeat([]byte{3}, 32)
	for what, form := range map[string]func(*rsa.PublicKey) []byte{
		"nothing":            func(*rsa.PublicKey) []byte { return nil },
		"zeros":              func(p *rsa.PublicKey) []byte { return make([]byte, p.Size()+40) },
		"too much":           func(*rsa.PublicKey) []byte { return make([]byte, hsm.MaxImport+8) },
		"the outer one only": func(p *rsa.PublicKey) []byte { return oaep(t, p, kek, nil) },
		"a label":            func(p *rsa.PublicKey) []byte { return append(oaep(t, p, kek, []byte("label")), inner(kek)...) },
		"AES-128":            func(p *rsa.PublicKey) []byte { return append(oaep(t, p, kek[:16], nil), inner(kek[:16])...) },
		"another inner key":  func(p *rsa.PublicKey) []byte { return append(oaep(t, p, kek, nil), inner(make([]byte, 32))...) },
	} {
		k, public := importKey(t, token)
		if _, err := k.Import(t.Context(), subject(m, hsm.AES256GCM), form(public)); !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func oaep(t *testing.T, public *rsa.PublicKey, message, label []byte) []byte {
	t.Helper()
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, message, label)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
