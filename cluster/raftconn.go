package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxRaftPerPeer bounds the memory that the messages of one peer may take at a time: the largest one and some small ones.
	maxRaftPerPeer = maxRaftAppend + 16*maxRaftSmall
	// raftStall bounds the time from a message's first byte to its last, and a pause within a snapshot. Senders give up after
	// raftIOTimeout.
	raftStall = 2 * raftIOTimeout
)

var (
	errRaftMemory = errors.New("too many raft messages of one peer at a time")
	errTruncated  = errors.New("the message was truncated: the peer hung up")
	errStalled    = fmt.Errorf("the message was not complete within %s", raftStall)
	errUndecoded  = errors.New("raft could not decode the message, or answer it")
)

// raftBudget is the memory that is taken by messages of each peer.
type raftBudget struct {
	mu    sync.Mutex
	taken map[NodeID]int
}

func newRaftBudget() *raftBudget { return &raftBudget{taken: make(map[NodeID]int)} }

func (b *raftBudget) take(id NodeID, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.taken[id]+n > maxRaftPerPeer {
		return fmt.Errorf("%w: at most %d bytes", errRaftMemory, maxRaftPerPeer)
	}
	if b.taken[id] += n; b.taken[id] == 0 {
		delete(b.taken, id)
	}
	return nil
}

// raftConn is a raft connection whose incoming messages are followed. Exactly one line is written of one that is refused.
type raftConn struct {
	net.Conn
	wire raftWire
	// Of inbound connections:
	peer    NodeID
	budget  *raftBudget // nil: outbound
	refused func(error)
	timed   bool // a message has begun, and has a deadline

	mu     sync.Mutex
	held   int  // charged to the budget
	spent  int  // of that, messages that raft has read to the end
	ended  bool // an error has been seen, which explains why raft closes
	closed bool
}

// inboundRaft follows the requests of a peer.
func inboundRaft(c *peerConn, b *raftBudget, refused func(error)) *raftConn {
	r := &raftConn{Conn: c, peer: c.id, budget: b, refused: refused}
	r.wire = raftWire{requests: true, charge: r.charge}
	return r
}

// outboundRaft follows the answers of a peer, which are small.
func outboundRaft(c net.Conn) *raftConn { return &raftConn{Conn: c} }

// charge notes what a message takes, or that it is complete. Raft holds a message until it asks for the next.
func (r *raftConn) charge(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	if n < 0 {
		r.spent -= n
		return nil
	}
	if err := r.budget.take(r.peer, n); err != nil {
		return err
	}
	r.held += n
	return nil
}

// release gives back what raft is done with.
func (r *raftConn) release(everything bool) {
	if r.budget == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.spent
	if everything {
		n, r.closed = r.held, true
	}
	_ = r.budget.take(r.peer, -n)
	r.held, r.spent = r.held-n, 0
}

// Read implements net.Conn.
func (r *raftConn) Read(b []byte) (int, error) {
	r.release(false)
	if err := r.limitTime(); err != nil {
		return 0, r.end(err, nil)
	}
	n, err := r.Conn.Read(b)
	if bad := r.wire.feed(b[:n]); bad != nil {
		return 0, r.end(bad, bad) // for an answer raft says it, with the node's name
	}
	if err == nil {
		return n, nil
	}
	var timeout net.Error
	switch {
	case r.budget == nil, errors.Is(err, net.ErrClosed): // raft reports what it misses; this side hung up
		return n, r.end(err, nil)
	case errors.As(err, &timeout) && timeout.Timeout():
		return n, r.end(err, errStalled)
	case r.wire.within(), errors.Is(err, io.ErrUnexpectedEOF):
		return n, r.end(err, errTruncated)
	case errors.Is(err, io.EOF):
		return n, r.end(err, nil)
	default:
		return n, r.end(err, err)
	}
}

// end remembers that the connection is over and tells of a refusal, once.
func (r *raftConn) end(err, refusal error) error {
	r.mu.Lock()
	first := !r.ended
	r.ended = true
	r.mu.Unlock()
	if first && refusal != nil && r.refused != nil {
		r.refused(refusal)
	}
	return err
}

// limitTime bounds messages, not the silence between them.
func (r *raftConn) limitTime() error {
	switch within := r.wire.within(); {
	case r.budget == nil: // raft has deadlines of its own here
		return nil
	case within && (!r.timed || r.wire.state == wireSnapshot):
		r.timed = true
		return r.SetReadDeadline(time.Now().Add(raftStall))
	case !within && r.timed:
		r.timed = false
		return r.SetReadDeadline(time.Time{})
	}
	return nil
}

// Write implements net.Conn.
func (r *raftConn) Write(b []byte) (int, error) {
	n, err := r.Conn.Write(b)
	if err != nil {
		_ = r.end(err, nil)
	}
	return n, err
}

// Close implements net.Conn. Raft closes an inbound connection after it has read the end, or because it cannot decode what was
// read: of that it says itself only that it happened, not to whom.
func (r *raftConn) Close() error {
	if r.budget != nil {
		_ = r.end(nil, errUndecoded)
	}
	r.release(true)
	return r.Conn.Close()
}
