package cluster

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
)

const (
	// connectTimeout bounds the wait for a connection to a node.
	connectTimeout = 2 * time.Second
	// keepaliveTime and keepaliveTimeout find connections whose other end is gone without a word.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// frameSlack is what a message needs beside its payload.
	frameSlack = 64 << 10
)

// pool holds one connection per node. There are two pools, so that large calls cannot hold up renewals.
type pool struct {
	dial func(ctx context.Context, id NodeID, addr string) (net.Conn, error)

	mu     sync.Mutex
	closed bool
	links  map[NodeID]*link
}

type link struct {
	addr   string
	conn   *grpc.ClientConn
	failed *signal // an attempt to connect has failed
}

func newPool(dial func(context.Context, NodeID, string) (net.Conn, error)) *pool {
	return &pool{dial: dial, links: make(map[NodeID]*link)}
}

// get returns a connected client, so that a request which then fails is known to have been sent.
func (p *pool) get(ctx context.Context, id NodeID, addr string) (clusterpb.PeerClient, error) {
	l, err := p.link(id, addr)
	if err != nil {
		return nil, err
	}
	if err := l.connected(ctx); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, id, err)
	}
	return clusterpb.NewPeerClient(l.conn), nil
}

func (p *pool) link(id NodeID, addr string) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrStopped
	}
	if l := p.links[id]; l != nil {
		if l.addr == addr {
			return l, nil
		}
		l.conn.Close()
		delete(p.links, id)
	}
	l := &link{addr: addr, failed: newSignal()}
	var err error
	l.conn, err = grpc.NewClient("passthrough:///"+addr, clientOptions(func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := p.dial(ctx, id, addr)
		if err != nil {
			l.failed.Broadcast()
		}
		return conn, err
	}, MaxMessageBytes+frameSlack)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, id, err)
	}
	p.links[id] = l
	return l, nil
}

func clientOptions(dial func(context.Context, string) (net.Conn, error), limit int) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithContextDialer(dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit), grpc.MaxCallSendMsgSize(limit)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		// Short: a lease of seconds cannot wait for gRPC's usual two minutes, and a node that came back must be found at once. Asking
		// gRPC to try now (ResetConnectBackoff) races with closing a connection in v1.85.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // only the caller knows whether a call may be sent twice
	}
}

// connected waits for the connection, through one failed attempt at most. gRPC's word alone does not tell of one: once an attempt has
// failed a connection stays in TransientFailure, through all further attempts, until it is Ready.
func (l *link) connected(ctx context.Context) error {
	found := l.conn.GetState()
	if found == connectivity.Ready { // as nearly always
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	failed := l.failed.Wait()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-failed:
			cancel()
		case <-ctx.Done():
		}
	})
	for {
		state := l.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			l.conn.Connect()
		case connectivity.TransientFailure:
			if found != state { // an attempt that this call has seen, and that failed after the dial
				return errNoConnection
			}
		case connectivity.Shutdown:
			return ErrStopped
		}
		if !l.conn.WaitForStateChange(ctx, state) {
			return errNoConnection
		}
	}
}

// drop closes the connection to a node; the next get makes a new one.
func (p *pool) drop(id NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.links[id]; l != nil {
		l.conn.Close()
		delete(p.links, id)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.links {
		l.conn.Close()
	}
	clear(p.links)
}
