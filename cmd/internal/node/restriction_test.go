package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

var (
	leaseTime = lease.Default().D
	waitTime  = lease.Default().W(leaseTime)
)

// election is how long a LAN cluster may be without a leader.
const election = 3 * time.Second

func (w *world) change(ctx context.Context, p *process, id fsm.RequestID, name fsm.KeyName, a fsm.KeyAction) (fsm.Key, error) {
	k, _, err := p.vault.ChangeKey(ctx, w.admin, id, vault.Change{Name: name, Action: a, Reason: "test"})
	return k, err
}

func (w *world) signs(p *process, name fsm.KeyName) bool {
	_, err := p.vault.Sign(w.ctx(), w.admin, name, message(1))
	return err == nil
}

// TestARestrictionOutlivesItsCallersPatience: the answer names the node that is waited for, the retry joins the wait, and the log
// says at the end who was waited for.
func TestARestrictionOutlivesItsCallersPatience(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		w.isolate("n3")
		began, id := time.Now(), request()
		short, cancel := context.WithTimeout(w.ctx(), time.Second)
		defer cancel()
		var pending *vault.PendingError
		if _, err := w.change(short, w.node("n2"), id, "pay", fsm.ActionSuspend); !errors.As(err, &pending) || !slices.Equal(pending.Pending, []fsm.NodeID{"n3"}) {
			t.Fatalf("with a short deadline: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the answer came %s after the order, after the caller's deadline", took)
		}
		k, err := w.change(w.ctx(), first, id, "pay", fsm.ActionSuspend)
		w.must(err)
		if took := time.Since(began); took > waitTime+100*time.Millisecond {
			t.Errorf("acknowledged after %s, W(D) is %s", took, waitTime)
		}
		if k.Barrier.State != fsm.BarrierDone || !slices.Equal(k.Barrier.Waited, []fsm.NodeID{"n3"}) {
			t.Errorf("barrier %+v", k.Barrier)
		}
		w.never(time.Second, "a signature on the lost node", func() bool { return w.signs(w.node("n3"), "pay") })
		if got := w.logged(first, "key.suspend", "key/pay"); len(got) != 1 {
			t.Errorf("suspended %d times", len(got))
		}
		if got := w.logged(first, "barrier.done", "key/pay"); len(got) != 1 || !strings.Contains(got[0].Detail, "waited=n3") {
			t.Errorf("events of the barrier: %+v", got)
		}
	})
}

// TestTheNextLeaderCompletesTheBarrier: the leader dies while a restriction waits for a lost node. Nobody asks again.
func TestTheNextLeaderCompletesTheBarrier(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(5)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock
		w.isolate("n5")
		short, cancel := context.WithTimeout(w.ctx(), 500*time.Millisecond)
		defer cancel()
		var pending *vault.PendingError
		if _, err := w.change(short, w.node("n2"), request(), "pay", fsm.ActionSuspend); !errors.As(err, &pending) {
			t.Fatalf("with a short deadline: %v", err)
		}
		leader := w.leader()
		w.kill(leader.id)
		began := time.Now()
		next := w.leader("n1", "n2", "n3", "n4")
		w.within(election+waitTime, "the barrier is done", func() bool { return next.replica.State().BarrierDone(pending.Index) })
		t.Logf("done %s after the leader's death", time.Since(began))
		done := w.logged(next, "barrier.done", "key/pay")
		if len(done) != 1 || strings.HasSuffix(string(done[0].Actor), "/"+string(leader.id)) || !strings.Contains(done[0].Detail, "n5") {
			t.Errorf("events of the barrier: %+v", done)
		}
		if w.signs(w.node("n5"), "pay") {
			t.Error("the lost node signs")
		}
		w.restart(leader.id)
		w.heal()
	})
}

// TestAnIsolatedLeaderStops: it goes on for its lease and no longer, and never after the others acknowledged a restriction.
func TestAnIsolatedLeaderStops(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock
		old := w.leader()
		w.isolate(old.id)
		cut := time.Now()
		if !w.signs(old, "pay") {
			t.Error("it stops before its lease ends")
		}
		acknowledged := make(chan error, 1)
		go func() {
			_, err := w.change(w.ctx(), w.followers()[0], request(), "pay", fsm.ActionSuspend)
			acknowledged <- err
		}()
		last := cut
		w.within(election+waitTime, "the acknowledgement", func() bool {
			if w.signs(old, "pay") {
				last = time.Now()
			}
			return len(acknowledged) == 1
		})
		w.must(<-acknowledged)
		if last.Sub(cut) > leaseTime {
			t.Errorf("it signed %s after the cut, D is %s", last.Sub(cut), leaseTime)
		}
		w.never(2*waitTime, "a signature of the old leader", func() bool { return w.signs(old, "pay") })
		w.heal()
		w.serving(3)
		if w.signs(old, "pay") {
			t.Error("healed, it signs with a suspended key")
		}
	})
}
