package cluster

import (
	"context"
	"net"
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
	out    map[net.Conn]struct{}
}

func newRaftStream(ctx context.Context, q *connQueue, advertise string,
	dial func(context.Context, NodeID, string) (net.Conn, error),
) *raftStream {
	s := &raftStream{connQueue: q, advertise: raft.ServerAddress(advertise), dial: dial, out: make(map[net.Conn]struct{})}
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
	c := &outboundConn{Conn: outboundRaft(conn), stream: s}
	s.out[c] = struct{}{}
	return c, nil
}

// shut ends every connection that raft holds.
func (s *raftStream) shut() {
	s.cancel()
	s.Close()
	s.mu.Lock()
	var all []net.Conn
	for c := range s.out {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

type outboundConn struct {
	net.Conn
	stream *raftStream
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
