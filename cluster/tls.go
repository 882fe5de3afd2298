package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// Protocols of the cluster port, chosen by ALPN.
const (
	protoRaft = "conclave-raft/1"
	protoNode = "conclave-node/1"
	protoJoin = "conclave-join/1"
)

// handshakeTimeout bounds a handshake: whoever connects and stays silent must not hold a slot for long.
const handshakeTimeout = 5 * time.Second

// identity proves this node to others and checks others.
type identity struct {
	id        NodeID
	clusterID string
	cert      func() *tls.Certificate
	roots     *x509.CertPool
}

var errNoCertificate = errors.New("cluster: node has no certificate yet")

func (i *identity) certificate() (*tls.Certificate, error) {
	if c := i.cert(); c != nil {
		return c, nil
	}
	return nil, errNoCertificate
}

// check finds a chain that would serve members but no joiner, before one fails.
func (i *identity) check() error {
	cert := i.cert()
	if cert == nil || len(cert.Certificate) == 0 {
		return nil // none yet
	}
	last, err := x509.ParseCertificate(cert.Certificate[len(cert.Certificate)-1])
	if err != nil {
		return fmt.Errorf("%w: certificate: %w", ErrConfig, err)
	}
	if len(cert.Certificate) < 2 || !last.IsCA {
		return fmt.Errorf("%w: the certificate chain must end with the CA's own certificate, which joining nodes check", ErrConfig)
	}
	return nil
}

// base is what both directions share. Tickets are off so that every connection proves itself anew: a resumed one would skip
// the check of a certificate that has expired or a root that has gone since.
func (i *identity) base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// server chooses by what the client offers. Each configuration lists only its own protocols, so that whatever is negotiated
// was checked as that protocol demands.
func (i *identity) server() *tls.Config {
	present := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate() }
	mutual := i.base()
	mutual.NextProtos = []string{protoRaft, protoNode}
	mutual.GetCertificate = present
	mutual.ClientAuth = tls.RequireAndVerifyClientCert
	mutual.ClientCAs = i.roots
	mutual.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := i.peer(s)
		return err
	}
	join := i.base()
	join.NextProtos = []string{protoJoin}
	join.GetCertificate = present

	outer := i.base()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if t, ok := hello.Conn.(*trackedConn); ok {
			t.offers(hello.SupportedProtos...)
		}
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == protoJoin {
			return join, nil
		}
		return mutual, nil
	}
	return outer
}

// peer is the node at the other end of a verified connection.
func (i *identity) peer(s tls.ConnectionState) (NodeID, error) {
	if len(s.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: no certificate", ErrPeer)
	}
	return PeerID(s.PeerCertificates[0], i.clusterID)
}

// client verifies that the server is the node want ("" is any node of the cluster), with the key that is known of it (nil: any). Nodes have
// no host names, so the standard verification by name is replaced, not left out.
func (i *identity) client(proto string, want NodeID, key []byte) *tls.Config {
	c := i.base()
	c.NextProtos = []string{proto}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate() }
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verifyServer(s, i.roots); err != nil {
			return err
		}
		id, err := i.peer(s)
		if err == nil && want != "" && id != want {
			err = fmt.Errorf("%w: expected %s, found %s", ErrPeer, want, id)
		}
		if err == nil && key != nil && !bytes.Equal(key, s.PeerCertificates[0].RawSubjectPublicKeyInfo) {
			err = fmt.Errorf("%w: %s with another key than the member's", ErrPeer, id)
		}
		return err
	}
	return c
}

func verifyServer(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("%w: no certificate", ErrPeer)
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	return nil
}

// pinned verifies a server of which only the CA's fingerprint is known.
func pinned(fingerprint [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{protoJoin}, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			isPin := func(c *x509.Certificate) bool {
				return c.IsCA && sha256.Sum256(c.RawSubjectPublicKeyInfo) == fingerprint
			}
			at := slices.IndexFunc(s.PeerCertificates, isPin)
			if at < 0 {
				return fmt.Errorf("%w: no CA with the expected fingerprint in its chain", ErrPeer)
			}
			roots := x509.NewCertPool()
			roots.AddCert(s.PeerCertificates[at])
			if err := verifyServer(s, roots); err != nil {
				return err
			}
			_, _, err := nodeIdentity(s.PeerCertificates[0])
			return err
		},
	}
}

// dialTLS connects and finishes the handshake within ctx.
func dialTLS(ctx context.Context, network Network, addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", addr, err)
	}
	conn := tls.Client(raw, config)
	if err := handshake(ctx, conn); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	return conn, nil
}

// handshake also insists on a protocol: TLS lets a peer answer without one.
func handshake(ctx context.Context, conn *tls.Conn) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if conn.ConnectionState().NegotiatedProtocol == "" {
		return fmt.Errorf("%w: no protocol was negotiated", ErrPeer)
	}
	return nil
}

// peerConn is a handshaken connection with the node that it proved to be; "" for a joiner.
type peerConn struct {
	net.Conn
	id      NodeID
	key     string // of the peer's certificate, DER SubjectPublicKeyInfo
	proto   string
	expires time.Time // of the peer's certificate; zero for a joiner
}
