package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// unsealed says whether this process may use its master under a state. A seal order is state, so the guard's second check sees
// it at once; that the HSM closes its master session a moment later is housekeeping.
func (v *Vault) unsealed(s *fsm.State) error {
	at := v.unsealedAt.Load()
	if at == 0 && v.loss.Load() != nil {
		return fmt.Errorf("%w: the HSM of node %s lost its master; when it is back custodians unseal with: conclave ceremony unseal", hsm.ErrSealed, v.cfg.Node)
	}
	if at != 0 && v.replaced(s, at) {
		return fmt.Errorf("%w: this process does not serve as node %s any more: another was unsealed, on a copy of its data, or the node was removed; end it", hsm.ErrSealed, v.cfg.Node)
	}
	if at == 0 || s.Cluster().SealedAt > at {
		return fmt.Errorf("%w: node %s; custodians unseal it with: conclave ceremony unseal", hsm.ErrSealed, v.cfg.Node)
	}
	return nil
}

// replaced reports that a state, which is not older than this process's unseal at an index, has another process serve as the node, or none.
func (v *Vault) replaced(s *fsm.State, at uint64) bool {
	boot, _ := s.Incumbent(v.cfg.Node)
	return s.Applied() >= at && boot != v.cfg.Boot
}

// Seal orders the whole cluster to seal. It is a restriction: when it is acknowledged no node releases another result.
func (v *Vault) Seal(ctx context.Context, c policy.Caller, id fsm.RequestID, reason string) (uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return 0, err
	}
	r, err := v.write(ctx, c, id, requestHash("cluster.seal", reason), fsm.SealCluster{Reason: reason})
	return r.Index, err
}

// drainTime bounds how long operations under way may delay the closing of the master session. Their results are refused by the
// second check anyway.
const drainTime = 10 * time.Second

// obeySeal closes the master session after a seal order that came later than this process's unseal, and when it was
// replaced.
func (v *Vault) obeySeal(s *fsm.State) {
	at := v.unsealedAt.Load()
	ordered, replaced := s.Cluster().SealedAt > at, v.replaced(s, at)
	if at == 0 || !ordered && !replaced {
		return
	}
	v.once(&v.sealing, func(ctx context.Context) {
		if v.unsealing.take(ctx) != nil {
			return // the process ends; the next one destroys a kept master that is older than the order
		}
		defer v.unsealing.give()
		if !v.unsealedAt.CompareAndSwap(at, 0) {
			return // somebody else did, and perhaps it is unsealed again
		}
		v.gathering.reset("")
		v.loss.Store(nil)
		v.guard.Purge()
		v.background(v.returnUses)
		ctx, cancel := context.WithTimeout(ctx, drainTime)
		defer cancel()
		if err := v.cfg.Token.Seal(ctx, ordered); err != nil { // a kept master may be the other process's, too
			v.log.Error("the HSM did not seal; the guard refuses every use", "err", err)
			return
		}
		if replaced {
			v.log.Error("sealed: this process does not serve as the node any more: another was unsealed, on a copy of its data, or the node was removed; end it", "index", s.Applied())
			return
		}
		v.log.Info("sealed by order", "index", s.Cluster().SealedAt)
	})
}

// forgetShares wipes shares that wait for an unseal which is over: expired, aborted, or done without them.
func (v *Vault) forgetShares() {
	if !v.unsealing.tryTake() { // somebody is at it; the next look comes soon
		return
	}
	defer v.unsealing.give()
	if len(v.gathering.shares) == 0 {
		return
	}
	// The present state, not one from before the lock: a share may have been taken for a ceremony that opened since.
	if c, open := v.state().OpenCeremony(fsm.PurposeUnseal); !open || c.ID != v.gathering.ceremony {
		v.gathering.reset("")
	}
}

// restore opens a master that the token kept (seal: persistent), once this node knows that no seal order forbids it.
func (v *Vault) restore(ctx context.Context) error {
	if !v.cfg.PersistMaster {
		return nil
	}
	told := ""
	for {
		err := v.restoreOnce(ctx)
		switch {
		case err == nil, errors.Is(err, hsm.ErrNoMaster):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if text := err.Error(); text != told { // a device may be away for days
			v.log.Info("the kept master is not opened yet", "err", err)
			told = text
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v *Vault) restoreOnce(ctx context.Context) error {
	s, err := v.current(ctx)
	if err != nil {
		return err
	}
	if err := v.unsealing.take(ctx); err != nil {
		return err
	}
	defer v.unsealing.give()
	if v.unsealed(s) == nil {
		return nil // custodians were faster
	}
	kept, err := v.cfg.Token.RestoreMaster(ctx)
	if err != nil {
		return err
	}
	m, found := s.Master()
	if !found || kept.ClusterID != s.Cluster().ID || kept.Generation != m.Generation || s.Cluster().SealedAt > kept.UnsealedAt {
		v.log.Info("the kept master is of the past; it is destroyed and custodians must unseal", "sealed_at", s.Cluster().SealedAt)
		return v.cfg.Token.Seal(ctx, true)
	}
	return v.reportUnsealed(ctx, s, kept.Generation, "")
}
