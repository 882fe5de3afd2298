package node

import (
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

// TestAFenceNeedsNoApply: a node whose state machine stands still keeps from the key at once, so nobody waits for its lease to end. It
// goes on with its other keys.
func TestAFenceNeedsNoApply(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.create(first, "other", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		frozen := w.followers()[0]
		w.gates[frozen.id].close()
		defer w.gates[frozen.id].reopen()
		began := time.Now()
		k, err := w.change(w.ctx(), w.leader(), request(), "pay", fsm.ActionSuspend)
		w.must(err)
		if took := time.Since(began); took > 100*time.Millisecond || len(k.Barrier.Waited) > 0 {
			t.Errorf("acknowledged after %s, waited for %v", took, k.Barrier.Waited)
		}
		if !w.signs(frozen, "other") {
			t.Error("it keeps from another key too")
		}
		if _, err := frozen.vault.Sign(w.ctx(), w.admin, "pay", message(1)); !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("the frozen node says: %v", err)
		}
		w.gates[frozen.id].reopen()
		w.within(time.Second, "it has applied it", func() bool { return frozen.replica.State().BarrierDone(k.Barrier.Index) })
		if _, err := frozen.vault.Sign(w.ctx(), w.admin, "pay", message(1)); !errors.Is(err, guard.ErrKeyState) {
			t.Errorf("and then: %v", err)
		}
		_, err = w.change(w.ctx(), w.leader(), request(), "pay", fsm.ActionResume)
		w.must(err)
		w.within(time.Second, "it signs", func() bool { return w.signs(frozen, "pay") })
	})
}
