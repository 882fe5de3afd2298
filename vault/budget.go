package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// SetBudget limits the use of a key; the zero limit ends that. What takes something away is answered when no node can spend what the
// new limit does not allow; *PendingError if the deadline ends before.
func (v *Vault) SetBudget(ctx context.Context, c policy.Caller, id fsm.RequestID, name fsm.KeyName, limit fsm.UseLimit) (fsm.Key, uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return fsm.Key{}, 0, err
	}
	if err := limit.Validate(); err != nil {
		return fsm.Key{}, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r, err := v.write(ctx, c, id, requestHash("keys.budget", string(name), limit.String()), fsm.SetBudget{Name: name, Limit: limit})
	if err != nil {
		return fsm.Key{}, 0, err
	}
	if r.Barrier != 0 { // the completion is a later entry: show it as done here too
		if _, err := v.cfg.Replica.WaitFor(ctx, func(s *fsm.State) bool { return s.BarrierDone(r.Barrier) }); err != nil {
			return fsm.Key{}, 0, &PendingError{Index: r.Barrier, Pending: []fsm.NodeID{v.cfg.Node}}
		}
	}
	return v.written(name, r)
}

// Uses is what this node's state knows of the uses of a key.
func (v *Vault) Uses(k fsm.Key) fsm.Uses { return v.state().Uses(k) }

// maxReserve bounds how long an operation waits for more of a use budget; another node may have some in hand.
const maxReserve = maxCatchUp

// reserveUse is the guard's way to more of a budget.
func (v *Vault) reserveUse(ctx context.Context, r fsm.ReserveUse) error {
	ctx, cancel := context.WithTimeout(ctx, maxReserve)
	defer cancel()
	err := v.reportUse(ctx, r)
	if refused, ok := errors.AsType[*Refused](err); err == nil || ok && refused.Code == fsm.CodeBudget {
		return err
	}
	return fmt.Errorf("%w: the key has a use budget, and no more of it could be reserved: %w", guard.ErrUnavailable, err)
}

// reportUse proposes what this node has to say of uses. These commands are idempotent by themselves, so they go without a request id:
// the table of those is for clients, and exact budgets would fill it.
func (v *Vault) reportUse(ctx context.Context, c fsm.Command) error {
	_, err := v.submit(ctx, proposal{}, fsm.Entry{Command: c, Actor: v.actor()})
	return err
}

// returnTime bounds how long a node that ends waits to give back what it has in reserve. What it cannot give back counts as spent.
const returnTime = 2 * time.Second

// watchUses sweeps, and gives everything back in the end: clients are gone then, and the consensus is still there.
func (v *Vault) watchUses(ctx context.Context) error {
	tick := time.NewTicker(guard.SweepEvery)
	defer tick.Stop()
	dead := map[fsm.NodeID]bool{}
	for {
		select {
		case <-tick.C:
			if err := v.sweepUses(ctx); err != nil && ctx.Err() == nil {
				v.log.Debug("what was used is not recorded yet", "err", err)
			}
			v.lapseDead(ctx, dead)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnTime)
			defer cancel()
			v.returnUses(last)
			return ctx.Err()
		}
	}
}

func (v *Vault) sweepUses(ctx context.Context) error {
	if !v.state().Initialised() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, guard.SweepEvery)
	defer cancel()
	return v.guard.Sweep(ctx, v.cfg.Now(), v.reportUse)
}

func (v *Vault) returnUses(ctx context.Context) {
	if err := v.guard.Return(ctx, v.reportUse); err != nil {
		v.log.Info("what this node has in reserve of use budgets is not given back and counts as spent", "err", err)
	}
}

// returnDrained gives everything back once this node has applied an order to drain.
func (v *Vault) returnDrained(s *fsm.State) {
	if at := s.DrainedAt(v.cfg.Node); at > v.drained && v.background(v.returnUses) {
		v.drained = at
	}
}

// lapseDead ends, as leader, what nodes have in reserve that gossip believes to be dead, so that it does not count in the budgets'
// next windows. Gossip only says when to try: it is a restriction, and a node that lives loses its reserve and nothing else.
func (v *Vault) lapseDead(ctx context.Context, done map[fsm.NodeID]bool) {
	if !v.cfg.Proposer.IsLeader() {
		clear(done)
		return
	}
	s := v.state()
	for _, n := range s.Nodes() {
		if n.ID == v.cfg.Node || v.cfg.Peers.Gossip(n.ID) != "dead" {
			delete(done, n.ID)
			continue
		}
		if done[n.ID] || !s.HoldsReserve(n.ID) {
			continue
		}
		done[n.ID] = v.background(func(ctx context.Context) {
			if _, err := v.commit(ctx, fsm.Entry{Command: fsm.LapseUse{Node: n.ID}, Actor: v.actor()}); err != nil && ctx.Err() == nil {
				v.log.Info("the reserve of a dead node is not ended yet", "node", n.ID, "err", err)
			}
		})
	}
}

// beginUses makes the leader say, as soon as there can be keys, that uses are recorded from now on.
func (v *Vault) beginUses(s *fsm.State) {
	if s.Cluster().MasterGeneration == 0 || !s.UsesSince().IsZero() || !v.cfg.Proposer.IsLeader() {
		return
	}
	v.once(&v.recording, func(ctx context.Context) {
		if err := v.reportUse(ctx, fsm.RecordUse{Node: v.cfg.Node}); err != nil && ctx.Err() == nil {
			v.log.Info("that uses are recorded is not in the log yet", "err", err)
		}
	})
}
