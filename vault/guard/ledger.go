package guard

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/conclave-vault/conclave/fsm"
)

// ledger is what this process knows of the use of keys: blocks of use budgets, and which versions were used lately.
type ledger struct {
	node fsm.NodeID
	boot string

	mu       sync.Mutex
	accounts map[accountID]*account
	tallies  map[accountID]*tally
}

// tally says that a version was used since somebody looked.
type tally struct {
	used  atomic.Bool
	count atomic.Uint64 // uses that no report has told yet, where the class rotates by them
	dead  atomic.Bool
	idle  int // sweeps
}

func newLedger(node fsm.NodeID, boot string) *ledger {
	return &ledger{node: node, boot: boot, accounts: map[accountID]*account{}, tallies: map[accountID]*tally{}}
}

// accounts are what an operation is charged to; nil where nothing limits it.
type accounts struct {
	limit, bound *account
	tally        *tally
	counted      bool // in the tally
}

// forgotten reports that one of them has been dropped, so that they must be looked up again.
func (a accounts) forgotten() bool {
	return a.tally != nil && a.tally.dead.Load() || a.limit != nil && a.limit.dead.Load() || a.bound != nil && a.bound.dead.Load()
}

// of finds or opens the accounts of an operation under a state.
func (l *ledger) of(s *fsm.State, op fsm.Operation, sel Selected) accounts {
	k := s.KeyRecordByID(sel.Key.ID)
	if k == nil {
		return accounts{}
	}
	var a accounts
	l.mu.Lock()
	defer l.mu.Unlock()
	id := accountID{k.ID, sel.Version.Version}
	if a.tally = l.tallies[id]; a.tally == nil {
		a.tally = &tally{}
		l.tallies[id] = a.tally
	}
	a.counted = op.CountsAsUse() && s.CountsForRotation(k)
	if op.CountsAsUse() && !s.UseLimit(k).None() {
		a.limit = l.open(accountID{key: k.ID})
	}
	if op.CountsAsInvocation() && fsm.BoundsInvocations(k.Algorithm) {
		a.bound = l.open(id)
	}
	return a
}

func (l *ledger) open(id accountID) *account {
	a := l.accounts[id]
	if a == nil {
		a = newAccount(id)
		l.accounts[id] = a
	}
	return a
}

// charge is what an operation has spent, of which blocks.
type charge struct {
	limit, bound *block
	amount       fsm.Amount
}

// oneOperation is what the bound of AES-GCM counts.
var oneOperation = fsm.Amount{Operations: 1}

// refund gives it back: only for an operation that did not reach the HSM.
func (c charge) refund() {
	if c.limit != nil {
		c.limit.give(c.amount)
	}
	if c.bound != nil {
		c.bound.give(oneOperation)
	}
}

// charge spends from memory. If that is not possible it returns the account that has too little in hand.
func (g *Guard) charge(v verdict, bytes uint64) (charge, *account) {
	c := charge{amount: fsm.Amount{Operations: 1, Bytes: bytes}}
	if a := v.accounts.limit; a != nil {
		if c.limit = g.spend(v.state, a, c.amount); c.limit == nil {
			return c, a
		}
	}
	if a := v.accounts.bound; a != nil {
		if c.bound = g.spend(v.state, a, oneOperation); c.bound == nil {
			c.refund()
			return c, a
		}
	}
	if t := v.accounts.tally; t != nil {
		if !t.used.Load() {
			t.used.Store(true)
		}
		if v.accounts.counted {
			t.count.Add(1)
		}
	}
	return c, nil
}

func (g *Guard) spend(s *fsm.State, a *account, need fsm.Amount) *block {
	b := a.block.Load()
	if b == nil || !g.ledger.usable(s, a, b) || !b.take(need) {
		return nil
	}
	if b.runsLow() && !a.dry.Load() {
		g.refill(a)
	}
	return b
}

// covers reports whether what an operation was charged before the HSM call is what it has to be charged under the state of the
// second check. A limit that was lowered in between has made the block void: what was spent of it is beyond the new limit, for all
// that anybody knows, so the result is not released and the operation is charged and done again.
func (g *Guard) covers(c charge, second verdict) bool {
	a := second.accounts.limit
	return a == nil || c.limit != nil && g.ledger.usable(second.state, a, c.limit)
}

// refill gets more in the background, so that no operation waits for it.
func (g *Guard) refill(a *account) {
	if a.refilling.Load() || g.cfg.Background == nil || !a.refilling.CompareAndSwap(false, true) {
		return
	}
	queued := g.cfg.Background(func(ctx context.Context) {
		defer a.refilling.Store(false)
		select {
		case a.busy <- struct{}{}:
		default:
			return // somebody waits for more already
		}
		defer func() { <-a.busy }()
		a.refills.Add(1)
		if err := g.reserve(ctx, a, fsm.Amount{}); err != nil {
			a.dry.Store(true)
		}
	})
	if !queued {
		a.refilling.Store(false)
	}
}
