package lease_test

import (
	"slices"
	"testing"
	"time"
)

// TestAFrozenNodeHoldsNoRestrictionUp: its raft goes on and so do its renewals, only its state machine stands still.
func TestAFrozenNodeHoldsNoRestrictionUp(t *testing.T) {
	all := []string{"n1", "n2", "n3"}
	b := newBoard(t, all...)
	b.settle(5, all...)
	b.floor = 6
	ordered := b.clock.now
	for !b.table.Acked(6, all).Done {
		if b.clock.now += b.cfg.Period(); b.clock.now-ordered > 2*b.cfg.W(b.cfg.D) {
			t.Fatal("never acknowledged")
		}
		b.renew("n1", 6)
		b.renew("n2", 6)
		b.renew("n3", 5)
	}
	if took, most := b.clock.now-ordered, b.cfg.W(b.cfg.D)+3*b.cfg.Period(); took > most {
		t.Errorf("acknowledged after %s, want at most %s", took, most)
	}
	if a := b.table.Acked(6, all); !slices.Equal(a.Expired, []string{"n3"}) {
		t.Errorf("waited for %v", a.Expired)
	}
	if b.holders["n3"].Lease().Valid() {
		t.Error("the frozen node holds a lease")
	}
	b.renew("n3", 6)
	if g := b.renew("n3", 6); g.Zero() || !b.holders["n3"].Lease().Valid() {
		t.Error("it has caught up and gets no lease")
	}
}

// TestRestrictionsWithoutPauseStarveNobody: a node that is always a little behind a floor that moves keeps its lease.
func TestRestrictionsWithoutPauseStarveNobody(t *testing.T) {
	all := []string{"n1", "n2", "n3"}
	b := newBoard(t, all...)
	b.settle(5, all...)
	b.floor = 6
	for range 1000 {
		b.clock.now += 5 * time.Millisecond
		b.floor++
		for _, n := range all {
			if g := b.renew(n, b.floor-1); g.Zero() {
				t.Fatalf("%s got nothing at %s", n, b.clock.now)
			}
		}
	}
}
