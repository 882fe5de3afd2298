package guard

import (
	"context"
	"errors"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// Times of what is done with uses in the background.
const (
	// SweepEvery is how often Sweep is to be called.
	SweepEvery = 5 * time.Second
	// recordEvery bounds how often the log hears that a version is in use: the time that is shown may be so much too early.
	recordEvery = 15 * time.Minute
	// recordShare: it hears sooner of uses that count for a rotation, when a node has so great a part of them untold.
	recordShare = 100
	// A block of a limit that was not touched for idleSweeps is given back: somebody else may need it, and in a new window it would
	// count again. Of the bound of AES-GCM there is enough for all.
	idleSweeps      = 2
	idleBoundSweeps = 120
	// forgetSweeps is when a version that is not used any more loses its place in memory.
	forgetSweeps = 240
	// maxItems goes into one entry.
	maxItems = 1000
)

// Sweep tells the cluster which versions were used, gives back what lies idle, and makes room in memory. Report proposes a command and
// returns when this node has applied it.
func (g *Guard) Sweep(ctx context.Context, now time.Time, report func(context.Context, fsm.Command) error) error {
	s := g.cfg.State()
	recorded := g.recordUses(ctx, g.ledger.due(s, now), report)
	return errors.Join(recorded, g.giveBack(ctx, g.ledger.idle(s), report))
}

// Return gives back every block, and tells all counts: this node seals or ends.
func (g *Guard) Return(ctx context.Context, report func(context.Context, fsm.Command) error) error {
	told := g.recordUses(ctx, g.ledger.untold(), report)
	return errors.Join(told, g.giveBack(ctx, g.ledger.take(func(a *account) bool { return a.block.Load() != nil }), report))
}

// recordUses sends what is due, and keeps what it could not for later.
func (g *Guard) recordUses(ctx context.Context, due []fsm.UsedVersion, report func(context.Context, fsm.Command) error) error {
	var failed error
	for len(due) > 0 {
		n := min(len(due), maxItems)
		if err := report(ctx, fsm.RecordUse{Node: g.ledger.node, Versions: due[:n]}); err != nil {
			failed = err
			g.ledger.mark(due[:n])
		}
		due = due[n:]
	}
	return failed
}

func (l *ledger) due(s *fsm.State, now time.Time) []fsm.UsedVersion {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []fsm.UsedVersion
	for id, t := range l.tallies {
		if !t.used.Load() {
			if t.idle++; t.idle > forgetSweeps {
				t.dead.Store(true)
				delete(l.tallies, id)
			}
			continue
		}
		t.idle = 0
		v, _ := s.UseRecord(id.key).Version(id.version)
		if now.Sub(time.UnixMilli(v.LastUsed)) >= recordEvery || t.count.Load() > rotateUses(s, id.key)/recordShare {
			due = append(due, t.tell(id))
		}
	}
	return due
}

// rotateUses is after how many uses a key's class has it rotated; 0: never.
func rotateUses(s *fsm.State, id fsm.KeyID) uint64 {
	if k := s.KeyRecordByID(id); k != nil {
		if c := s.ClassRecord(k.Class); c != nil {
			return c.RotateUses
		}
	}
	return 0
}

// tell takes what there is to report.
func (t *tally) tell(id accountID) fsm.UsedVersion {
	t.used.Store(false)
	return fsm.UsedVersion{Key: id.key, Version: id.version, Operations: t.count.Swap(0)}
}

// untold are the versions with uses that count and that nobody has been told of.
func (l *ledger) untold() []fsm.UsedVersion {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []fsm.UsedVersion
	for id, t := range l.tallies {
		if t.count.Load() > 0 {
			all = append(all, t.tell(id))
		}
	}
	return all
}

func (l *ledger) mark(versions []fsm.UsedVersion) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range versions {
		if t := l.tallies[accountID{v.Key, v.Version}]; t != nil {
			t.count.Add(v.Operations)
			t.used.Store(true)
		}
	}
}

// idle takes the accounts whose blocks are to be given back, and forgets those that have none.
func (l *ledger) idle(s *fsm.State) []*account {
	return l.take(func(a *account) bool {
		a.dry.Store(false)
		if a.refills.Swap(0) == 0 {
			a.want.Store(max(a.want.Load()/2, a.least()))
		}
		b := a.block.Load()
		var spent uint64
		if b != nil {
			spent = b.spentOperations.Load()
		}
		if spent != a.spentBefore {
			a.spentBefore, a.idle = spent, 0
		} else {
			a.idle++
		}
		switch {
		case b == nil:
			if a.idle > forgetSweeps {
				a.dead.Store(true)
				delete(l.accounts, a.id)
			}
			return false
		case b.closed.Load() || !l.usable(s, a, b):
			return true
		case a.id.version != 0:
			return a.idle >= idleBoundSweeps
		default:
			return a.idle >= idleSweeps || a.idle >= 1 && left(&b.reservedOperations, &b.spentOperations) == 0
		}
	})
}

// take holds the accounts that match and that nobody else is at.
func (l *ledger) take(match func(*account) bool) []*account {
	l.mu.Lock()
	defer l.mu.Unlock()
	var taken []*account
	for _, a := range l.accounts {
		select {
		case a.busy <- struct{}{}:
		default:
			continue
		}
		if match(a) {
			taken = append(taken, a)
		} else {
			<-a.busy
		}
	}
	return taken
}

// giveBack closes blocks, then says what was spent of them. What cannot be said now is said by the next sweep or reservation.
func (g *Guard) giveBack(ctx context.Context, taken []*account, report func(context.Context, fsm.Command) error) error {
	defer func() {
		for _, a := range taken {
			<-a.busy
		}
	}()
	var failed error
	for rest := taken; len(rest) > 0; {
		n := min(len(rest), maxItems)
		var blocks []fsm.UsedBlock
		for _, a := range rest[:n] {
			b := a.block.Load()
			b.closed.Store(true)
			blocks = append(blocks, fsm.UsedBlock{Key: a.id.key, Version: a.id.version, Opened: b.opened.Load(), Used: b.used()})
		}
		err := report(ctx, fsm.ReturnUse{Node: g.ledger.node, Boot: g.ledger.boot, Blocks: blocks})
		for _, a := range rest[:n] {
			if err == nil {
				a.block.Store(nil)
			}
		}
		failed, rest = errors.Join(failed, err), rest[n:]
	}
	return failed
}
