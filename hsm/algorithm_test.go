package hsm_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

func TestSignInputValidate(t *testing.T) {
	d := make([]byte, 32)
	for name, c := range map[string]struct {
		alg  hsm.Algorithm
		in   hsm.SignInput
		want error
	}{
		"empty message":        {hsm.ECDSAP256, hsm.SignInput{}, nil},
		"named scheme":         {hsm.Ed25519, hsm.SignInput{Scheme: hsm.SchemeEd25519}, nil},
		"digest":               {hsm.ECDSASecp256k1, hsm.SignInput{Prehashed: true, Digest: d}, nil},
		"largest message":      {hsm.Ed25519, hsm.SignInput{Message: make([]byte, hsm.MaxMessage)}, nil},
		"too large":            {hsm.Ed25519, hsm.SignInput{Message: make([]byte, hsm.MaxMessage+1)}, hsm.ErrInput},
		"short digest":         {hsm.ECDSAP256, hsm.SignInput{Prehashed: true, Digest: d[:31]}, hsm.ErrInput},
		"no digest":            {hsm.ECDSAP256, hsm.SignInput{Prehashed: true}, hsm.ErrInput},
		"digest not announced": {hsm.ECDSAP256, hsm.SignInput{Digest: d}, hsm.ErrInput},
		"message beside":       {hsm.ECDSAP256, hsm.SignInput{Prehashed: true, Digest: d, Message: d}, hsm.ErrInput},
		"ed25519 prehashed":    {hsm.Ed25519, hsm.SignInput{Prehashed: true, Digest: d}, hsm.ErrInput},
		"foreign scheme":       {hsm.Ed25519, hsm.SignInput{Scheme: hsm.SchemeECDSASHA256}, hsm.ErrUnsupported},
		"second scheme":        {hsm.RSA3072, hsm.SignInput{Scheme: hsm.SchemeRSAPKCS1SHA256, Prehashed: true, Digest: d}, nil},
		"RSA, short digest":    {hsm.RSA3072, hsm.SignInput{Prehashed: true, Digest: d[:31]}, hsm.ErrInput},
		"RSA by ECDSA":         {hsm.RSA3072, hsm.SignInput{Scheme: hsm.SchemeECDSASHA256}, hsm.ErrUnsupported},
		"P-384, its digest":    {hsm.ECDSAP384, hsm.SignInput{Prehashed: true, Digest: make([]byte, 48)}, nil},
		"P-384 by SHA-256":     {hsm.ECDSAP384, hsm.SignInput{Prehashed: true, Digest: d}, hsm.ErrInput},
		"P-521, its digest":    {hsm.ECDSAP521, hsm.SignInput{Prehashed: true, Digest: make([]byte, 64)}, nil},
		"P-256 by ecdsa-384":   {hsm.ECDSAP256, hsm.SignInput{Scheme: hsm.SchemeECDSASHA384}, hsm.ErrUnsupported},
		"P-256, recoverable":   {hsm.ECDSAP256, hsm.SignInput{Scheme: hsm.SchemeECDSASHA256Recoverable}, hsm.ErrUnsupported},
		"recoverable":          {hsm.ECDSASecp256k1, hsm.SignInput{Scheme: hsm.SchemeECDSASHA256Recoverable, Prehashed: true, Digest: d}, nil},
		"RSA, SHA-512":         {hsm.RSA4096, hsm.SignInput{Scheme: hsm.SchemeRSAPSSSHA512, Prehashed: true, Digest: make([]byte, 64)}, nil},
		"RSA, SHA-512 cut":     {hsm.RSA4096, hsm.SignInput{Scheme: hsm.SchemeRSAPSSSHA512, Prehashed: true, Digest: make([]byte, 63)}, hsm.ErrInput},
		"ml-dsa prehashed":     {hsm.MLDSA65, hsm.SignInput{Prehashed: true, Digest: make([]byte, 64)}, hsm.ErrInput},
		"ml-dsa":               {hsm.MLDSA65, hsm.SignInput{Message: make([]byte, hsm.MaxMessage)}, nil},
		"a decryption key":     {hsm.RSA2048OAEP, hsm.SignInput{}, hsm.ErrUnsupported},
		"an agreement key":     {hsm.ECDHP256, hsm.SignInput{}, hsm.ErrUnsupported},
		"unknown scheme":       {hsm.ECDSAP256, hsm.SignInput{Scheme: "rot13"}, hsm.ErrUnsupported},
		"a MAC key":            {hsm.HMACSHA256, hsm.SignInput{}, hsm.ErrUnsupported},
		"no algorithm":         {"", hsm.SignInput{}, hsm.ErrUnsupported},
	} {
		if err := c.in.Validate(c.alg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestAlgorithms: the names are what catalogs hold.
func TestAlgorithms(t *testing.T) {
	want := map[hsm.Family]string{
		hsm.FamilyCipher:      "aes-128-gcm aes-256-gcm",
		hsm.FamilyMAC:         "hmac-sha256 hmac-sha384 hmac-sha512",
		hsm.FamilySign:        "ecdsa-p256 ecdsa-p384 ecdsa-p521 ecdsa-secp256k1 ed25519 rsa-2048 rsa-3072 rsa-4096 ml-dsa-44 ml-dsa-65 ml-dsa-87",
		hsm.FamilyDecrypt:     "rsa-2048-oaep rsa-3072-oaep rsa-4096-oaep",
		hsm.FamilyAgree:       "ecdh-p256 ecdh-x25519",
		hsm.FamilyDecapsulate: "ml-kem-768",
	}
	got := make(map[hsm.Family][]string)
	notApproved := []hsm.Algorithm{hsm.ECDSASecp256k1, hsm.ECDHX25519}
	for _, a := range hsm.Algorithms() {
		got[a.Family()] = append(got[a.Family()], string(a))
		secret := a.Family() == hsm.FamilyCipher || a.Family() == hsm.FamilyMAC
		if !a.Known() || a.Asymmetric() == secret || (a.Family() == hsm.FamilySign) != (len(a.Schemes()) != 0) {
			t.Errorf("%s: known %v, family %d, asymmetric %v, schemes %q", a, a.Known(), a.Family(), a.Asymmetric(), a.Schemes())
		}
		if a.Approved() == slices.Contains(notApproved, a) {
			t.Errorf("%s: approved %v", a, a.Approved())
		}
	}
	for family, names := range want {
		if strings.Join(got[family], " ") != names {
			t.Errorf("family %d: %q, want %s", family, got[family], names)
		}
	}
	if a := hsm.Algorithm("rot13"); a.Known() || a.Family() != hsm.FamilyUnknown || a.Asymmetric() || a.Approved() || a.Schemes() != nil {
		t.Error("an unknown algorithm is known")
	}
	hsm.Algorithms()[0] = "changed"
	hsm.RSA2048.Schemes()[0] = "changed"
	if hsm.Algorithms()[0] == "changed" || hsm.RSA2048.Schemes()[0] == "changed" {
		t.Error("a caller can change the lists")
	}
	most := hsm.CanGenerate | hsm.CanWrap | hsm.CanUnwrap
	if (hsm.Capability{Algorithm: hsm.Ed25519, Can: most}).Usable() || !(hsm.Capability{Algorithm: hsm.Ed25519, Can: most | hsm.CanSign}).Usable() {
		t.Error("Usable needs all three")
	}
}

// TestInputHash: the digest of each scheme, and none where nothing is hashed.
func TestInputHash(t *testing.T) {
	for scheme, size := range map[hsm.Scheme]int{
		hsm.SchemeECDSASHA256: 32, hsm.SchemeECDSASHA384: 48, hsm.SchemeECDSASHA512: 64, hsm.SchemeECDSASHA256Recoverable: 32,
		hsm.SchemeRSAPSSSHA384: 48, hsm.SchemeRSAPKCS1SHA512: 64, hsm.SchemeEd25519: 0, hsm.SchemeMLDSA: 0, "rot13": 0,
	} {
		given := bytes.Repeat([]byte{7}, size)
		if got := (hsm.SignInput{Message: []byte("m")}).Hash(scheme); len(got) != size {
			t.Errorf("%s: %x", scheme, got)
		}
		if got := (hsm.SignInput{Prehashed: true, Digest: given}).Hash(scheme); !bytes.Equal(got, given) {
			t.Errorf("%s, given %x: %x", scheme, given, got)
		}
	}
}
