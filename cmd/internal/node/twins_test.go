package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// twin starts a second process of a node, on an image of all that the first one has on its disks, as when a virtual machine is cloned while
// it runs. The first goes on; from now on it is the second that is the node to everybody else here.
func (w *world) twin(id fsm.NodeID, host *clustertest.Host) (first *process) {
	w.t.Helper()
	first = w.node(id)
	dir, err := os.MkdirTemp(w.dir, string(id)+"-copy-")
	w.must(err)
	w.must(os.CopyFS(dir, os.DirFS(w.config(id).DataDir)))
	w.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600) // whatever the umask is
	}))
	storage, err := clustertest.CopyStorage(w.storage[id])
	w.must(err)
	w.copied[id], w.storage[id] = dir, storage
	w.startOn(id, host)
	return first
}

// clone replaces a node by a process on a copy of its data, and leaves the first one without a network and with whatever leases it holds.
func (c *campaign) clone(victim fsm.NodeID) {
	first := c.w.node(victim)
	first.host.Unplug()
	c.w.twin(victim, c.w.net.Host(string(victim)))
	for range 2 * signers {
		c.all.Go(func() { c.signOn(first) })
	}
	c.pause(between(200*time.Millisecond, brief))
	c.w.finish(first)
}

// TestATwinThatWasAlwaysThere: two processes of a node run on copies of its data. The one that served loses its network in the moment in which the
// leader changes, and the other, which no leader has heard of yet, takes its place. That it has run for long says nothing about the first,
// which still holds the leases of the leader before.
func TestATwinThatWasAlwaysThere(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		if floor, since := first.replica.Floor(), first.replica.State().LastIncumbent(); since == 0 || floor < since {
			t.Errorf("leases are granted to who has applied %d, and a process began to serve at %d", floor, since)
		}
		w.create(first, "pay", hsm.Ed25519)
		w.serving(3)
		w.within(5*time.Second, "n3 signs", func() bool { return w.signs(w.node("n3"), "pay") })

		second := w.net.Host("n3")
		second.Unplug()
		old := w.twin("n3", second)
		time.Sleep(time.Minute)
		w.must(w.leader("n1", "n2").cluster.StepDown(w.ctx()))
		old.host.Unplug()
		second.Plug()
		leader := w.leader("n1", "n2")
		if !w.signs(old, "pay") {
			t.Fatal("the first should hold a lease of the leader before, or this shows nothing")
		}
		began := time.Now()
		_, _, err := leader.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "pay", Action: fsm.ActionSuspend, Reason: "a drill"})
		w.must(err)
		if w.signs(old, "pay") {
			t.Errorf("the first process signs %s after the order, and it is acknowledged", time.Since(began))
		}
		w.finish(old)
	})
}

// TestAReplacedProcessSeals: a process that learns that another of its node was unsealed closes its master. Until then its leases
// are worth nothing to it.
func TestAReplacedProcessSeals(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.within(5*time.Second, "n3 signs", func() bool { return w.signs(w.node("n3"), "pay") })
		old := w.node("n3")
		old.host.Unplug()
		w.twin("n3", w.net.Host("n3"))
		w.serving(3)
		w.unseal("n3")
		second := w.node("n3")
		if second.sealed() || old.sealed() {
			t.Fatal("both should be unsealed, or this shows nothing")
		}
		w.kill("n3")
		w.rejoin("n3")
		old.host.Plug()
		w.within(10*time.Second, "it seals", old.sealed)
		if _, err := old.vault.Sign(w.ctx(), w.admin, "pay", message(1)); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("it signs, or says: %v", err)
		}
		var refused error
		for _, who := range w.custodians[:threshold] {
			_, refused = w.give(old, who)
		}
		if refused == nil || !strings.Contains(refused.Error(), "another process of node n3 began later") {
			t.Errorf("unsealing it again: %v", refused)
		}
		w.finish(old)
		w.restart("n3")
		w.serving(3)
		w.unseal("n3")
		w.within(5*time.Second, "the node signs again", func() bool { return w.signs(w.node("n3"), "pay") })
	})
}

// TestAFormerMemberServesNothing: a node was removed, its process goes on all the same, and another machine was admitted under its name, which
// nobody has unsealed yet. The former one is back on its address while the new one is away. Members do not know its key; and if they did not ask
// for it, its own state would tell it that it does not serve.
func TestAFormerMemberServesNothing(t *testing.T) {
	for name, asked := range map[string]bool{"": true, "keys are not asked for": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if !asked {
					w.tune = forgetKeys
				}
				first := w.unsealed(4)
				w.create(first, "pay", hsm.Ed25519)
				former := w.node("n4")
				w.within(5*time.Second, "n4 signs", func() bool { return w.signs(former, "pay") })
				w.must(w.reorder(w.ctx(), first, "n4", vault.NodeRemove))
				former.host.Unplug()
				time.Sleep(30 * time.Second)
				delete(w.storage, "n4")
				w.copied["n4"] = filepath.Join(w.dir, "n4 anew")
				w.join("n4", first)
				w.serving(4)
				anew := w.node("n4")
				anew.host.Unplug()
				w.must(w.leader("n1", "n2", "n3").cluster.StepDown(w.ctx()))
				time.Sleep(3 * time.Second)
				former.host.Plug()
				time.Sleep(15 * time.Second)
				if has := former.cluster.Lease().Valid(); has == asked {
					t.Errorf("the former member has a lease: %t", has)
				}
				if w.signs(former, "pay") {
					t.Error("it signs although the state has no process serve as n4")
				}
				w.must(w.leader("n1", "n2", "n3").cluster.StepDown(w.ctx()))
				former.host.Unplug()
				anew.host.Plug()
				leader := w.leader("n1", "n2", "n3")
				_, _, err := leader.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "pay", Action: fsm.ActionSuspend, Reason: "a drill"})
				w.must(err)
				if w.signs(former, "pay") {
					t.Error("it signs after the acknowledgement")
				}
				w.finish(former)
			})
		})
	}
}

// TestAMachineThatTookANameIsAskedForItsVote: after a restart a node's state is that of its latest snapshot, in which the name may still be the
// former machine's; and with a longer log it is the only one that can win.
func TestAMachineThatTookANameIsAskedForItsVote(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tune = func(c *cluster.Config) {
			c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 60, 200, time.Second
		}
		first := w.unsealed(3)
		snapshots := func() uint64 {
			all, err := w.storage["n1"].Snapshots.List()
			if w.must(err); len(all) == 0 {
				return 0
			}
			return all[0].Index
		}
		for i := 0; snapshots() == 0; i++ {
			w.create(first, fsm.KeyName(fmt.Sprintf("k%d", i)), hsm.Ed25519)
			time.Sleep(time.Second)
		}
		w.must(w.reorder(w.ctx(), first, "n3", vault.NodeRemove))
		w.stop("n3")
		delete(w.storage, "n3")
		w.copied["n3"] = filepath.Join(w.dir, "n3 anew")
		before := first.replica.State().Applied()
		w.join("n3", first)
		w.serving(3)
		w.within(10*time.Second, "n3 votes", func() bool { return len(first.cluster.Voters()) == 3 })
		w.kill("n3")
		w.create(w.leader("n1", "n2"), "longer", hsm.Ed25519)
		w.within(5*time.Second, "n1 has it", func() bool { _, has := first.replica.State().Key("longer"); return has })
		w.kill("n2")
		w.kill("n1")
		if snapshots() >= before {
			t.Fatal("the snapshot has the new machine, so this shows nothing")
		}
		w.restart("n1")
		w.restart("n3")
		w.leader("n1")
		w.restart("n2")
		w.serving(3)
	})
}

// forgetKeys makes a node know its peers by name only.
func forgetKeys(c *cluster.Config) {
	members := c.Members
	c.Members = func() []cluster.Member {
		all := slices.Clone(members())
		for i := range all {
			all[i].Key = nil
		}
		return all
	}
}
