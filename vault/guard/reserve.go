package guard

import (
	"context"
	"fmt"
	"math"

	"github.com/conclave-vault/conclave/fsm"
)

// fund waits until account a has need in hand: it reserves for all who wait, unless one of them has just done so.
func (g *Guard) fund(ctx context.Context, a *account, need fsm.Amount) error {
	a.waitingOperations.Add(need.Operations)
	a.waitingBytes.Add(need.Bytes)
	defer a.waitingOperations.Add(-need.Operations)
	defer a.waitingBytes.Add(-need.Bytes)
	select {
	case a.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.busy }()
	s := g.cfg.State()
	if b := a.block.Load(); b != nil && g.ledger.usable(s, a, b) && b.has(need) {
		return nil
	}
	if a.block.Load() == nil && g.creditworthy(s, a) {
		a.block.Store(onCredit())
		return nil
	}
	return g.reserve(ctx, a, need)
}

// creditworthy: only AES-GCM's bound has a margin for what is not counted yet, and only while blocks are to be had.
func (g *Guard) creditworthy(s *fsm.State, a *account) bool {
	if a.id.version == 0 || g.cfg.Background == nil {
		return false
	}
	_, owns := s.UsableBlock(a.id.key, a.id.version, g.ledger.node, g.ledger.boot)
	return !owns && s.CreditsInvocations(a.id.key, a.id.version)
}

// reserve asks the cluster for more; its caller holds busy.
func (g *Guard) reserve(ctx context.Context, a *account, need fsm.Amount) error {
	if g.cfg.Reserve == nil {
		return fmt.Errorf("%w: this node cannot reserve of use budgets", ErrUnavailable)
	}
	a.seq++
	ask := g.ledger.ask(g.cfg.State(), a)
	ask.Need = need
	if need != (fsm.Amount{}) {
		ask.Waiting = fsm.Amount{Operations: a.waitingOperations.Load(), Bytes: a.waitingBytes.Load()}
	}
	want := a.want.Load()
	if a.refills.Load() >= 2 {
		want = min(2*want, mostWant)
		a.want.Store(want)
	}
	ask.Want = fsm.Amount{Operations: want, Bytes: max(want*bytesEach, 4*need.Bytes)}
	if err := g.cfg.Reserve(ctx, ask); err != nil {
		return err
	}
	g.ledger.adopt(g.cfg.State(), a)
	return nil
}

// ask says what this process has. A block of its own that it does not know, because the answer was lost, it gives back unspent; one
// that has ended it has stopped spending before it says how much it spent.
func (l *ledger) ask(s *fsm.State, a *account) fsm.ReserveUse {
	ask := fsm.ReserveUse{Node: l.node, Boot: l.boot, Key: a.id.key, Version: a.id.version, Seq: a.seq}
	got, has := s.HeldBlock(a.id.key, a.id.version, l.node, l.boot)
	b := a.block.Load()
	switch {
	case b == nil || b.opened.Load() != got.Opened && has:
		ask.Opened, ask.Final = got.Opened, has
	case b.opened.Load() == 0:
		ask.Used = b.used()
	case !has:
		b.closed.Store(true)
		a.block.Store(nil)
	default:
		if b.closed.Load() || !l.usable(s, a, b) {
			b.closed.Store(true)
			ask.Final = true
		}
		ask.Opened, ask.Used = got.Opened, b.used()
	}
	return ask
}

// adopt takes over the block that a state has for this process; its caller holds busy.
func (l *ledger) adopt(s *fsm.State, a *account) {
	got, usable := s.UsableBlock(a.id.key, a.id.version, l.node, l.boot)
	b := a.block.Load()
	if !usable {
		if b != nil && b.closed.Load() {
			a.block.Store(nil)
		}
		return
	}
	switch {
	case b != nil && b.opened.Load() == 0 && !b.closed.Load(): // what went on credit is part of it
		b.reservedOperations.Store(got.Reserved.Operations)
		b.opened.Store(got.Opened)
	case b == nil || b.opened.Load() != got.Opened:
		b = &block{}
		b.opened.Store(got.Opened)
		l.update(s, a, b, got)
		a.block.Store(b)
	}
	l.update(s, a, b, got)
	b.lowOperations.Store(quarter(left(&b.reservedOperations, &b.spentOperations), limitOf(s, a.id)))
	b.low.Store(quarter(left(&b.reserved, &b.spent), limitOf(s, a.id)))
}

// quarter is the mark below which a block is refilled; an exact limit has no reserve.
func quarter(left uint64, limit fsm.UseLimit) uint64 {
	if limit.Exact || left > math.MaxUint64/2 {
		return 0
	}
	return left / 4
}
