package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/hsm"
)

// What works from the start of a process to its end, sealed or not.

func testInfo(t *testing.T, open Factory) {
	token, _ := open(t)
	info := token.Info()
	if info.Backend == "" || info.Model == "" || info.Library == "" || info.Serial == "" {
		t.Errorf("an empty field in %+v", info)
	}
	other, _ := open(t)
	if other.Info().Serial == info.Serial {
		t.Errorf("two tokens have the serial %s", info.Serial)
	}
}

func testCapabilities(t *testing.T, open Factory) {
	token, _ := open(t)
	rows := token.Capabilities()
	if len(rows) != len(hsm.Algorithms()) {
		t.Fatalf("%d rows, want one for each of %v", len(rows), hsm.Algorithms())
	}
	for i, alg := range hsm.Algorithms() {
		row := rows[i]
		if row.Algorithm != alg || (row.Lacks() == 0) != (row.Missing == "") || !alg.Abilities().Has(row.Can) {
			t.Errorf("row %d for %s is %+v", i, alg, row)
		}
	}
	rows[0].Missing = "changed by the caller"
	if token.Capabilities()[0].Missing == rows[0].Missing {
		t.Error("a caller can change the token's capabilities")
	}
}

func testRandom(t *testing.T, open Factory) {
	token, _ := open(t)
	seen := make(map[[32]byte]bool)
	for range 8 {
		var b [32]byte
		if err := token.Random(b[:]); err != nil || seen[b] || b == [32]byte{} {
			t.Fatalf("Random gave %x, %v", b, err)
		}
		seen[b] = true
	}
	if err := token.Random(nil); err != nil {
		t.Errorf("no bytes: %v", err)
	}
}

// testIdentity: the key makes a certificate that verifies, and signs nothing but SHA-256 digests.
func testIdentity(t *testing.T, open Factory) {
	token, _ := open(t)
	id := token.Identity()
	public, ok := id.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		t.Fatalf("the identity is a %T, want P-256", id.Public())
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "n1"}, NotAfter: time.Unix(4102444800, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, id)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Errorf("the certificate does not verify: %v", err)
	}
	long := sha512.Sum512([]byte("x"))
	for name, refused := range map[string]func() error{
		"another hash": func() error { _, err := id.Sign(rand.Reader, long[:], crypto.SHA512); return err },
		"a cut digest": func() error { _, err := id.Sign(rand.Reader, long[:31], crypto.SHA256); return err },
		"no hash":      func() error { _, err := id.Sign(rand.Reader, long[:32], crypto.Hash(0)); return err },
	} {
		is(t, name, refused(), hsm.ErrInput)
	}
}

// testExchange: the key is a target of HPKE.
func testExchange(t *testing.T, open Factory) {
	token, _ := open(t)
	ex := token.Exchange()
	if ex.Curve() != ecdh.P256() {
		t.Fatalf("the exchange key is on %v, want P-256", ex.Curve())
	}
	private, err := hpke.NewDHKEMPrivateKey(ex)
	if err != nil {
		t.Fatal(err)
	}
	info, share := []byte("cluster and node"), []byte("a share")
	sealed, err := hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), info, share)
	if err != nil {
		t.Fatal(err)
	}
	got, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil || !bytes.Equal(got, share) {
		t.Errorf("HPKE gave %q, %v", got, err)
	}
	if bytes.Equal(ex.PublicKey().Bytes(), identityPoint(t, token)) {
		t.Error("one key serves for signing and for key agreement")
	}
}

func identityPoint(t *testing.T, token hsm.Token) []byte {
	t.Helper()
	b, err := token.Identity().Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testRedaction: no way of printing shows what is inside.
func testRedaction(t *testing.T, open Factory) {
	r := unsealed(t, open)
	key := r.open(t, r.key(t, r.usable()[0], 0))
	for _, v := range []any{r.token, key, r.token.Identity(), r.token.Exchange(), r.master} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
			if got := fmt.Sprintf(verb, v); got != "[redacted]" {
				t.Errorf("%s of %T prints %.60q", verb, v, got)
			}
		}
		if got, err := json.Marshal(v); err != nil || string(got) != `"[redacted]"` {
			t.Errorf("JSON of %T is %.60q, %v", v, got, err)
		}
	}
}
