package guard

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
)

// check is the check before the HSM call, and, with the clock that does not sleep, after it. The order is the proof: leases, then fences,
// then the state and what follows from it, then the clock. A class with LeaseStrict rests on no lease; its result is confirmed at the end.
func (g *Guard) check(req Request, valid func(lease.Lease) bool) (verdict, error) {
	serving, available := g.cfg.Lease(), g.cfg.Available() // first
	fenced := g.fences.block(req.Name)                     // before the state: it goes down when the state has come
	s := g.cfg.State()
	v, mode, err := g.decided(s, req)
	if err == nil {
		err = g.cfg.Unsealed(s)
	}
	if fenced && err == nil {
		err = ErrFenced
	}
	switch mode {
	case fsm.LeaseStrict:
		return v, err
	case fsm.LeaseAvailable:
		g.cfg.WantAvailable()
		if valid(available) {
			return v, err
		}
	}
	if !valid(serving) { // last: reads the clock
		return v, ErrNoLease
	}
	return v, err
}

// checkAgain is the deciding check, after the HSM call. What the class was at the first one does not count.
func (g *Guard) checkAgain(ctx context.Context, req Request, first verdict) (verdict, error) {
	if first.sel.mode == fsm.LeaseStrict {
		return g.confirm(ctx, req)
	}
	v, err := g.check(req, lease.Lease.ValidSurely)
	if err == nil && v.sel.mode == fsm.LeaseStrict {
		return g.confirm(ctx, req)
	}
	return v, err
}

// confirm decides under LeaseStrict: from a state with all that was committed when it is called. The leader names that index only after
// a majority has answered a question that it asked later, so it was the leader then; no clock has a part in it.
func (g *Guard) confirm(ctx context.Context, req Request) (verdict, error) {
	if err := g.cfg.CatchUp(ctx); err != nil {
		return verdict{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s := g.cfg.State()
	v, _, err := g.decided(s, req)
	if err == nil {
		err = g.cfg.Unsealed(s)
	}
	return v, err
}

// leaseMode of a class in a state; the strictest for one that is not known.
func leaseMode(s *fsm.State, class string) fsm.LeaseMode {
	if c := s.ClassRecord(class); c != nil {
		return c.Lease
	}
	return fsm.LeaseStrict
}
