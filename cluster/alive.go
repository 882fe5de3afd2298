package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"
)

// Alive returns nil once raft's main loop has answered, whatever the node's role is and however few others it reaches. It proves
// that the node takes part, not that there is a quorum. ErrStopped before and after Run; ctx's error if the loop stays silent.
func (n *Node) Alive(ctx context.Context) error {
	r, err := n.running()
	if err != nil {
		return err
	}
	// One question at a time: those that a stuck loop never answers must not pile up.
	select {
	case n.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	// VerifyLeader is a question that every role answers and that changes nothing. What it says is of no use here: that the
	// loop said it is.
	_, err = n.futures.await(ctx, func() raft.Future {
		future := r.VerifyLeader()
		_ = future.Error()
		<-n.asking
		return future
	})
	switch {
	case errors.Is(err, ErrStopped): // nothing was asked
		<-n.asking
		return err
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrStopped
	}
	return ctx.Err()
}
