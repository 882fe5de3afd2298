package lease_test

import (
	"slices"
	"testing"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// TestFences: one vouches for the process that put it up and the restriction that it is for, and for nothing else.
func TestFences(t *testing.T) {
	all := []string{"n1", "n2", "n3"}
	begin := func() *board {
		b := newBoard(t, all...)
		b.settle(5, all...)
		b.floor = 7
		b.renew("n1", 7)
		b.renew("n2", 7)
		return b
	}
	for name, c := range map[string]struct {
		fence func(*board)
		done  bool
	}{
		"none":                   {func(*board) {}, false},
		"of this restriction":    {func(b *board) { b.table.Fenced("n3", "boot-n3", 6) }, true},
		"of a later one":         {func(b *board) { b.table.Fenced("n3", "boot-n3", 7) }, false},
		"of an earlier one":      {func(b *board) { b.table.Fenced("n3", "boot-n3", 5) }, false},
		"of another node":        {func(b *board) { b.table.Fenced("n2", "boot-n2", 6) }, false},
		"of a stranger":          {func(b *board) { b.table.Fenced("n9", "boot-n9", 6) }, false},
		"of an unknown process":  {func(b *board) { b.table.Fenced("n3", "boot-x", 6) }, false},
		"of a process before it": {func(b *board) { b.table.Fenced("n3", "boot-n3", 6); b.restart("n3") }, false},
		"among many": {func(b *board) {
			for i := range uint64(100) {
				b.table.Fenced("n3", "boot-n3", 100-i)
			}
		}, true},
		"forgotten among too many": {func(b *board) {
			for i := range uint64(1000) {
				b.table.Fenced("n3", "boot-n3", 6+i)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := begin()
			c.fence(b)
			a := b.table.Acked(6, all)
			if a.Done != c.done || !c.done && !slices.Equal(a.Pending, []string{"n3"}) || len(a.Expired) > 0 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// restart lets another process of a node renew, at the same state.
func (b *board) restart(node string) {
	b.holders[node] = lease.NewHolder(node, "again-"+node, b.clock)
	b.renew(node, 5)
}
