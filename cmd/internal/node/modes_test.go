package node

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// availableTime is the longer lease's.
var availableTime = lease.Default().Available

func TestTheClassesAgreeWithTheLeases(t *testing.T) {
	if c, _ := fsm.New().State().Class(fsm.ClassLow); c.LeaseDuration != availableTime {
		t.Errorf("class %s promises %s, leases last %s", c.Name, c.LeaseDuration, availableTime)
	}
}

// TestAvailableKeysOutliveAPartition: a lost node goes on with keys of class low for a minute and with others for its serving lease;
// and a restriction of either is acknowledged no sooner than the lost node has stopped, and no later than it must have.
func TestAvailableKeysOutliveAPartition(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "dear", hsm.Ed25519)
		_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "cheap", Class: fsm.ClassLow, Algorithm: hsm.Ed25519})
		w.must(err)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		lone := w.followers()[0]
		w.within(time.Second, "the lone node has applied the keys", func() bool { return w.signs(lone, "dear") && w.signs(lone, "cheap") })
		w.within(time.Second, "a lease that it asked for", func() bool { l := lone.cluster.AvailableLease(); return l.Valid() })
		w.isolate(lone.id)
		cut := time.Now()
		leader := w.leader()

		_, err = w.change(w.ctx(), leader, request(), "dear", fsm.ActionSuspend)
		w.must(err)
		if took := time.Since(cut); took > waitTime+100*time.Millisecond {
			t.Errorf("the suspension of a leased key took %s, W(D) is %s", took, waitTime)
		}
		if w.signs(lone, "dear") || !w.signs(lone, "cheap") {
			t.Error("after W(D) a lost node should sign with keys of class low, and no others")
		}

		done := make(chan fsm.Key, 1)
		go func() {
			k, err := w.insist(leader, "cheap", fsm.ActionSuspend)
			if err != nil {
				t.Error(err)
			}
			done <- k
		}()
		last := time.Now()
		limit := lease.Default().W(availableTime) + time.Second
		w.within(limit, "the acknowledgement", func() bool {
			if w.signs(lone, "cheap") {
				last = time.Now()
			}
			return len(done) == 1
		})
		if k := <-done; !slices.Equal(k.Barrier.Waited, []fsm.NodeID{lone.id}) {
			t.Errorf("barrier %+v", k.Barrier)
		}
		if signed := last.Sub(cut); signed < availableTime-leaseTime || signed > availableTime {
			t.Errorf("the lost node signed for %s, its lease lasts %s", signed, availableTime)
		}
		w.never(2*waitTime, "a signature of the lost node", func() bool { return w.signs(lone, "cheap") })
		w.heal()
		w.serving(3)
	})
}

// insist repeats an order for as long as the answer is that it waits for a node.
func (w *world) insist(p *process, name fsm.KeyName, a fsm.KeyAction) (fsm.Key, error) {
	id := request()
	for {
		k, err := w.change(w.ctx(), p, id, name, a)
		pending, is := errors.AsType[*vault.PendingError](err)
		if !is {
			return k, err
		}
		if pending.Within <= 0 || pending.Within > lease.Default().W(availableTime) {
			w.t.Errorf("the answer states a bound of %s: %v", pending.Within, pending)
		}
	}
}

// TestStrictKeysNeedTheLeader: class public-trust answers with what the leader had committed, and on a lost node not at all, lease or not.
func TestStrictKeysNeedTheLeader(t *testing.T) {
	inWorld(t, func(w *world) {
		w.dev = true
		first := w.unsealed(3)
		_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "root", Class: fsm.ClassPublicTrust, Algorithm: hsm.HMACSHA256})
		w.must(err)
		// A MAC cannot be made, because that needs approvals; that one does not verify is an answer, too, and the device's.
		asks := func(p *process) error {
			_, valid, err := p.vault.VerifyMAC(w.ctx(), w.admin, "root", 0, message(1).Message, make([]byte, 32))
			if valid {
				t.Error("a MAC of zeros is valid")
			}
			return err
		}
		lone := w.followers()[0]
		w.must(asks(lone))
		w.isolate(lone.id)
		if l := lone.cluster.Lease(); !l.Valid() {
			t.Fatal("its lease should last a while")
		}
		if asks(lone) == nil {
			t.Error("a lost node answers for a strict key under its lease")
		}
		w.heal()
		w.serving(3)
		w.must(asks(lone))
	})
}

// TestAFenceDoesNotEndAnOlderLeaving: two restrictions take keys out of class available; the later one is in force by its fence on a node that has
// applied neither, and is lost then. What left by the earlier one is waited for under the longer lease all the same.
func TestAFenceDoesNotEndAnOlderLeaving(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		class, _ := first.replica.State().Class(fsm.ClassLow)
		class.Name, class.Revision = "edge", 0
		_, _, err := first.vault.CreateClass(w.ctx(), w.admin, request(), class)
		w.must(err)
		for name, class := range map[fsm.KeyName]string{"a": "edge", "b": fsm.ClassLow} {
			_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Class: class, Algorithm: hsm.Ed25519})
			w.must(err)
		}
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		lone := w.followers()[0]
		w.within(time.Second, "the keys", func() bool { return w.signs(lone, "a") && w.signs(lone, "b") })
		w.within(time.Second, "the longer lease", func() bool { l := lone.cluster.AvailableLease(); return l.Valid() })
		w.gates[lone.id].close()
		defer w.gates[lone.id].reopen()
		leader := w.leader()
		class.Lease, class.LeaseDuration = fsm.LeaseLeased, 0
		moved := make(chan error, 1)
		go func() {
			_, _, err := leader.vault.UpdateClass(w.ctx(), w.admin, request(), class, 0)
			moved <- err
		}()
		w.within(time.Second, "the class has changed", func() bool { c, _ := leader.replica.State().Class("edge"); return c.Lease == fsm.LeaseLeased })
		_, _, err = leader.vault.SetKeyClass(w.ctx(), w.admin, request(), "b", fsm.ClassStandard, "it became dear")
		w.must(err) // by the fence
		w.isolate(lone.id)
		done := make(chan error, 1)
		go func() {
			_, err := w.insist(leader, "a", fsm.ActionSuspend)
			done <- err
		}()
		signed := 0
		w.within(lease.Default().W(availableTime)+time.Second, "the acknowledgement", func() bool {
			if len(done) == 1 {
				return true
			}
			if w.signs(lone, "a") {
				signed++
			}
			return false
		})
		w.must(<-done)
		if signed == 0 {
			t.Error("the lost node had no longer lease: nothing is shown")
		}
		if w.signs(lone, "a") {
			t.Error("the suspension is acknowledged, and the lost node signs")
		}
		w.heal()
		w.gates[lone.id].reopen()
		if err := <-moved; err != nil {
			if _, pending := errors.AsType[*vault.PendingError](err); !pending {
				t.Error(err)
			}
		}
		w.serving(3)
	})
}
