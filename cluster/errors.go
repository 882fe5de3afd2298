package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Of configuration and start.
var (
	// ErrConfig reports a Config that cannot work.
	ErrConfig = errors.New("cluster: bad configuration")
	// ErrRunning reports a second Run of one Node.
	ErrRunning = errors.New("cluster: node was already run")
	// ErrStopped reports that the node is not running: not yet, or not any more.
	ErrStopped = errors.New("cluster: node is not running")
)

// Of leadership.
var (
	// ErrNotLeader: this node does not lead; nothing was done. A Handler that returns it promises that nothing was done.
	ErrNotLeader = errors.New("cluster: not the leader")
	// ErrNoLeader: no leader could be asked in time.
	ErrNoLeader = errors.New("cluster: no leader")
	// ErrOutcomeUnknown: the request may or may not have been carried out, now or later. Ask again with the same request id.
	ErrOutcomeUnknown = errors.New("cluster: outcome unknown")
	// ErrBusy: raft did not take the entry in time; nothing was done.
	ErrBusy = errors.New("cluster: too many entries are waiting")
)

// Of calls between nodes.
var (
	// ErrUnreachable: the node did not answer. If it is ErrOutcomeUnknown too, the request had been sent.
	ErrUnreachable = errors.New("cluster: node is unreachable")
	// ErrUnknownNode: nothing says where the node is.
	ErrUnknownNode = errors.New("cluster: unknown node")
	// ErrTooLarge: data exceeds MaxMessageBytes or MaxEntryBytes.
	ErrTooLarge = errors.New("cluster: message is too large")
)

// Of identity.
var (
	// ErrPeer reports a certificate that is not that of a node of this cluster, or not of the node that was expected.
	ErrPeer = errors.New("cluster: peer is not a node of this cluster")
	// ErrNotMember reports a peer whose certificate is good but which is not, or no longer, a member.
	ErrNotMember = errors.New("cluster: peer is not a member")
)

// RemoteError is what a handler on another node (or on this one, called by name) returned.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return e.Message }

// PendingError reports a restriction that is committed but that some nodes may still act against.
type PendingError struct {
	Index   uint64
	Pending []NodeID
	Within  time.Duration // how long it may take at the most, unless more leases are granted; 0: not known
	Cause   error         // why the wait ended
}

func (e *PendingError) Error() string {
	names := make([]string, len(e.Pending))
	for i, n := range e.Pending {
		names[i] = string(n)
	}
	return fmt.Sprintf("cluster: committed at %d, pending on %s: %v", e.Index, strings.Join(names, ", "), e.Cause)
}

func (e *PendingError) Unwrap() error { return e.Cause }
