package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// TestAStrangersRevealEndsNothing: only what a custodian signed can abort a genesis, and only then is it blamed.
func TestAStrangersRevealEndsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		dealer := w.form(3)
		s := w.convene(dealer, 0)
		for _, who := range w.custodians {
			w.must(s.commit(w.node("n2"), who))
		}
		for _, signature := range [][]byte{nil, make([]byte, 64), w.custodians[1].Sign([]byte("something else"))} {
			_, _, err := w.node("n3").vault.RevealEntropy(w.ctx(), w.admin, s.id, w.custodians[0].Name(), []byte("junk"), signature)
			if !errors.Is(err, vault.ErrShare) {
				t.Fatalf("junk in a custodian's name: %v", err)
			}
		}
		for _, who := range w.custodians {
			w.must(s.reveal(w.node("n3"), who))
		}
		for _, who := range w.custodians {
			w.must(s.acknowledge(w.node("n2"), who))
		}
	})
}

// TestForgeriesDoNotReachTheLog: what any client may send for the signature inside it is checked before it costs a log entry.
func TestForgeriesDoNotReachTheLog(t *testing.T) {
	inWorld(t, func(w *world) {
		w.unsealed(3)
		before := w.leader().replica.Applied()
		for range 20 {
			_, _, err := w.node("n2").vault.SignRoster(w.ctx(), w.admin, request(), "no-such-ceremony", "alice", make([]byte, 64))
			var refused *vault.Refused
			if !errors.As(err, &refused) {
				t.Fatalf("a forged signature: %v", err)
			}
			_, _, err = w.node("n2").vault.StartUnseal(w.ctx(), w.admin, request(), "alice", make([]byte, 32), make([]byte, 64))
			if !errors.As(err, &refused) {
				t.Fatalf("a forged unseal request: %v", err)
			}
		}
		if after := w.leader().replica.Applied(); after != before {
			t.Errorf("the log grew from %d to %d", before, after)
		}
	})
}

// TestAWrongClockDoesNotMoveTheLog: a leader whose clock is hours ahead stamps by the median of the nodes' clocks, so that requests of
// clients with right clocks go on.
func TestAWrongClockDoesNotMoveTheLog(t *testing.T) {
	inWorld(t, func(w *world) {
		var ahead atomic.Int64
		w.alter = func(p *process, c *vault.Config) {
			if p.id == "n1" {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			}
		}
		w.form(3)
		ahead.Store(int64(2 * time.Hour)) // somebody sets the leader's clock
		if leader := w.leader(); leader.id != "n1" {
			t.Fatalf("%s leads; this test is about n1", leader.id)
		}
		for range 3 {
			_, _, _, err := w.node("n2").vault.CreateJoinToken(w.ctx(), w.admin, request(), "n9", time.Minute)
			w.must(err)
		}
		if off := time.Until(w.node("n2").replica.State().Time()); off.Abs() > 10*time.Second {
			t.Errorf("the log's time is %s off", off)
		}
	})
}

// TestAPartitionedNodeDoesNotVouch: without a lease a node says neither that a signature is good without a warning, nor anything to
// somebody whose role was taken away.
func TestAPartitionedNodeDoesNotVouch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.unsealed(3)
		leader := w.leader()
		w.create(leader, "pay", hsm.Ed25519)
		lone := w.followers()[0]
		out, err := lone.vault.Sign(w.ctx(), w.admin, "pay", message(1))
		w.must(err)
		w.isolate(lone.id)
		_, _, err = leader.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "pay", Action: fsm.ActionCompromise, Reason: "leaked"})
		w.must(err)
		ctx, cancel := context.WithTimeout(w.ctx(), 5*time.Second)
		defer cancel()
		if _, valid, err := lone.vault.Verify(ctx, w.admin, "pay", 0, message(1), out.Bytes); err == nil {
			t.Errorf("a node without a lease vouches: valid=%t", valid)
		}
		if _, err := lone.vault.Heads(ctx, w.admin); err == nil {
			t.Error("a node without a lease takes an administrator's word for it")
		}
		w.heal()
		w.serving(3)
		got, valid, err := lone.vault.Verify(w.ctx(), w.admin, "pay", 0, message(1), out.Bytes)
		if err != nil || !valid || got.Warning == "" {
			t.Errorf("after healing: %t, warning %q, %v", valid, got.Warning, err)
		}
	})
}
