package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/cluster/refusal"
)

const (
	// maxPortConns bounds all inbound connections: a few per node are normal.
	maxPortConns = 1024
	// maxJoinConns bounds those of strangers among them, so that they cannot keep members out.
	maxJoinConns = 32
	// acceptPause is the wait after a failed accept (out of descriptors, say), so that the loop cannot spin.
	acceptPause = 50 * time.Millisecond
	// maxConnsPerPeer bounds those of one member and protocol. Raft keeps raftConnsPerNode and opens a few more for votes and
	// snapshots, calls take two; the rest are what a broken network has left behind. One too many ends the oldest, so that the
	// dead cannot keep the living out.
	maxConnsPerPeer = 12
	// lingerTime and lingerBytes bound how long and for how much a refused connection is kept, so that the peer reads the alert: closing
	// a connection with unread bytes resets it, and a reset can overtake what was sent before.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// port is the cluster port: one listener, one accept loop, and a queue for each protocol.
type port struct {
	listener net.Listener
	config   *tls.Config
	identity *identity
	admit    func(id NodeID, key string) error // of raft's connections
	log      *slog.Logger
	refusals *refusal.Log
	memory   *raftBudget
	queues   map[string]*connQueue
	slots    chan struct{} // one per connection that is being greeted
	known    *knownHosts

	leaving atomic.Bool // this node ends its connections: nobody is refused

	mu    sync.Mutex
	conns map[*trackedConn]struct{} // nil once closed
	count uint64                    // of all connections so far
}

func newPort(l net.Listener, i *identity, admit func(NodeID, string) error, log *slog.Logger) *port {
	p := &port{
		listener: l, config: i.server(), identity: i, admit: admit, log: log,
		refusals: refusal.New(log, "cluster"), memory: newRaftBudget(),
		queues: make(map[string]*connQueue), slots: make(chan struct{}, maxGreetings),
		known: newKnownHosts(), conns: make(map[*trackedConn]struct{}),
	}
	for _, proto := range []string{protoRaft, protoNode, protoJoin} {
		p.queues[proto] = newConnQueue(l.Addr())
	}
	return p
}

// serve accepts until ctx ends, and returns when every handshake has ended. No failed connection ends it.
func (p *port) serve(ctx context.Context) error {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	stop := context.AfterFunc(ctx, func() { p.listener.Close() })
	defer stop()
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := p.listener.Accept()
		if err != nil {
			<-p.slots
			if ctx.Err() != nil || p.closed() {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("cluster port: %w", err) // nobody here asked for that
			}
			p.log.Error("accepting on the cluster port failed", "err", err)
			if !pause(ctx, acceptPause) {
				return nil
			}
			continue
		}
		handshakes.Go(func() {
			defer func() { <-p.slots }()
			p.greet(ctx, conn)
		})
	}
}

// greet turns a raw connection into a proved one and hands it on, or logs once why not.
func (p *port) greet(ctx context.Context, raw net.Conn) {
	tracked, err := p.track(raw)
	if err != nil {
		p.refuse(ctx, raw, "", err)
		raw.Close()
		return
	}
	conn, err := p.prove(ctx, tracked)
	if err == nil {
		err = p.queues[conn.proto].put(ctx, p.followed(conn))
	}
	if err != nil {
		p.refuse(ctx, raw, tracked.offer(), cmp.Or(tracked.why(), err))
		linger(tracked)
	}
}

// refuse logs, unless the refusal is this node's own end.
func (p *port) refuse(ctx context.Context, raw net.Conn, purpose string, err error) {
	if ctx.Err() == nil && !p.leaving.Load() {
		p.refusals.Refused(raw.RemoteAddr(), cmp.Or(purpose, "unknown"), err)
	}
}

// linger lets the peer read why it was refused, and closes.
func linger(c *trackedConn) {
	defer c.Close()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
}

func (p *port) prove(ctx context.Context, tracked *trackedConn) (*peerConn, error) {
	within, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(tracked, p.config)
	if err := handshake(within, conn); err != nil {
		return nil, unfinished(within, err)
	}
	return p.recognise(tracked, conn)
}

// unfinished says in words what a stranger did that did not even fail.
func unfinished(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w within %s", errNoHandshake, handshakeTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the peer hung up", errNoHandshake)
	}
	return err
}

// followed is a connection whose bytes are looked at before raft or gRPC decodes them.
func (p *port) followed(c *peerConn) net.Conn {
	refused := func(err error) {
		if !p.leaving.Load() {
			p.refusals.Refused(c.RemoteAddr(), purpose(c.proto, c.id), err)
		}
	}
	if c.proto == protoRaft {
		return inboundRaft(c, p.memory, refused)
	}
	c.Conn = gate.NewConn(c.Conn, refused)
	return c
}

func purpose(proto string, id NodeID) string {
	if id == "" {
		return proto
	}
	return proto + " as " + string(id)
}

// recognise finds out who is at the other end and whether there is a place.
func (p *port) recognise(tracked *trackedConn, conn *tls.Conn) (*peerConn, error) {
	state := conn.ConnectionState()
	c := &peerConn{Conn: conn, proto: state.NegotiatedProtocol}
	tracked.offers(c.proto)
	if c.proto == protoJoin {
		return c, p.settle(tracked, c)
	}
	var err error
	if c.id, err = p.identity.peer(state); err != nil {
		return nil, err
	}
	c.expires, c.key = state.PeerCertificates[0].NotAfter, string(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	switch err := p.admit(c.id, c.key); {
	case err == nil:
		tracked.member.Store(true)
		p.known.note(tracked.host)
	case c.proto == protoRaft: // calls are admitted one by one, with an answer that says why not
		return nil, err
	}
	return c, p.settle(tracked, c)
}

var (
	errNoHandshake = errors.New("cluster: the handshake was not finished")
	errExpired     = errors.New("cluster: peer's certificate has expired")
)

// track remembers a connection until it closes, so that it can be closed from here.
func (p *port) track(raw net.Conn) (*trackedConn, error) {
	c := &trackedConn{Conn: raw, port: p, host: hostOf(raw.RemoteAddr())}
	evicted, err := p.enter(c)
	if evicted != nil {
		evicted.Close()
	}
	return c, err
}

// settle notes what a connection turned out to be. A member's oldest connection ends where there are too many.
func (p *port) settle(t *trackedConn, c *peerConn) error {
	oldest, err := p.place(t, c)
	if oldest != nil {
		p.log.Info("closing the oldest of too many connections of a member", "peer", string(c.id), "protocol", c.proto)
		oldest.Close()
	}
	return err
}

func (p *port) place(t *trackedConn, c *peerConn) (oldest *trackedConn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.matching(func(o *trackedConn) bool { return o.proto == c.proto && o.peer == c.id })
	switch {
	case t.evicted != nil: // just now
		return nil, t.evicted
	case c.proto == protoJoin && len(same) >= maxJoinConns:
		return nil, fmt.Errorf("%w: %d of joining nodes", errPortFull, maxJoinConns)
	case c.proto != protoJoin && len(same) >= maxConnsPerPeer:
		oldest = slices.MinFunc(same, byArrival)
	}
	t.proto, t.peer, t.key, t.expires = c.proto, c.id, c.key, c.expires
	return oldest, nil
}

// matching is for at most maxPortConns connections, so it may look at each. The lock is held.
func (p *port) matching(match func(*trackedConn) bool) (all []*trackedConn) {
	for c := range p.conns {
		if match(c) {
			all = append(all, c)
		}
	}
	return all
}

// expel closes raft's connections of peers that admit refuses (nil: nobody), or whose certificate has expired since.
func (p *port) expel(admit func(NodeID, string) error) {
	now := time.Now()
	for _, c := range p.raftConns() {
		var err error
		switch {
		case now.After(c.expires):
			err = errExpired
		case admit != nil:
			err = admit(c.peer, c.key)
		}
		if err != nil {
			p.log.Info("closing a raft connection", "peer", string(c.peer), "err", err)
			c.Close()
		}
	}
}

func (p *port) raftConns() []*trackedConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.matching(func(c *trackedConn) bool { return c.proto == protoRaft })
}

func (p *port) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns == nil
}

// close ends the listener and every connection, for good.
func (p *port) close() {
	p.leaving.Store(true)
	p.mu.Lock()
	all := p.conns
	p.conns = nil
	p.mu.Unlock()
	p.listener.Close()
	for c := range all {
		c.Close()
	}
	for _, q := range p.queues {
		q.Close()
	}
	p.refusals.Close()
}

// trackedConn forgets itself when it closes. It sits below TLS, so that closing it never waits for a peer.
type trackedConn struct {
	net.Conn
	port   *port
	host   string      // where it comes from
	member atomic.Bool // came from a member's host, as it has proved

	// Under port.mu:
	number  uint64 // in the order of arrival
	known   bool   // it has a place among those of members' hosts
	evicted error  // why it lost its place before it had proved anything
	offered string // the protocols that the peer asks for
	proto   string // "" until the handshake is over
	peer    NodeID
	key     string    // of the peer's certificate
	expires time.Time // the same
}

// offers notes what the peer wants, for the log.
func (t *trackedConn) offers(protos ...string) {
	t.port.mu.Lock()
	defer t.port.mu.Unlock()
	t.offered = strings.Join(protos, ",")
}

func (t *trackedConn) offer() string {
	t.port.mu.Lock()
	defer t.port.mu.Unlock()
	return t.offered
}

// why is the reason for which it lost its place, if it did.
func (t *trackedConn) why() error {
	t.port.mu.Lock()
	defer t.port.mu.Unlock()
	return t.evicted
}

func (t *trackedConn) Close() error {
	if t.member.Load() {
		t.port.known.note(t.host) // lately is since the end, not since the beginning
	}
	t.port.mu.Lock()
	delete(t.port.conns, t)
	t.port.mu.Unlock()
	return t.Conn.Close()
}
