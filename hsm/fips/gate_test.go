package fips_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/fips"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/soft"
)

func open(t *testing.T) *soft.Token {
	t.Helper()
	token, err := soft.Create(filepath.Join(t.TempDir(), "token"), []byte("0000-test-pin"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Errorf("closing the token: %v", err)
		}
	})
	return token
}

// TestConformance: behind the gate a token is a token that lacks some algorithms.
func TestConformance(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) (hsm.Token, keyuse.Port) {
		g := fips.Gate(open(t))
		return g, g
	}, hsmtest.Wrapped)
}

// TestGate: exactly what is not approved is missing, with the reason; keys that were made before the gate was closed do not open.
func TestGate(t *testing.T) {
	token := open(t)
	m, err := hsm.DeriveMaster(make([]byte, 32), "c1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	gate := fips.Gate(token)
	if !strings.HasPrefix(gate.Info().Library, token.Info().Library) || !strings.Contains(gate.Info().Library, "FIPS") {
		t.Errorf("Library is %q", gate.Info().Library)
	}
	var refused []hsm.Algorithm
	for i, row := range gate.Capabilities() {
		if row.Usable() {
			if row != token.Capabilities()[i] {
				t.Errorf("%+v, the token has %+v", row, token.Capabilities()[i])
			}
			if err := hsm.Permit(gate, row.Algorithm); err != nil {
				t.Errorf("the public halves of %s: %v", row.Algorithm, err)
			}
			continue
		}
		refused = append(refused, row.Algorithm)
		if row.Can != 0 || !strings.Contains(row.Missing, "fips: true") {
			t.Errorf("%+v", row)
		}
		if err := hsm.Permit(gate, row.Algorithm); !errors.Is(err, hsm.ErrUnsupported) || hsm.Permit(token, row.Algorithm) != nil {
			t.Errorf("the public halves of %s: %v", row.Algorithm, err)
		}
		b := hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: row.Algorithm}
		_, err := gate.Generate(t.Context(), b, false)
		k, err2 := token.Generate(t.Context(), b, false)
		if !errors.Is(err, hsm.ErrUnsupported) || err2 != nil {
			t.Errorf("generating %s: %v behind the gate, %v before it", row.Algorithm, err, err2)
		}
		if key, err := gate.Open(t.Context(), k); !errors.Is(err, hsm.ErrUnsupported) || key != nil {
			t.Errorf("opening %s: %v", row.Algorithm, err)
		}
		k.Binding.Algorithm = hsm.ECDSAP256
		if key, err := gate.Open(t.Context(), k); !errors.Is(err, hsm.ErrWrappedKey) || key != nil {
			t.Errorf("opening %s under another name: %v", row.Algorithm, err)
		}
	}
	if want := []hsm.Algorithm{hsm.ECDSASecp256k1, hsm.ECDHX25519}; !slices.Equal(refused, want) {
		t.Errorf("refused are %v, want %v", refused, want)
	}
}

// bare is a backend without the interfaces that a backend may have.
type bare struct{ fips.Backend }

// TestGateOfImports: what is not approved comes in by no other way either, and a backend that takes no imports is named with what it lacks.
func TestGateOfImports(t *testing.T) {
	token := open(t)
	m, err := hsm.DeriveMaster(make([]byte, 32), "c1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	k, err := fips.Gate(token).NewImportKey(t.Context(), hsm.FormRSA)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Destroy()
	b := hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: hsm.ECDSASecp256k1}
	if _, err := k.Import(t.Context(), b, make([]byte, 500)); !errors.Is(err, hsm.ErrUnsupported) {
		t.Errorf("secp256k1 behind the gate: %v", err)
	}
	b.Algorithm = hsm.AES256GCM
	if _, err := k.Import(t.Context(), b, make([]byte, 500)); !errors.Is(err, hsm.ErrInput) {
		t.Errorf("garbage: %v", err)
	}
	_, err = fips.Gate(bare{token}).NewImportKey(t.Context(), hsm.FormRSA)
	if !errors.Is(err, hsm.ErrUnsupported) || !strings.Contains(err.Error(), "CKM_RSA_AES_KEY_WRAP") {
		t.Errorf("a backend that cannot: %v", err)
	}
}

// TestGateOfExports: what is not approved leaves by no other way than it is used, which is none; what is passes; a backend that cannot says why.
func TestGateOfExports(t *testing.T) {
	token := open(t)
	m, err := hsm.DeriveMaster(make([]byte, 32), "c1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	to, err := hsm.ParseRecipient(spki, hsm.FormECDH)
	if err != nil {
		t.Fatal(err)
	}
	made := func(a hsm.Algorithm) hsm.WrappedKey {
		k, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: a}, true)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if _, err := fips.Gate(token).Export(t.Context(), made(hsm.ECDSASecp256k1), to); !errors.Is(err, hsm.ErrUnsupported) {
		t.Errorf("secp256k1 behind the gate: %v", err)
	}
	if out, err := fips.Gate(token).Export(t.Context(), made(hsm.AES256GCM), to); err != nil || len(out) != 65+40 {
		t.Errorf("an approved key: %d bytes, %v", len(out), err)
	}
	_, err = fips.Gate(bare{token}).Export(t.Context(), made(hsm.AES256GCM), to)
	if !errors.Is(err, hsm.ErrUnsupported) || !strings.Contains(err.Error(), "CKM_RSA_AES_KEY_WRAP") {
		t.Errorf("a backend that cannot: %v", err)
	}
}
