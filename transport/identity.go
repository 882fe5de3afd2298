package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// caller takes the verified identity from the connection of a call.
func caller(ctx context.Context) (policy.Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return policy.Caller{}, fmt.Errorf("%w: no connection", policy.ErrUnauthenticated)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return policy.Caller{}, fmt.Errorf("%w: no certificate", policy.ErrUnauthenticated)
	}
	c := info.State.PeerCertificates[0]
	if now := time.Now(); now.After(c.NotAfter) { // a connection may outlive the certificate that opened it
		return policy.Caller{}, fmt.Errorf("%w: it expired on %s", policy.ErrUnauthenticated, c.NotAfter.Format(time.RFC3339))
	}
	id, err := pki.ParseID(c)
	if err != nil {
		return policy.Caller{}, fmt.Errorf("%w: %w", policy.ErrUnauthenticated, err)
	}
	return policy.Caller{Cluster: id.Cluster, Role: fsm.Role(id.Role), Name: id.Name, Serial: pki.Serial(c)}, nil
}

// TLS makes the server's configuration: TLS 1.3 only, a client certificate of the client authority required. authorities is asked
// for every connection, because the state may learn another bundle.
func TLS(certificate *tls.Certificate, authorities func() *x509.CertPool) *tls.Config {
	base := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		NextProtos:   []string{"h2"},
		// Resumption would let a session outlive what the handshake checked.
		SessionTicketsDisabled: true,
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.GetConfigForClient = nil
		c.ClientCAs = authorities()
		return c, nil
	}
	return base
}

// lingering wraps TLS credentials so that a refused client reads why. In TLS 1.3 the client has already sent its first bytes when
// the server refuses its certificate; closing at once would answer those with a reset, which can overtake the alert. The line in
// the log and the look at what follows the handshake are here too, because no other place knows both the peer and the reason.
type lingering struct {
	credentials.TransportCredentials
	refused func(remote net.Addr, purpose string, err error)
}

func (l lingering) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	held := &heldConn{Conn: conn}
	c, info, err := l.TransportCredentials.ServerHandshake(held)
	held.released.Store(true)
	if err != nil {
		l.refused(conn.RemoteAddr(), "handshake", unfinished(err))
		linger(conn)
		return nil, nil, err
	}
	if stranger, ok := conn.(*apiConn); ok {
		stranger.prove()
	}
	return gate.NewConn(c, func(err error) { l.refused(conn.RemoteAddr(), "http2", err) }), info, nil
}

// unfinished says in words what a stranger did that did not even fail.
func unfinished(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the handshake was not finished: the peer hung up")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the handshake was not finished within %s", handshakeTimeout)
	}
	return err
}

// heldConn does not close before its handshake is over: crypto/tls closes at once after a failed one.
type heldConn struct {
	net.Conn
	released atomic.Bool
}

func (h *heldConn) Close() error {
	if h.released.Load() {
		return h.Conn.Close()
	}
	return nil
}

func linger(conn net.Conn) {
	defer conn.Close()
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() != nil {
			return
		}
	}
	if conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, conn, lingerBytes)
	}
}
