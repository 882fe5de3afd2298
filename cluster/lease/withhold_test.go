package lease_test

import (
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// TestWithheldLease: no lease, of any kind, and the echo counts as before.
func TestWithheldLease(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.table.AllowAvailable()
	b.holders["n3"].Want()
	b.settle(5, "n1", "n2", "n3")
	if !b.holders["n3"].Available().Valid() {
		t.Fatal("no lease to withhold")
	}
	b.table.Withhold(func(node string) bool { return node == "n3" })
	g, err := b.table.Renew(b.holders["n3"].Renew(fixed(2), fixed(5)), fixed(5))
	if err != nil || !g.Withheld || !g.Zero() || g.Available != 0 {
		t.Fatalf("%+v, %v", g, err)
	}
	if err := b.holders["n3"].Install(g, fixed(5)); !errors.Is(err, lease.ErrWithheld) {
		t.Errorf("installed with: %v", err)
	}
	if b.holders["n3"].Lease().Valid() || b.holders["n3"].Available().Valid() {
		t.Error("it keeps what it had")
	}
	b.clock.now += b.cfg.D // what n1 and n2 had proven is old: n3's voice is one of the two that count
	b.renew("n3", 5)
	b.renew("n3", 5)
	b.renew("n1", 5)
	if g := b.renew("n1", 5); g.Zero() {
		t.Error("a voter that serves nothing is evidence all the same")
	}
}

// TestRecountedNode: a storage that counts from one again is no older twin of the one that was removed.
func TestRecountedNode(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	old := lease.NewHolder("n3", "old", b.clock).With(b.cfg, 7, nil)
	young := lease.NewHolder("n3", "young", b.clock).With(b.cfg, 1, nil)
	if _, err := b.table.Renew(old.Renew(fixed(2), fixed(5)), fixed(5)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.table.Renew(young.Renew(fixed(2), fixed(5)), fixed(5)); !errors.Is(err, lease.ErrOlderTwin) {
		t.Fatalf("while both are members: %v", err)
	}
	b.table.Recount("n3")
	if _, err := b.table.Renew(young.Renew(fixed(2), fixed(5)), fixed(5)); err != nil {
		t.Errorf("after the removal: %v", err)
	}
}
