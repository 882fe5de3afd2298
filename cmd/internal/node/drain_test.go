package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/clustertest"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
)

func (w *world) reorder(ctx context.Context, p *process, node fsm.NodeID, a vault.NodeAction) error {
	_, err := p.vault.ChangeNode(ctx, w.admin, request(), vault.NodeChange{Node: node, Action: a})
	return err
}

func (w *world) standing(p *process, id fsm.NodeID) string {
	nodes, _, err := p.vault.Nodes(w.ctx(), w.admin)
	w.must(err)
	for _, n := range nodes {
		if n.ID == id {
			return n.Standing.String()
		}
	}
	return "gone"
}

// comeAgain makes a removed node a member under its old name, with its HSM and without anything else.
func (w *world) comeAgain(id fsm.NodeID, through *process) {
	w.t.Helper()
	w.stop(id)
	w.must(w.wipe(id))
	token := w.reopenToken(id)
	m, err := w.knock(id, token, w.invite(id, through), through)
	w.must(err)
	w.must(token.Close())
	w.must(saveMembership(w.config(id).DataDir, m))
	w.start(id)
}

// wipe leaves nothing on the disk of a node that is not running but its HSM.
func (w *world) wipe(id fsm.NodeID) error {
	w.storage[id] = clustertest.NewStorage()
	dir := w.config(id).DataDir
	return errors.Join(
		os.RemoveAll(filepath.Join(dir, journalDir)), os.RemoveAll(filepath.Join(dir, membershipFile)), os.RemoveAll(filepath.Join(dir, foundingFile)))
}

// TestADrainedNodeSignsNothing: from the acknowledgement on, whatever lease it holds; and it serves again
// when it is told to.
func TestADrainedNodeSignsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		names := []fsm.KeyName{"leased", "available"}
		for i, class := range []string{"standard", "low"} {
			_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: names[i], Algorithm: hsm.Ed25519, Class: class})
			w.must(err)
		}
		drained := w.node("n3")
		everySigns := func(p *process, want bool) {
			t.Helper()
			for _, name := range names {
				if got := w.signs(p, name); got != want {
					t.Errorf("%s signs with the %s key: %t", p.id, name, got)
				}
			}
		}
		w.within(10*time.Second, "it serves every key", func() bool {
			return !slices.ContainsFunc(names, func(n fsm.KeyName) bool { return !w.signs(drained, n) })
		})
		began := time.Now()
		w.must(w.reorder(w.ctx(), w.node("n2"), "n3", vault.NodeDrain))
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("acknowledged after %s", took)
		}
		everySigns(drained, false)
		everySigns(first, true)
		if err := drained.vault.Ready(); !errors.Is(err, guard.ErrNoLease) {
			t.Errorf("it says that it is ready: %v", err)
		}
		if _, _, err := drained.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "new", Algorithm: hsm.Ed25519}); !errors.Is(err, guard.ErrNoLease) {
			t.Errorf("a key is made there: %v", err)
		}
		if got := w.standing(drained, "n3"); got != "drained" {
			t.Errorf("it is %s", got)
		}
		w.must(w.reorder(w.ctx(), drained, "n3", vault.NodeUndrain))
		w.within(5*time.Second, "it serves", func() bool { return w.signs(drained, "leased") })
		everySigns(drained, true)
	})
}

// TestALostNodeIsDrained: acknowledged when its lease has run out, and not before.
func TestALostNodeIsDrained(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		lost := w.followers()[0]
		w.isolate(lost.id)
		if !w.signs(lost, "pay") {
			t.Fatal("it does not sign to begin with")
		}
		began := time.Now()
		short, cancel := context.WithTimeout(w.ctx(), time.Second)
		defer cancel()
		var pending *vault.PendingError
		if err := w.reorder(short, w.leader(), lost.id, vault.NodeDrain); !errors.As(err, &pending) || !slices.Equal(pending.Pending, []fsm.NodeID{lost.id}) {
			t.Fatalf("with a short deadline: %v", err)
		}
		w.within(waitTime, "the acknowledgement", func() bool { return w.standing(w.leader(), lost.id) == "drained" })
		t.Logf("acknowledged after %s", time.Since(began))
		w.never(waitTime, "a signature on the lost node", func() bool { return w.signs(lost, "pay") })
		w.heal()
		w.never(waitTime, "a signature of the drained node", func() bool { return w.signs(lost, "pay") })
		w.must(w.reorder(w.ctx(), w.leader(), lost.id, vault.NodeUndrain))
		w.within(5*time.Second, "it serves", func() bool { return w.signs(lost, "pay") })
	})
}

// TestARemovedNode: follower, leader and a dead one. It leaves raft, signs nothing, and may come again with a new token only.
func TestARemovedNode(t *testing.T) {
	for name, pick := range map[string]func(w *world) *process{
		"follower": func(w *world) *process { return w.followers()[0] },
		"leader":   func(w *world) *process { return w.leader() },
		"dead":     func(w *world) *process { p := w.followers()[0]; w.kill(p.id); return p },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first := w.unsealed(4)
				w.create(first, "pay", hsm.Ed25519)
				time.Sleep(2 * waitTime) // of the bubble's clock
				removed := pick(w)
				through := w.live()[slices.IndexFunc(w.live(), func(p *process) bool { return p.id != removed.id })]
				if err := w.reorder(w.ctx(), removed, removed.id, vault.NodeRemove); name != "dead" && !errors.Is(err, vault.ErrUnavailable) {
					t.Errorf("it removes itself: %v", err)
				}
				began := time.Now()
				w.must(w.reorder(w.ctx(), through, removed.id, vault.NodeRemove))
				t.Logf("acknowledged after %s", time.Since(began))
				if took := time.Since(began); took > waitTime+election {
					t.Errorf("acknowledged after %s", took)
				}
				if got := w.standing(through, removed.id); got != "gone" || len(through.cluster.Voters()) != 3 {
					t.Errorf("it is %s, voters are %v", got, through.cluster.Voters())
				}
				if done := w.logged(through, "barrier.done", "node/"+string(removed.id)); len(done) != 1 || strings.Contains(done[0].Detail, "waited="+string(removed.id)) != (name == "dead") {
					t.Errorf("events: %+v", done)
				}
				if name != "dead" {
					w.never(waitTime, "a signature", func() bool { return w.signs(removed, "pay") })
				}
				w.rejoin(removed.id)
				w.comeAgain(removed.id, through)
				w.serving(4)
				w.unseal(removed.id)
				if !w.signs(w.node(removed.id), "pay") {
					t.Error("it came again and does not sign")
				}
			})
		})
	}
}

// TestADrainedNodeRestsOnNoLease: nobody waits for one that it may still have, because a new leader does not know of it. So it answers by what
// the leader had committed, or not at all, also where no private key is used.
func TestADrainedNodeRestsOnNoLease(t *testing.T) {
	inWorld(t, func(w *world) {
		var kept atomic.Pointer[lease.Lease] // that its withdrawal has not reached
		w.alter = func(p *process, c *vault.Config) {
			if current := c.Lease; p.id == "n3" {
				c.Lease = func() lease.Lease {
					if l := kept.Load(); l != nil {
						return *l
					}
					return current()
				}
			}
		}
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		out, err := first.vault.Sign(w.ctx(), w.admin, "pay", message(1))
		w.must(err)
		n3 := w.node("n3")
		verify := func() error {
			_, _, err := n3.vault.Verify(w.ctx(), w.admin, "pay", 0, message(1), out.Bytes)
			return err
		}
		w.within(5*time.Second, "it has the key and a lease", func() bool { return n3.cluster.Lease().Valid() && verify() == nil })
		l := n3.cluster.Lease()
		kept.Store(&l)
		w.must(w.reorder(w.ctx(), first, "n3", vault.NodeDrain))
		w.within(time.Second, "it has heard", func() bool { return n3.replica.State().DrainedAt("n3") != 0 })
		w.must(verify()) // by the leader's word
		w.isolate("n3")
		if !l.Valid() {
			t.Fatal("the lease that was kept is over: nothing is shown")
		}
		if verify() == nil {
			t.Error("a drained node verifies under a lease")
		}
		if _, _, err := n3.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "other", Algorithm: hsm.Ed25519}); err == nil {
			t.Error("a drained node authorises under a lease")
		}
		if err := n3.vault.Watch(w.ctx(), w.admin, vault.WatchQuery{}, func(vault.WatchBatch) error { return errors.New("it sends") }); err == nil || err.Error() == "it sends" {
			t.Errorf("a watch: %v", err)
		}
		w.heal()
	})
}
