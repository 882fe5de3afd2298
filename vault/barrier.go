package vault

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// Fence makes this node release nothing of a subject before its state includes index. Only keys can be kept from alone.
func (v *Vault) Fence(subject string, index uint64) error {
	name, isKey := fsm.SubjectKey(subject)
	if !isKey {
		return fmt.Errorf("%w: no fence of %.60q", ErrInvalid, subject)
	}
	return v.guard.Fence(name, index)
}

// awaitBarrier returns when the restriction at index is in force on every node and the log says so. If the context ends first
// it returns *PendingError with the nodes that are missing; the barrier is completed all the same.
func (v *Vault) awaitBarrier(ctx context.Context, index uint64) error {
	if v.state().BarrierDone(index) {
		return nil
	}
	if ctx.Err() != nil { // it is committed, and that is what the caller must learn
		return &PendingError{Index: index, Pending: v.everybody()}
	}
	v.completeBarrier(index)
	if _, err := v.cfg.Proposer.AwaitRestriction(ctx, index); err != nil {
		return err
	}
	if _, err := v.cfg.Replica.WaitFor(ctx, func(s *fsm.State) bool { return s.BarrierDone(index) }); err != nil {
		return &PendingError{Index: index, Pending: []fsm.NodeID{v.cfg.Node}}
	}
	return nil
}

// everybody is all members: who is missing is not known yet.
func (v *Vault) everybody() []fsm.NodeID {
	var all []fsm.NodeID
	for _, n := range v.state().Nodes() {
		all = append(all, n.ID)
	}
	return all
}

// completeBarriers takes up, as leader, what an earlier leader or a caller who went away left pending.
func (v *Vault) completeBarriers(s *fsm.State) {
	pending := s.PendingBarriers()
	if len(pending) == 0 || !v.cfg.Proposer.IsLeader() {
		return
	}
	for _, p := range pending {
		v.completeBarrier(p.Index)
	}
}

// completeBarrier starts the one goroutine that waits for a restriction and then records that it is in force.
func (v *Vault) completeBarrier(index uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.barriers[index] {
		return
	}
	v.barriers[index] = v.background(func(ctx context.Context) {
		defer func() {
			v.mu.Lock()
			delete(v.barriers, index)
			v.mu.Unlock()
		}()
		v.recordBarrier(ctx, index)
	})
	if !v.barriers[index] {
		delete(v.barriers, index)
	}
}

// kickAfter is when followers are told of a commit that fences were asked for: a round trip within a datacenter takes less.
const kickAfter = 5 * time.Millisecond

func (v *Vault) recordBarrier(ctx context.Context, index uint64) {
	inForce := make(chan struct{})
	var kick sync.WaitGroup
	defer kick.Wait()
	kick.Go(func() { v.kick(ctx, index, inForce) })
	waited, err := v.cfg.Proposer.AwaitRestriction(ctx, index)
	close(inForce)
	if err == nil {
		_, err = v.commit(ctx, fsm.Entry{Command: fsm.CompleteBarrier{Restriction: index, Waited: waited}, Actor: v.actor()})
	}
	if err != nil && ctx.Err() == nil {
		v.log.Info("a restriction is not yet recorded as in force; whoever leads will", "index", index, "err", err)
	}
}

// kick tells followers of the commit at index with a barrier, at once: else they hear of it with the next heartbeat, up to 100 ms later. But
// where all put up a fence in time nobody waits for that: then the record that the restriction is in force tells them, and does not wait
// itself until the barrier is on the disk. A barrier that fails costs the heartbeat.
func (v *Vault) kick(ctx context.Context, index uint64, inForce <-chan struct{}) {
	if v.state().RestrictedKey(index) != "" {
		timer := time.NewTimer(kickAfter)
		defer timer.Stop()
		select {
		case <-inForce:
			return
		case <-timer.C:
		}
	}
	_ = v.cfg.Proposer.Barrier(ctx)
}
