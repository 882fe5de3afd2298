package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/transport/kind"
)

const (
	// maxReply leaves room for the largest page: 2 MiB of records with their hashes, or 1000 keys with many versions.
	maxReply = 16 << 20
	// connectTimeout: a node that needs longer for TCP and TLS is passed over.
	connectTimeout = 3 * time.Second
)

// reconnect keeps gRPC's own pauses below ours, so that a node that came back is found in the round that looks for it.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
	MinConnectTimeout: connectTimeout,
}

// alive finds out that a peer is gone without a word; 10 s is the shortest that gRPC allows a client to ask.
var alive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}

// endpoint is one address and its connection. gRPC flattens why it could not connect into a text, so the endpoint
// remembers the error itself.
type endpoint struct {
	address string
	conn    *grpc.ClientConn
	fault   atomic.Pointer[fault]
}

// fault is why the last attempt to connect failed.
type fault struct {
	err      error
	refused  bool // the server refused our certificate
	impostor bool // we refused the server's, or what it speaks
	version  bool // it speaks another version of TLS
}

func newEndpoint(address string, tls credentials.TransportCredentials) (*endpoint, error) {
	e := &endpoint{address: address}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(&watchedCredentials{tls, e}),
		grpc.WithContextDialer(e.dial),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(alive),
		// Retries are Invoke's alone: one place decides what is sent again, and with which request id.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
	)
	if err != nil {
		return nil, fmt.Errorf("%w: address %q: %w", ErrConfig, address, err)
	}
	e.conn = conn
	return e, nil
}

func (e *endpoint) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		e.fault.Store(&fault{err: err})
	}
	return conn, err
}

// handshaken remembers how a handshake ended. An alert of the peer is a net.OpError "remote error": after our own checks have
// passed, all that a node can object to is our certificate.
func (e *endpoint) handshaken(err error) {
	if err == nil {
		e.fault.Store(nil)
		return
	}
	var op *net.OpError
	remote := errors.As(err, &op) && op.Op == "remote error"
	version := kind.RefusesVersion(err.Error()) // no node: every one speaks what this client speaks
	e.fault.Store(&fault{
		err: err, version: version, refused: remote && kind.RefusesCertificate(err.Error()), impostor: version || errors.Is(err, errNotANode),
	})
}

// invoke makes one attempt. If the node was not reached the error says so in the words of the cause.
func (e *endpoint) invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return e.explained(kind.Received(e.conn.Invoke(ctx, method, args, reply, opts...)))
}

// explained puts the cause into the error of a node that was not reached.
func (e *endpoint) explained(err error) error {
	f := e.fault.Load()
	switch {
	case status.Code(err) != codes.Unavailable || f == nil: // the node itself spoke, or the connection broke under way
		return err
	case f.refused:
		return kind.New(kind.Unauthenticated, fmt.Sprintf("%s refuses this client's certificate: %v", e.address, f.err), nil)
	case f.version:
		return kind.New(kind.Unauthenticated, fmt.Sprintf(
			"%s does not speak TLS 1.3, as every node does: something stands between, or another program listens there: %v", e.address, f.err), nil)
	case f.impostor:
		return kind.New(kind.Unauthenticated, f.err.Error(), nil)
	}
	return kind.New(kind.Unavailable, f.err.Error(), nil)
}

// impostor reports whether the last connection failed because we refused the server's certificate.
func (e *endpoint) impostor() bool {
	f := e.fault.Load()
	return f != nil && f.impostor
}

// watchedCredentials are the TLS credentials of one endpoint.
type watchedCredentials struct {
	credentials.TransportCredentials
	endpoint *endpoint
}

// ClientHandshake also waits for the first byte that the server sends. In TLS 1.3 the client's side is done before the server has
// looked at the client's certificate; a client that writes at once can lose the server's alert to a connection reset and would
// then take a refusal for an outage. A gRPC server speaks first (its HTTP/2 settings), so the wait costs nothing.
func (w *watchedCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err == nil {
		conn, err = peek(ctx, conn)
	}
	w.endpoint.handshaken(err)
	if err != nil {
		return nil, nil, err
	}
	return conn, info, nil
}

// Clone is part of the interface; the copy watches the same endpoint.
func (w *watchedCredentials) Clone() credentials.TransportCredentials {
	return &watchedCredentials{w.TransportCredentials.Clone(), w.endpoint}
}

// peek reads one byte, within ctx, and returns a connection that yields it again.
func peek(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	p := &peekedConn{Conn: conn}
	_, err := conn.Read(p.first[:])
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the cause is what matters
		return nil, err
	}
	return p, nil
}

type peekedConn struct {
	net.Conn
	first [1]byte
	given bool
}

// Read is called by one goroutine at a time, as gRPC's reader does.
func (p *peekedConn) Read(b []byte) (int, error) {
	if p.given || len(b) == 0 {
		return p.Conn.Read(b)
	}
	p.given = true
	b[0] = p.first[0]
	return 1, nil
}
