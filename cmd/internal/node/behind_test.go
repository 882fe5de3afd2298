package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
)

// TestANodeThatCannotCatchUpSaysSo: it knows how far the others are and does not get there, so its "not found" would be no
// answer. It must not keep a caller who set no deadline waiting, who could have asked another node.
func TestANodeThatCannotCatchUpSaysSo(t *testing.T) {
	inWorld(t, func(w *world) {
		gate := make(chan struct{})
		stalled, stall := context.WithCancel(w.ctx())
		defer stall()
		w.alter = func(p *process, _ *vault.Config) {
			if p.id == "n3" {
				p.replica.OnPublish(func(*fsm.State) {
					if stalled.Err() != nil {
						<-gate
					}
				})
			}
		}
		first := w.unsealed(3)
		stall()
		w.create(first, "last-seen", hsm.Ed25519)
		w.create(first, "pay", hsm.Ed25519)
		ctx, cancel := context.WithTimeout(w.ctx(), time.Minute) // only so that this test ends
		defer cancel()
		began := time.Now()
		if _, err := w.node("n3").vault.Sign(ctx, w.admin, "pay", message(1)); !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("signing with a key that it has not seen: %v", err)
		}
		if _, _, err := w.node("n3").vault.Key(ctx, w.admin, "pay"); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("reading a key that it has not seen: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the answers took %s", took)
		}
		close(gate)
		if !w.signs(w.node("n3"), "pay") {
			t.Error("caught up, it does not sign")
		}
	})
}
