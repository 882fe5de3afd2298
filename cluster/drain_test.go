package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
)

// order proposes a restriction and waits until it is in force.
func (w *world) order(leader *process, command string) (waited []cluster.NodeID, took time.Duration) {
	w.t.Helper()
	began := time.Now()
	index := w.propose(leader, command)
	if err := leader.Barrier(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	waited, err := leader.AwaitRestriction(ctx, index)
	if err != nil {
		w.t.Fatalf("%s: %v", command, err)
	}
	return waited, time.Since(began)
}

// TestDrainedNode: it has no lease from the acknowledgement on, goes on voting, is waited for by nobody, and serves again when told to.
func TestDrainedNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		drained := w.nodes["n3"]
		if waited, took := w.order(first, "drain n3"); len(waited) != 0 || took > 100*time.Millisecond {
			t.Errorf("waited %s for %v", took, waited)
		}
		w.propose(first, "drained n3")
		w.within(2*time.Second, "its lease to go", func() bool { return !drained.Lease().Valid() })
		w.never(2*waitTime, "a lease", func() bool { return drained.Lease().Valid() })
		w.net.Isolate("n2", "n1", "n3") // with its voice alone there is a majority
		if got := w.leases(); got != 2 {
			t.Errorf("%d leases, and n2's has not run out yet", got)
		}
		if waited, _ := w.order(first, "forbid x"); !slices.Equal(waited, []cluster.NodeID{"n2"}) {
			t.Errorf("waited for %v", waited)
		}
		w.net.Heal()
		w.within(5*time.Second, "leases", func() bool { return w.leases() == 2 })
		// The next leader knows nothing of it but what the state says, and waits for it no more than the one before.
		w.net.Isolate("n3", "n1", "n2")
		w.net.Isolate("n1", "n2", "n3")
		w.net.Heal()
		w.net.Isolate("n3", "n1", "n2")
		leader := w.leader("n1", "n2")
		if waited, took := w.order(leader, "forbid y"); len(waited) != 0 || took > time.Second {
			t.Errorf("waited %s for %v", took, waited)
		}
		w.net.Heal()
		w.propose(w.leader(), "undrain n3")
		w.within(5*time.Second, "leases", func() bool { return w.leases() == 3 })
		w.net.Isolate("n3", "n1", "n2")
		if waited, _ := w.order(w.leader("n1", "n2"), "forbid z"); !slices.Equal(waited, []cluster.NodeID{"n3"}) || drained.Lease().Valid() {
			t.Errorf("waited for %v, lease %t", waited, drained.Lease().Valid())
		}
	})
}

// TestLeavingNode: in force when it has no vote any more; and another storage may come under its name.
func TestLeavingNode(t *testing.T) {
	for name, cutOff := range map[string]bool{"that answers": false, "that is lost": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				first := w.form(4)
				time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
				if cutOff {
					w.net.Isolate("n4", "n1", "n2", "n3")
				}
				waited, took := w.order(first, "leave n4")
				if lost := slices.Contains(waited, "n4"); lost != cutOff || took > waitTime+time.Second || !cutOff && took > time.Second {
					t.Errorf("waited %s for %v", took, waited)
				}
				if slices.Contains(first.Voters(), "n4") || w.nodes["n4"].Lease().Valid() {
					t.Errorf("in force with voters %v and lease %t", first.Voters(), w.nodes["n4"].Lease().Valid())
				}
				w.propose(first, "remove n4")
				w.stop("n4")
				w.net.Heal()
				w.nodes["n4"].storage = clustertest.NewStorage()
				w.start("n4")
				w.propose(first, "add n4 n4:1")
				w.within(10*time.Second, "another to vote and serve in its place", func() bool {
					return slices.Contains(first.Voters(), "n4") && w.nodes["n4"].Lease().Valid()
				})
			})
		})
	}
}

// TestLeavingLeader hands over, and whoever leads then removes it.
func TestLeavingLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		index := w.propose(first, fmt.Sprintf("leave %s", first.id))
		next := w.leader("n2", "n3")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if waited, err := next.AwaitRestriction(ctx, index); err != nil || len(waited) != 0 {
			t.Fatalf("waited for %v, %v", waited, err)
		}
		if got := next.Voters(); len(got) != 2 || first.Lease().Valid() {
			t.Errorf("voters %v", got)
		}
	})
}
