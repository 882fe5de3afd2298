package cluster

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftStream is raft's transport below its messages: inbound connections from the port, outbound ones dialed here. It keeps
// the outbound ones to close them at shutdown, when raft would otherwise wait for their time-outs.
type raftStream struct {
	*connQueue
	advertise raft.ServerAddress
	dial      func(ctx context.Context, id NodeID, addr string) (net.Conn, error)

	mu     sync.Mutex
	ctx    context.Context // ends with the stream; raft's Dial has none of its own
	cancel context.CancelFunc
	out    map[*outboundConn]struct{}
}

func newRaftStream(ctx context.Context, q *connQueue, advertise string,
	dial func(context.Context, NodeID, string) (net.Conn, error),
) *raftStream {
	s := &raftStream{connQueue: q, advertise: raft.ServerAddress(advertise), dial: dial, out: make(map[*outboundConn]struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// streamAddr lets raft's transport know the advertised address as it was given, host name or not.
type streamAddr raft.ServerAddress

func (streamAddr) Network() string  { return "tcp" }
func (a streamAddr) String() string { return string(a) }

// Addr implements net.Listener.
func (s *raftStream) Addr() net.Addr { return streamAddr(s.advertise) }

// Dial implements raft.StreamLayer. The address is what namedAddr made, so that the node at the other end can be checked.
func (s *raftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	id, addr := splitNamedAddr(address)
	conn, err := s.dial(ctx, id, addr)
	if err != nil {
		return nil, &dialError{address, err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	c := &outboundConn{Conn: outboundRaft(conn), stream: s, id: id, key: keyIn(conn)}
	s.out[c] = struct{}{}
	return c, nil
}

// shut ends every connection that raft holds.
func (s *raftStream) shut() {
	s.cancel()
	s.Close()
	s.expel(func(NodeID, string) bool { return true })
}

// expel closes the connections to some peers: raft keeps those that it has, whoever has taken the peer's place since.
func (s *raftStream) expel(which func(id NodeID, key string) bool) {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.out))
	s.mu.Unlock()
	for _, c := range all {
		if which(c.id, c.key) {
			c.Close()
		}
	}
}

type outboundConn struct {
	net.Conn
	stream *raftStream
	id     NodeID
	key    string // that the peer has proved, DER SubjectPublicKeyInfo
}

// keyIn is what the other end of a connection has proved; empty if it is not TLS.
func keyIn(c net.Conn) string {
	if t, ok := c.(*tls.Conn); ok {
		if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
			return string(certs[0].RawSubjectPublicKeyInfo)
		}
	}
	return ""
}

func (c *outboundConn) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.out, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}

// namedAddr puts the node's id before its address: raft's transport passes only the address on to Dial, and a certificate must
// be that of the node which raft means.
func namedAddr(id NodeID, addr string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + addr)
}

func splitNamedAddr(a raft.ServerAddress) (NodeID, string) {
	id, addr, named := strings.Cut(string(a), "@")
	if !named {
		return "", string(a)
	}
	return NodeID(id), addr
}
