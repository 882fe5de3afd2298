// Package clienttest gives tests of clients what they talk to: a certificate authority of a made-up cluster and gRPC servers
// on loopback that present its nodes' certificates and demand a client's, as a node does. It holds no behaviour of a node;
// each test registers its own.
package clienttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// CA signs the certificates of one cluster.
type CA struct {
	Cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewCA makes the CA of the named cluster.
func NewCA(t testing.TB, cluster string) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: cluster + " CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("making a CA: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parsing the CA: %v", err)
	}
	return &CA{Cluster: cluster, cert: cert, key: key}
}

// PEM is the certificate of the CA.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// DER is the certificate of the CA.
func (ca *CA) DER() []byte { return ca.cert.Raw }

// URI is the identity of a role and name in the CA's cluster.
func (ca *CA) URI(role, name string) string {
	return fmt.Sprintf("spiffe://%s/%s/%s", ca.Cluster, role, name)
}

// Issue makes a key and a certificate, good for an hour, with exactly the given URIs.
func (ca *CA) Issue(t testing.TB, uris ...string) tls.Certificate {
	t.Helper()
	return ca.IssueUntil(t, time.Now().Add(time.Hour), uris...)
}

// IssueUntil is Issue with an end, which may lie in the past.
func (ca *CA) IssueUntil(t testing.TB, end time.Time, uris ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := ca.Sign(key.Public(), end, uris...)
	if err != nil {
		t.Fatalf("issuing a certificate: %v", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Sign makes the certificate of a public key, as DER.
func (ca *CA) Sign(public any, end time.Time, uris ...string) ([]byte, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: number, NotBefore: end.Add(-2 * time.Hour), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			return nil, fmt.Errorf("URI name: %w", err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
}

// KeyPEM is the private key of a certificate that Issue made, as PKCS#8.
func KeyPEM(t testing.TB, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatalf("encoding a key: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// CertificatePEM is the leaf of a certificate that Issue made.
func CertificatePEM(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatalf("serial number: %v", err)
	}
	return n
}
