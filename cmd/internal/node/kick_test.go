package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// barriers counts them.
type barriers struct {
	vault.Proposer
	n *atomic.Int64
}

func (b barriers) Barrier(ctx context.Context) error {
	b.n.Add(1)
	return b.Proposer.Barrier(ctx)
}

// TestWhoIsToldByABarrier: followers hear of a restriction's commit by a barrier at once, except of a key's while their fences answer in time.
func TestWhoIsToldByABarrier(t *testing.T) {
	inWorld(t, func(w *world) {
		var n atomic.Int64
		w.alter = func(_ *process, c *vault.Config) { c.Proposer = barriers{c.Proposer, &n} }
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		leader := w.leader()
		count := func(what string, want int64, restrict func() error) {
			t.Helper()
			before := n.Load()
			w.must(restrict())
			time.Sleep(time.Second)
			if got := n.Load() - before; got != want {
				t.Errorf("%s: %d barriers, want %d", what, got, want)
			}
		}
		suspend := func() error {
			_, err := w.change(w.ctx(), leader, request(), "pay", fsm.ActionSuspend)
			return err
		}
		count("a key, of which all keep", 0, suspend)
		count("a node, of which nobody can keep", 1, func() error {
			return w.reorder(w.ctx(), leader, w.followers()[0].id, vault.NodeDrain)
		})
		_, err := w.change(w.ctx(), leader, request(), "pay", fsm.ActionResume)
		w.must(err)
		w.isolate(w.followers()[1].id)
		count("a key, while one is cut off", 1, suspend)
		w.heal()
	})
}
