package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"
)

// Lifetimes. Authorities live long because replacing them is a ceremony of its own; leaves of clients are short because
// whoever holds one is somebody.
const (
	authorityLife     = 20 * 365 * 24 * time.Hour
	NodeLife          = 5 * 365 * 24 * time.Hour
	DefaultClientLife = 90 * 24 * time.Hour
	MaxClientLife     = 398 * 24 * time.Hour
	// backdate forgives clocks that are a little behind.
	backdate = 5 * time.Minute
	// maxRequest bounds a certificate signing request.
	maxRequest = 8 << 10
)

// ErrRequest: a certificate signing request is not acceptable.
var ErrRequest = errors.New("pki: the certificate request is not acceptable")

// Authority is a certificate authority with its private key.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// ID is a SPIFFE id: spiffe://Cluster/Role/Name.
type ID struct{ Cluster, Role, Name string }

// URI of the id.
func (i ID) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: i.Cluster, Path: "/" + i.Role + "/" + i.Name}
}

func (i ID) String() string { return i.URI().String() }

// ParseID reads the one URI of a certificate. It must be exactly what URI makes of the id: a user, a query or an escape in it would
// be another name in the log and in other programs, and the same one here.
func ParseID(c *x509.Certificate) (ID, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" {
		return ID{}, errors.New("pki: the certificate does not carry exactly one spiffe:// name")
	}
	u := c.URIs[0]
	role, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id := ID{Cluster: u.Host, Role: role, Name: name}
	if id.Cluster == "" || role == "" || name == "" || strings.Contains(name, "/") || id.String() != u.String() {
		return ID{}, fmt.Errorf("pki: %q is not spiffe://CLUSTER/ROLE/NAME", u)
	}
	return id, nil
}

// NewAuthority makes a self-signed authority for a purpose ("node" or "client") of a cluster.
func NewAuthority(cluster, purpose string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t, err := template(now, authorityLife)
	if err != nil {
		return nil, err
	}
	t.Subject = pkix.Name{CommonName: "Conclave " + purpose + " CA", Organization: []string{cluster}}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return parseAuthority(der, key)
}

// LoadAuthority puts a stored certificate (DER) and key (PKCS#8 DER) together again.
func LoadAuthority(certificate, key []byte) (*Authority, error) {
	k, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("pki: the authority's key cannot be read") // the cause may quote key bytes
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("pki: the authority's key is no ECDSA key")
	}
	return parseAuthority(certificate, ec)
}

func parseAuthority(der []byte, key *ecdsa.PrivateKey) (*Authority, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: the authority's certificate: %w", err)
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("pki: the authority's key does not belong to its certificate")
	}
	return &Authority{Certificate: c, Key: key}, nil
}

// MarshalKey returns the private key as PKCS#8 DER: a secret, which the caller seals and wipes.
func (a *Authority) MarshalKey() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(a.Key) }

// No verb of fmt, no logger and no encoder shows an authority's key.

const redacted = "[certificate authority]"

// Format serves every verb: String alone would leave %d and %x open.
func (Authority) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// String implements fmt.Stringer.
func (Authority) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Authority) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (Authority) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Authority) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Authority) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// IssueNode signs a node's certificate: server and client at once, for other nodes; hosts are put in for programs that insist
// on a host name.
func (a *Authority) IssueNode(id ID, key crypto.PublicKey, hosts []string, now time.Time) (*x509.Certificate, error) {
	t, err := template(now, NodeLife)
	if err != nil {
		return nil, err
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.sign(t, id, key)
}

// IssueClient signs a client's certificate. The caller chooses the serial, so that a repeated request gets the same one.
func (a *Authority) IssueClient(id ID, key crypto.PublicKey, serial [16]byte, life time.Duration, now time.Time) (*x509.Certificate, error) {
	t := newTemplate(serial, now, life)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(t, id, key)
}

func (a *Authority) sign(t *x509.Certificate, id ID, key crypto.PublicKey) (*x509.Certificate, error) {
	t.Subject = pkix.Name{CommonName: id.Name, OrganizationalUnit: []string{id.Role}}
	t.URIs = []*url.URL{id.URI()}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	if t.NotAfter.After(a.Certificate.NotAfter) {
		t.NotAfter = a.Certificate.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.Certificate, key, a.Key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return x509.ParseCertificate(der)
}

// template has a random serial of 128 bits (RFC 5280 §4.1.2.2 allows 20 octets) and whole seconds, as X.509 has them.
func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	return newTemplate(b, now, life), nil
}

func newTemplate(serial [16]byte, now time.Time, life time.Duration) *x509.Certificate {
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always sixteen bytes long
	now = now.UTC().Truncate(time.Second)
	return &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial[:]), NotBefore: now.Add(-backdate), NotAfter: now.Add(life)}
}

// Serial is the serial number as the state machine keeps it.
func Serial(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }

// ParseRequest checks a PKCS#10 request: its signature, and that its key is P-256, P-384 or Ed25519. Names in it are ignored:
// whoever signs decides the name.
func ParseRequest(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxRequest {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrRequest, len(der), maxRequest)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its signature: %w", ErrRequest, err)
	}
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); ok && k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%w: curve %s; use P-256", ErrRequest, k.Curve.Params().Name)
	}
	if r.PublicKeyAlgorithm != x509.ECDSA && r.PublicKeyAlgorithm != x509.Ed25519 {
		return nil, fmt.Errorf("%w: a %s key; use P-256", ErrRequest, r.PublicKeyAlgorithm)
	}
	return r, nil
}
