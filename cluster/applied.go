package cluster

import "context"

// WaitApplied returns when the FSM's visible state includes index.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	for {
		changed := n.applied.Wait()
		if n.cfg.Applied() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrStopped
		}
	}
}

// NotifyApplied wakes everybody who waits for an index, and renews the lease at once if a restriction was applied: the leader
// is waiting to hear of it. The node calls it after each batch; an FSM that publishes at other times calls it too.
func (n *Node) NotifyApplied() {
	n.applied.Broadcast()
	floor := n.cfg.Floor()
	if last := n.floor.Swap(floor); floor > last {
		poke(n.renewNow)
	}
}
