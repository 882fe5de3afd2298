package guard

import (
	"math"
	"sync/atomic"

	"github.com/conclave-vault/conclave/fsm"
)

// accountID names a limit: of a key (version 0), or the bound of a version.
type accountID struct {
	key     fsm.KeyID
	version fsm.Version
}

// account is what this process has in hand of one limit. Spending takes no lock; whoever changes the block holds busy.
type account struct {
	id    accountID
	block atomic.Pointer[block]
	busy  chan struct{} // holds one who reserves or returns
	seq   uint64        // of the last reservation; with busy

	waitingOperations, waitingBytes atomic.Uint64 // what operations wait for

	want      atomic.Uint64 // operations that the next block should have
	refills   atomic.Uint64 // since the last sweep
	refilling atomic.Bool
	dry       atomic.Bool // a refill got nothing; asked again after the next sweep
	dead      atomic.Bool // forgotten: another one may have its place

	spentBefore, idle uint64 // of the sweeps: what was spent at the last one, and for how many it has been so
}

// Sizes of blocks, in operations. The state machine makes them smaller where the limit is near.
const (
	leastWant = 1 << 8
	mostWant  = 1 << 20
	// leastBound is more than can have been spent on credit.
	leastBound = 4 * fsm.GCMCredit
	// bytesEach is how many bytes go with an operation until it is known better.
	bytesEach = 1 << 12
)

func newAccount(id accountID) *account {
	a := &account{id: id, busy: make(chan struct{}, 1)}
	a.want.Store(a.least())
	return a
}

func (a *account) least() uint64 {
	if a.id.version != 0 {
		return leastBound
	}
	return leastWant
}

// block is a right to use a key, as the replicated state has it, with what this process has spent of it. The counters only rise.
type block struct {
	opened                       atomic.Uint64 // its name; 0: credit, which no state knows
	reservedOperations, reserved atomic.Uint64 // operations and bytes; without a limit on either: the largest number
	spentOperations, spent       atomic.Uint64
	lowOperations, low           atomic.Uint64 // with less left than this it is refilled
	closed                       atomic.Bool   // nothing is spent of it any more
	seen                         atomic.Uint64 // index of the latest state under which it is known to be usable
}

// onCredit is the block before the first one. The state must have room for it, or the bound would not hold.
func onCredit() *block {
	b := &block{}
	b.reservedOperations.Store(fsm.GCMCredit)
	b.reserved.Store(math.MaxUint64)
	b.lowOperations.Store(math.MaxUint64)
	return b
}

// take spends. The order makes a closed block's counters final: who closes it and then reads them sees every operation that was let
// through, because this looks at closed after it has counted.
func (b *block) take(need fsm.Amount) bool {
	if b.spentOperations.Add(need.Operations) > b.reservedOperations.Load() {
		b.spentOperations.Add(-need.Operations)
		return false
	}
	if need.Bytes != 0 && b.spent.Add(need.Bytes) > b.reserved.Load() || b.closed.Load() {
		b.give(need)
		return false
	}
	return true
}

// give takes back what take spent.
func (b *block) give(need fsm.Amount) {
	b.spent.Add(-need.Bytes)
	b.spentOperations.Add(-need.Operations)
}

// used is what was spent. An operation that is just being refused may be in it: never too little. It is cut to what the state takes.
func (b *block) used() fsm.Amount {
	return fsm.Amount{
		Operations: min(b.spentOperations.Load(), b.reservedOperations.Load(), fsm.MaxUses),
		Bytes:      min(b.spent.Load(), b.reserved.Load(), fsm.MaxUses),
	}
}

func left(reserved, spent *atomic.Uint64) uint64 {
	r := reserved.Load()
	return r - min(r, spent.Load())
}

func (b *block) has(need fsm.Amount) bool {
	return !b.closed.Load() && left(&b.reservedOperations, &b.spentOperations) >= need.Operations && left(&b.reserved, &b.spent) >= need.Bytes
}

// runsLow reports that it is time to get more.
func (b *block) runsLow() bool {
	return left(&b.reservedOperations, &b.spentOperations) < b.lowOperations.Load() || left(&b.reserved, &b.spent) < b.low.Load()
}

// usable reports whether b may be spent under a state, which knows of every restriction that was in force when it was loaded.
func (l *ledger) usable(s *fsm.State, a *account, b *block) bool {
	index := s.Applied()
	if b.seen.Load() == index {
		return true
	}
	opened := b.opened.Load()
	if opened == 0 {
		return true
	}
	got, usable := s.UsableBlock(a.id.key, a.id.version, l.node, l.boot)
	if !usable || got.Opened != opened {
		return false
	}
	l.update(s, a, b, got)
	b.seen.Store(index)
	return true
}

// update takes over what a state has reserved for b. It only ever rises, so states in another order do no harm.
func (l *ledger) update(s *fsm.State, a *account, b *block, got fsm.UseBlock) {
	limit := limitOf(s, a.id)
	raise(&b.reservedOperations, got.Reserved.Operations, limit.Operations)
	raise(&b.reserved, got.Reserved.Bytes, limit.Bytes)
}

func raise(to *atomic.Uint64, reserved, limit uint64) {
	if limit == 0 {
		reserved = math.MaxUint64
	}
	for {
		old := to.Load()
		if old >= reserved || to.CompareAndSwap(old, reserved) {
			return
		}
	}
}

// limitOf is what the account is of; zero if there is no such limit any more.
func limitOf(s *fsm.State, id accountID) fsm.UseLimit {
	if id.version != 0 {
		return fsm.UseLimit{Amount: fsm.Amount{Operations: 1}} // of operations, however many
	}
	if k := s.KeyRecordByID(id.key); k != nil {
		return s.UseLimit(k)
	}
	return fsm.UseLimit{}
}
