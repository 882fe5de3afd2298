package clustertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// Authority is the CA of a cluster in a test.
type Authority struct {
	ClusterID string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

// Valid for whatever clock a test uses: a synctest bubble starts in the year 2000.
var (
	notBefore = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewAuthority makes a CA.
func NewAuthority(t testing.TB, clusterID string) *Authority {
	t.Helper()
	a := &Authority{ClusterID: clusterID, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: clusterID + " CA"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = sign(t, template, template, a.key, a.key)
	return a
}

// Roots holds the CA's certificate.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Fingerprint is the SHA-256 of the CA's SubjectPublicKeyInfo.
func (a *Authority) Fingerprint() [sha256.Size]byte {
	return sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
}

// Node issues the certificate of a node, with the CA's behind it.
func (a *Authority) Node(t testing.TB, id cluster.NodeID) *tls.Certificate {
	t.Helper()
	return a.Issue(t, func(c *x509.Certificate) { c.URIs = []*url.URL{cluster.NodeURI(a.ClusterID, id)} })
}

// Issue signs whatever change makes of a certificate that is good but for its missing URI.
func (a *Authority) Issue(t testing.TB, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: notBefore, NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	leaf := sign(t, template, a.cert, key, a.key)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
