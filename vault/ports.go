package vault

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// Proposer is how a command reaches the log. Errors are this package's: ErrUnavailable when no leader can be reached,
// ErrNotLeader from what only a leader can do, ErrOutcomeUnknown when an entry may or may not have been committed.
type Proposer interface {
	// Propose commits an entry; on the leader only. The response is what the state machine returned.
	Propose(ctx context.Context, entry []byte) (response any, err error)
	// Forward hands a proposal to the leader's handler (Vault.HandlePeer), wherever the leader is.
	Forward(ctx context.Context, kind string, payload []byte) ([]byte, error)
	// Barrier commits an empty entry and waits until everything before it is applied here; on the leader only. It also tells the
	// followers at once what is committed.
	Barrier(ctx context.Context) error
	// ReadIndex is the index of the last command that the leader had committed when it was asked.
	ReadIndex(ctx context.Context) (uint64, error)
	// AwaitRestriction returns when no node can act against the restriction at index any more, with the nodes that had to be
	// waited for. On the leader only. If ctx ends first: *PendingError.
	AwaitRestriction(ctx context.Context, index uint64) ([]fsm.NodeID, error)
	// Latest returns nil if a process is the latest of its node that this leader has heard; ErrNotLeader if it has not heard it yet, or does not
	// lead; another error if it has heard a later one.
	Latest(node fsm.NodeID, boot string) error
	IsLeader() bool
	Leader() (fsm.NodeID, bool)
	Term() uint64
	Voters() []fsm.NodeID
}

// Peers is how this node talks to a named other one. The answer comes from Vault.HandlePeer there.
type Peers interface {
	Call(ctx context.Context, to fsm.NodeID, kind string, payload []byte) ([]byte, error)
	// Gossip is what gossip believes of a node ("alive", "suspect", "dead", "unknown"): a hint, never authority.
	Gossip(fsm.NodeID) string
}

// PendingError: a restriction is committed, and these nodes may still act against it.
type PendingError struct {
	Index   uint64
	Pending []fsm.NodeID
	Within  time.Duration `json:",omitempty"` // how long they may at the most; 0: not known
}

func (e *PendingError) Error() string {
	names := make([]string, len(e.Pending))
	for i, n := range e.Pending {
		names[i] = string(n)
	}
	bound := ""
	if e.Within > 0 {
		bound = fmt.Sprintf(" for at most %s", e.Within.Round(100*time.Millisecond))
	}
	return fmt.Sprintf("committed at %d, pending on %s%s; the same request id joins the wait", e.Index, strings.Join(names, ", "), bound)
}
