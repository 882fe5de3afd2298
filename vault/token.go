package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrBehind: this node has not applied what the caller has already seen elsewhere; another one may have.
var ErrBehind = errors.New("this node is behind")

// askLeaderAfter is how long AwaitIndex waits before it asks the leader whether the index exists. A healthy follower hears of a
// commit within 50 ms without a question, so the leader is asked only where something is wrong.
const askLeaderAfter = 150 * time.Millisecond

// Applied is the index of this node's state.
func (v *Vault) Applied() uint64 { return v.state().Applied() }

// AwaitIndex returns when this node's state has applied index, a consistency token that the caller got from some node. It waits
// as long as ctx allows, with a margin for the answer; then the error is ErrBehind and names both indexes. An index that the
// leader has not committed came from no node of this cluster: ErrInvalid, without waiting any longer.
func (v *Vault) AwaitIndex(ctx context.Context, index uint64) error {
	if v.Applied() >= index {
		return nil
	}
	if !v.state().Initialised() {
		return ErrUninitialised
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	early, stop := context.WithTimeout(ctx, askLeaderAfter)
	err := v.waitApplied(early, index)
	stop()
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return v.behind(ctx, index, err)
	}
	committed, asked := v.cfg.Proposer.ReadIndex(ctx)
	if asked == nil && committed < index {
		return fmt.Errorf("%w: the request demands index %d, and the leader has committed %d: it is no index of this cluster's log", ErrInvalid, index, committed)
	}
	// It exists, or nobody knows: this node may still be the first to hear of it.
	if err := v.behind(ctx, index, v.waitApplied(ctx, index)); err != nil {
		return errors.Join(err, asked)
	}
	return nil
}

// behind says, of a wait that failed, how far this node is.
func (v *Vault) behind(ctx context.Context, index uint64, err error) error {
	if err == nil || ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: node %s has applied index %d, the request demands %d", ErrBehind, v.cfg.Node, v.Applied(), index)
}
