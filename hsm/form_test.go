package hsm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// rsaSPKI is a public key of so many bits, of which nobody knows the factors.
func rsaSPKI(t *testing.T, bits int, e int) []byte {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return spkiOf(t, &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: e})
}

func spkiOf(t *testing.T, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecSPKI(t *testing.T, c elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return spkiOf(t, &key.PublicKey)
}

func TestRecipients(t *testing.T) {
	for what, c := range map[string]struct {
		spki []byte
		form hsm.Form
	}{
		"RSA-3072": {rsaSPKI(t, 3072, 65537), hsm.FormRSA}, "RSA-8192": {rsaSPKI(t, 8192, 65539), hsm.FormRSA},
		"P-256": {ecSPKI(t, elliptic.P256()), hsm.FormECDH},
	} {
		for _, form := range []hsm.Form{"", c.form} {
			r, err := hsm.ParseRecipient(c.spki, form)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if r.Form() != c.form || !bytes.Equal(r.PublicKey(), c.spki) || r.Fingerprint() != sha256.Sum256(c.spki) ||
				(r.RSA() != nil) != (c.form == hsm.FormRSA) || (r.ECDH() != nil) != (c.form == hsm.FormECDH) {
				t.Errorf("%s is %+v", what, r)
			}
		}
	}
}

func TestRecipientsRefused(t *testing.T) {
	p256 := ecSPKI(t, elliptic.P256())
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		spki []byte
		form hsm.Form
	}{
		"nothing": {nil, ""}, "garbage": {[]byte("garbage"), ""}, "too long": {make([]byte, 4096), ""}, "bytes behind it": {append(bytes.Clone(p256), 0), ""},
		"RSA-2048": {rsaSPKI(t, 2048, 65537), ""}, "RSA-8200": {rsaSPKI(t, 8200, 65537), ""}, "e = 3": {rsaSPKI(t, 3072, 3), ""},
		"an even exponent": {rsaSPKI(t, 3072, 65538), ""}, "P-384": {ecSPKI(t, elliptic.P384()), ""}, "Ed25519": {spkiOf(t, public), ""},
		"another form": {p256, hsm.FormRSA}, "no form at all": {p256, "plain"},
	} {
		if r, err := hsm.ParseRecipient(c.spki, c.form); !errors.Is(err, hsm.ErrInput) || r.Form() != "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestForms(t *testing.T) {
	for name, want := range map[string]hsm.Form{"rsa-aes": hsm.FormRSA, "ecdh": hsm.FormECDH, string(hsm.FormRSA): hsm.FormRSA, string(hsm.FormECDH): hsm.FormECDH} {
		if got, err := hsm.ParseForm(name); err != nil || got != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "rsa", "plain"} {
		if got, err := hsm.ParseForm(name); !errors.Is(err, hsm.ErrInput) || got != "" {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
	for _, name := range hsm.FormNames() {
		if _, err := hsm.ParseForm(name); err != nil {
			t.Error(err)
		}
	}
}

// FuzzParseRecipient: total, and what it takes has one encoding.
func FuzzParseRecipient(f *testing.F) {
	f.Add([]byte(nil))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, spki []byte) {
		r, err := hsm.ParseRecipient(spki, "")
		if err == nil && !bytes.Equal(r.PublicKey(), spki) || err != nil && !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%x: %v", spki, err)
		}
	})
}
