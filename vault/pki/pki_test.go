package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/vault/pki"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 999, time.UTC)

func authority(t testing.TB, purpose string) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("c1", purpose, now)
	must(t, err)
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	must(t, err)
	return key
}

func client(t testing.TB, a *pki.Authority, serial [16]byte, life time.Duration, at time.Time) *x509.Certificate {
	t.Helper()
	c, err := a.IssueClient(pki.ID{Cluster: "c1", Role: "user", Name: "ada"}, ecKey(t, elliptic.P256()).Public(), serial, life, at)
	must(t, err)
	return c
}

func node(t testing.TB, a *pki.Authority, hosts ...string) *x509.Certificate {
	t.Helper()
	c, err := a.IssueNode(pki.ID{Cluster: "c1", Role: "node", Name: "n1"}, ecKey(t, elliptic.P256()).Public(), hosts, now)
	must(t, err)
	return c
}

func TestAuthority(t *testing.T) {
	for _, purpose := range []string{"node", "client"} {
		c := authority(t, purpose).Certificate
		if !c.IsCA || !c.BasicConstraintsValid || !c.MaxPathLenZero || c.MaxPathLen != 0 {
			t.Errorf("%s: CA %v, path length %d: it signs leaves and no other authority", purpose, c.IsCA, c.MaxPathLen)
		}
		if c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) != 0 || len(c.URIs) != 0 {
			t.Errorf("%s: usage %b, %v, names %v", purpose, c.KeyUsage, c.ExtKeyUsage, c.URIs)
		}
		if c.Subject.CommonName != "Conclave "+purpose+" CA" || !slices.Equal(c.Subject.Organization, []string{"c1"}) {
			t.Errorf("it is called %s", c.Subject)
		}
		if life := c.NotAfter.Sub(c.NotBefore); life < 19*365*24*time.Hour || !c.NotBefore.Before(now) {
			t.Errorf("%s: it lives for %v from %v", purpose, life, c.NotBefore)
		}
		must(t, c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature))
	}
}

func TestAuthorityRoundTrip(t *testing.T) {
	a, other := authority(t, "node"), authority(t, "node")
	key, err := a.MarshalKey()
	must(t, err)
	back, err := pki.LoadAuthority(a.Certificate.Raw, key)
	must(t, err)
	if !back.Certificate.Equal(a.Certificate) || !back.Key.Equal(a.Key) {
		t.Error("another authority came back")
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	wrongType, err := x509.MarshalPKCS8PrivateKey(ed)
	must(t, err)
	for name, c := range map[string]struct{ certificate, key []byte }{
		"another's certificate": {other.Certificate.Raw, key}, "no certificate": {nil, key}, "a cut certificate": {a.Certificate.Raw[:100], key},
		"no key": {a.Certificate.Raw, nil}, "a cut key": {a.Certificate.Raw, key[:len(key)-1]}, "an Ed25519 key": {a.Certificate.Raw, wrongType},
	} {
		if got, err := pki.LoadAuthority(c.certificate, c.key); err == nil || got != nil {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), hex.EncodeToString(key[len(key)-8:])) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestNodeLeaf(t *testing.T) {
	c := node(t, authority(t, "node"), "10.0.0.1", "vault.example", "", "::1")
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("its uses are %v: a node serves and calls", c.ExtKeyUsage)
	}
	leafProfile(t, c, "spiffe://c1/node/n1", pki.NodeLife)
	if len(c.IPAddresses) != 2 || !slices.Equal(c.DNSNames, []string{"vault.example"}) {
		t.Errorf("hosts %v and %v", c.IPAddresses, c.DNSNames)
	}
	if again := node(t, authority(t, "node")); again.SerialNumber.Cmp(c.SerialNumber) == 0 {
		t.Error("two certificates have one serial")
	}
}

func TestClientLeaf(t *testing.T) {
	c := client(t, authority(t, "client"), [16]byte{}, time.Hour, now)
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(c.DNSNames)+len(c.IPAddresses) != 0 {
		t.Errorf("its uses are %v, its hosts %v: a client serves nobody", c.ExtKeyUsage, c.DNSNames)
	}
	leafProfile(t, c, "spiffe://c1/user/ada", time.Hour)
	if c.Subject.CommonName != "ada" || !slices.Equal(c.Subject.OrganizationalUnit, []string{"user"}) {
		t.Errorf("it is called %s", c.Subject)
	}
}

func leafProfile(t *testing.T, c *x509.Certificate, name string, life time.Duration) {
	t.Helper()
	if c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("CA %v, usage %b", c.IsCA, c.KeyUsage)
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != name {
		t.Errorf("its names are %v", c.URIs)
	}
	second := now.Truncate(time.Second)
	if !c.NotAfter.Equal(second.Add(life)) || !c.NotBefore.Equal(second.Add(-5*time.Minute)) {
		t.Errorf("it is good from %v to %v", c.NotBefore, c.NotAfter)
	}
	if c.SerialNumber.Sign() != 1 || len(c.SerialNumber.Bytes()) != 16 {
		t.Errorf("its serial is %v", c.SerialNumber)
	}
	if s := pki.Serial(c); len(s) != 32 || s != strings.ToLower(s) {
		t.Errorf("its serial is kept as %q", s)
	}
}

func TestSerialsArePositiveAndWhole(t *testing.T) {
	a := authority(t, "client")
	for _, s := range [][16]byte{{}, {0xff}, {0x80}, {0x40}, {15: 1}, [16]byte(bytes.Repeat([]byte{0xff}, 16))} {
		c := client(t, a, s, time.Hour, now)
		if c.SerialNumber.Sign() != 1 || len(c.SerialNumber.Bytes()) != 16 || len(pki.Serial(c)) != 32 {
			t.Errorf("%x became %x", s, c.SerialNumber)
		}
	}
}

// TestTheSameSerialAgain: a repeated request makes the certificate that is recorded, whenever it is made.
func TestTheSameSerialAgain(t *testing.T) {
	a, s := authority(t, "client"), [16]byte{3, 1, 4, 15: 9}
	one, two, three := client(t, a, s, time.Hour, now), client(t, a, s, time.Hour, now.Add(time.Minute)), client(t, a, [16]byte{3, 1, 4, 15: 8}, time.Hour, now)
	if pki.Serial(one) != pki.Serial(two) || pki.Serial(one) == pki.Serial(three) {
		t.Errorf("%s, %s and %s", pki.Serial(one), pki.Serial(two), pki.Serial(three))
	}
}

// TestNothingOutlivesItsAuthority: such a certificate would be refused with a confusing reason.
func TestNothingOutlivesItsAuthority(t *testing.T) {
	a := authority(t, "client")
	late := a.Certificate.NotAfter.Add(-time.Hour)
	if c := client(t, a, [16]byte{}, 48*time.Hour, late); !c.NotAfter.Equal(a.Certificate.NotAfter) {
		t.Errorf("it ends at %v, its authority at %v", c.NotAfter, a.Certificate.NotAfter)
	}
}

func verify(c *x509.Certificate, a *pki.Authority, use x509.ExtKeyUsage, at time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	_, err := c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

// TestWhoVerifiesUnderWhom: a node is no client and a client no node, whatever they use the certificate for.
func TestWhoVerifiesUnderWhom(t *testing.T) {
	nodes, clients, strangers := authority(t, "node"), authority(t, "client"), authority(t, "client")
	n, c := node(t, nodes), client(t, clients, [16]byte{}, time.Hour, now)
	serve, call := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, row := range []struct {
		name string
		leaf *x509.Certificate
		by   *pki.Authority
		use  x509.ExtKeyUsage
		at   time.Time
		ok   bool
	}{
		{"a node serves", n, nodes, serve, now, true},
		{"a node calls a node", n, nodes, call, now, true},
		{"a client calls", c, clients, call, now, true},
		{"a node calls as a client", n, clients, call, now, false},
		{"a client calls as a node", c, nodes, call, now, false},
		{"a client serves", c, clients, serve, now, false},
		{"a client of another cluster", c, strangers, call, now, false},
		{"a moment before, of a clock that is behind", c, clients, call, now.Add(-4 * time.Minute), true},
		{"long before", c, clients, call, now.Add(-6 * time.Minute), false},
		{"at its end", c, clients, call, c.NotAfter, true},
		{"after its end", c, clients, call, c.NotAfter.Add(time.Second), false},
	} {
		if err := verify(row.leaf, row.by, row.use, row.at); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestAnUnusableKeyIsNotSigned(t *testing.T) {
	a := authority(t, "client")
	if _, err := a.IssueClient(pki.ID{Cluster: "c1", Role: "user", Name: "ada"}, "no key", [16]byte{}, time.Hour, now); err == nil {
		t.Error("a certificate for no key")
	}
	if _, err := a.IssueNode(pki.ID{Cluster: "c1", Role: "node", Name: "n1"}, nil, nil, now); err == nil {
		t.Error("a certificate for nothing")
	}
}

func TestParseID(t *testing.T) {
	parse := func(names ...string) (pki.ID, error) {
		c := &x509.Certificate{}
		for _, n := range names {
			u, err := url.Parse(n)
			must(t, err)
			c.URIs = append(c.URIs, u)
		}
		return pki.ParseID(c)
	}
	want := pki.ID{Cluster: "c1", Role: "user", Name: "ada"}
	if got, err := parse("spiffe://c1/user/ada"); err != nil || got != want || got.String() != "spiffe://c1/user/ada" {
		t.Errorf("%v, %v", got, err)
	}
	for _, names := range [][]string{
		{}, {"spiffe://c1/user/ada", "spiffe://c1/user/ada"}, {"spiffe://c1/user/ada", "https://c1"}, {"https://c1/user/ada"}, {"SPIFFE2://c1/user/ada"},
		{"spiffe:c1/user/ada"}, {"spiffe:///user/ada"}, {"spiffe://c1"}, {"spiffe://c1/"}, {"spiffe://c1/user"}, {"spiffe://c1/user/"}, {"spiffe://c1//ada"},
		{"spiffe://c1/user/ada/"}, {"spiffe://c1/user/ada/x"}, {"spiffe://c1//user/ada"}, {"spiffe://c1/user/a%2Fb"},
		// The same after a lenient reading, and another name in the log.
		{"spiffe://c1/user/ada?role=administrator"}, {"spiffe://c1/user/ada#x"}, {"spiffe://root@c1/user/ada"}, {"spiffe://c1/user/%61da"}, {"spiffe://c1/user/ada?"},
	} {
		if got, err := parse(names...); err == nil || got != (pki.ID{}) {
			t.Errorf("%v was read as %v", names, got)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"spiffe://c1/user/ada", "spiffe://c1/user/%00", "spiffe://c1:7/user/ada?x#y", "spiffe://[::1]/a/b", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		u, err := url.Parse(name)
		if err != nil {
			return
		}
		id, err := pki.ParseID(&x509.Certificate{URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		if id.String() != u.String() || id.Cluster == "" || id.Role == "" || id.Name == "" || strings.Contains(id.Role+id.Name, "/") {
			t.Errorf("%q was read as %+v", name, id)
		}
	})
}

func request(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whoever"}}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	must(t, err)
	return der
}

func TestParseRequest(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for name, key := range map[string]crypto.Signer{"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "Ed25519": ed} {
		der := request(t, key, nil)
		r, err := pki.ParseRequest(der)
		must(t, err)
		if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(r.PublicKey) {
			t.Errorf("%s: another key came back", name)
		}
		for i := range der { // any changed byte is noticed: the signature covers all of it
			der[i] ^= 1
			if _, err := pki.ParseRequest(der); !errors.Is(err, pki.ErrRequest) {
				t.Fatalf("%s with byte %d of %d changed: %v", name, i, len(der), err)
			}
			der[i] ^= 1
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	p256 := ecKey(t, elliptic.P256())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	good := request(t, p256, nil)
	for name, c := range map[string]struct {
		der  []byte
		says string
	}{
		"RSA":        {request(t, rsaKey, nil), "RSA key; use P-256"},
		"P-224":      {request(t, ecKey(t, elliptic.P224()), nil), "curve P-224; use P-256"},
		"P-521":      {request(t, ecKey(t, elliptic.P521()), nil), "curve P-521; use P-256"},
		"nothing":    {nil, "not acceptable"},
		"PEM":        {[]byte("-----BEGIN CERTIFICATE REQUEST-----"), "not acceptable"},
		"cut":        {good[:len(good)-1], "not acceptable"},
		"more":       {append(slices.Clone(good), 0), "not acceptable"},
		"oversized":  {request(t, p256, func(r *x509.CertificateRequest) { r.DNSNames = slices.Repeat([]string{strings.Repeat("a", 60)}, 200) }), "at most 8192"},
		"signed not": {resigned(t, good, request(t, ecKey(t, elliptic.P256()), nil)), "its signature"},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := pki.ParseRequest(c.der); !errors.Is(err, pki.ErrRequest) || r != nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// resigned is a request with the signature of another one: whoever sends it does not have the key.
func resigned(t testing.TB, der, other []byte) []byte {
	t.Helper()
	a, err := x509.ParseCertificateRequest(der)
	must(t, err)
	b, err := x509.ParseCertificateRequest(other)
	must(t, err)
	if len(a.Signature) != len(b.Signature) { // DER of two integers: try for one of the same length
		return resigned(t, der, request(t, ecKey(t, elliptic.P256()), nil))
	}
	return bytes.Replace(der, a.Signature, b.Signature, 1)
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, ecKey(f, elliptic.P256()), nil))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := pki.ParseRequest(der)
		if (err == nil) == errors.Is(err, pki.ErrRequest) || (err == nil && !bytes.Equal(r.Raw, der)) {
			t.Errorf("%x: %v", der, err)
		}
	})
}
