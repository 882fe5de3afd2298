package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// enqueueTimeout bounds how long an entry waits until raft takes it: it is longer than any pause of a healthy disk, and it ends
// the goroutine that waits for a stuck one.
const enqueueTimeout = 5 * time.Second

// Propose appends data to the log and returns its index and what the FSM answered. It works on the leader only, else the error
// is ErrNotLeader. ErrOutcomeUnknown says that the entry may still be committed; ErrNotLeader, ErrBusy, ErrTooLarge and
// ErrStopped say that it never will.
func (n *Node) Propose(ctx context.Context, data []byte) (index uint64, response any, err error) {
	if len(data) > MaxEntryBytes {
		return 0, nil, fmt.Errorf("%w: entry of %d bytes, at most %d", ErrTooLarge, len(data), MaxEntryBytes)
	}
	future, err := n.ask(ctx, func(r *raft.Raft) raft.Future { return r.Apply(data, enqueueTimeout) })
	if err != nil {
		return 0, nil, err
	}
	applied := future.(raft.ApplyFuture)
	return applied.Index(), applied.Response(), nil
}

// Barrier returns when everything committed before it is applied on this node, which must lead. It makes followers learn the
// commit index at once instead of with the next heartbeat.
func (n *Node) Barrier(ctx context.Context) error {
	_, err := n.ask(ctx, func(r *raft.Raft) raft.Future { return r.Barrier(enqueueTimeout) })
	return err
}

// ask makes a request of the leader's raft.
func (n *Node) ask(ctx context.Context, start func(*raft.Raft) raft.Future) (raft.Future, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // nothing was started, so this is no unknown outcome
	}
	r, err := n.running()
	if err != nil {
		return nil, err
	}
	if r.State() != raft.Leader {
		return nil, ErrNotLeader
	}
	future, err := n.futures.await(ctx, func() raft.Future { return start(r) })
	return future, outcome(err)
}
