package cluster_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
)

var (
	leaseTime = lease.Default().D
	waitTime  = lease.Default().W(leaseTime)
)

const election = 2 * time.Second

func TestRestrictionIsAcknowledgedAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.net.SetLatency(time.Millisecond)
		began := time.Now()
		index := w.propose(first, "forbid x")
		if err := first.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		waited, err := first.AwaitRestriction(t.Context(), index)
		if err != nil || len(waited) != 0 {
			t.Fatalf("waited for %v, %v", waited, err)
		}
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("it took %s: nodes report a restriction at once", took)
		}
		for id, p := range w.nodes {
			if got := p.reg.state.Load().Value; got != "x" {
				t.Errorf("%s has %q after the acknowledgement", id, got)
			}
		}
	})
}

// TestFollowerCutOff: acknowledged within W(D), and from then on the lost node has no lease.
func TestFollowerCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		time.Sleep(5 * time.Second) // of the bubble's clock: long after the election, so only n3's own lease counts
		w.net.Isolate("n3", "n1", "n2")
		began := time.Now()
		index := w.propose(first, "forbid x")
		lost := w.nodes["n3"]
		if !lost.Lease().Valid() {
			t.Fatal("the lost node has no lease to begin with")
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var pending *cluster.PendingError
		_, err := first.AwaitRestriction(short, index)
		if !errors.As(err, &pending) || pending.Index != index || !slices.Equal(pending.Pending, []cluster.NodeID{"n3"}) ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with a short deadline: %v", err)
		}
		waited, err := first.AwaitRestriction(t.Context(), index)
		took := time.Since(began)
		if err != nil || !slices.Equal(waited, []cluster.NodeID{"n3"}) {
			t.Fatalf("waited for %v, %v", waited, err)
		}
		if lost.Lease().Valid() {
			t.Error("acknowledged while the lost node has a lease")
		}
		if took > waitTime+10*time.Millisecond || took < 2*time.Second {
			t.Errorf("it took %s", took)
		}
		// Healed, it gets a lease only with the restriction in its state.
		w.net.Heal()
		w.within(5*time.Second, "a lease after healing", func() bool { return lost.Lease().Valid() })
		if got := lost.reg.state.Load().Value; got != "x" {
			t.Errorf("it has a lease and %q", got)
		}
	})
}

// TestNoLeaseOutlivesAnAcknowledgement is the promise itself, at every moment around the fall of a leader: a valid lease and a
// state without an acknowledged restriction are never seen together.
func TestNoLeaseOutlivesAnAcknowledgement(t *testing.T) {
	for name, cut := range map[string]func(w *world, leader string, others []string){
		"both ways":     func(w *world, leader string, others []string) { w.net.Isolate(leader, others...) },
		"requests only": func(w *world, leader string, others []string) { cutTo(w, leader, others) },
		"answers only": func(w *world, leader string, others []string) {
			for _, o := range others {
				w.net.Cut(o, leader)
			}
		},
		"requests, with answers under way": func(w *world, leader string, others []string) {
			for _, o := range others {
				w.net.Delay(o, leader, 1500*time.Millisecond)
			}
			time.Sleep(400 * time.Millisecond) // of the bubble's clock
			cutTo(w, leader, others)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				old := w.form(3)
				time.Sleep(5 * time.Second) // of the bubble's clock
				cut(w, "n1", []string{"n2", "n3"})
				began := time.Now()
				next := w.leader("n2", "n3")
				index := w.propose(next, "forbid x")
				acknowledged := make(chan error, 1)
				go func() { _, err := next.AwaitRestriction(t.Context(), index); acknowledged <- err }()
				w.within(waitTime+election, "the acknowledgement", func() bool { return len(acknowledged) == 1 })
				if err := <-acknowledged; err != nil {
					t.Fatal(err)
				}
				t.Logf("acknowledged after %s", time.Since(began))
				w.never(10*time.Second, "a lease without the restriction", func() bool {
					return old.Lease().Valid() && old.reg.floor() < index
				})
				if old.Lease().Valid() {
					t.Error("the old leader still has a lease")
				}
				w.net.Heal()
				for _, o := range []string{"n2", "n3"} {
					w.net.Delay(o, "n1", 0)
				}
				w.within(10*time.Second, "the old leader to be served again", func() bool { return old.Lease().Valid() })
				if old.reg.floor() < index {
					t.Error("a lease without the restriction")
				}
			})
		})
	}
}

func cutTo(w *world, leader string, others []string) {
	for _, o := range others {
		w.net.Cut(leader, o)
	}
}

// TestLeaderWithoutMajorityStops: within D of the cut it has no lease, and it acknowledges nothing.
func TestLeaderWithoutMajorityStops(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.net.Isolate("n1", "n2", "n3")
		w.within(leaseTime, "the end of its lease", func() bool { return !first.Lease().Valid() })
		w.never(10*time.Second, "a new lease", func() bool { return first.Lease().Valid() })
	})
}

func TestQuorumLossStopsEverybody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		w.within(leaseTime+10*time.Millisecond, "the end of all leases", func() bool { return w.leases() == 0 })
		w.net.Heal()
		w.within(5*time.Second, "all leases back", func() bool { return w.leases() == 3 })
	})
}

// TestRestartedNodeServesNothingBeforeItHasCaughtUp holds its state machine back.
func TestRestartedNodeServesNothingBeforeItHasCaughtUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.kill("n3")
		index := w.propose(first, "forbid x")
		gate := make(chan struct{})
		again := w.start("n3")
		again.reg.stall.Store(&gate)
		w.never(10*time.Second, "a lease", func() bool { return again.Lease().Valid() })
		close(gate)
		w.within(2*time.Second, "a lease", func() bool { return again.Lease().Valid() })
		if again.reg.floor() < index {
			t.Error("it has a lease and not the restriction")
		}
	})
}

// TestLeaseComesWithTheOffice: an empty grant is followed by its echo at once, not a period later.
func TestLeaseComesWithTheOffice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.start("n1")
		w.within(election, "an office", first.IsLeader)
		w.within(20*time.Millisecond, "a lease", func() bool { return first.Lease().Valid() })
	})
}

// TestNewLeaderGrantsNothingBeforeItHasCaughtUp: what an earlier leader committed must be in its floor, and in what it says
// of reads.
func TestNewLeaderGrantsNothingBeforeItHasCaughtUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		gate := make(chan struct{})
		for _, id := range []cluster.NodeID{"n2", "n3"} {
			w.nodes[id].reg.stall.Store(&gate)
		}
		index := w.propose(first, "forbid x")
		w.net.Isolate("n1", "n2", "n3")
		w.within(leaseTime+10*time.Millisecond, "the end of the old leases", func() bool { return w.leases() == 0 })
		w.within(election, "another leader", func() bool { return w.leaderAmong("n2", "n3") })
		w.never(5*time.Second, "a lease", func() bool { return w.leases() > 0 })
		if got, err := w.nodes["n2"].ReadIndex(t.Context()); err == nil && got < index {
			t.Errorf("read index %d, %d was acknowledged", got, index)
		}
		close(gate)
		w.within(5*time.Second, "leases", func() bool { return w.leases() == 2 })
	})
}

// TestLeaderChangeIsNoBlackout: whoever has a lease keeps it while the next leader is elected.
func TestLeaderChangeIsNoBlackout(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.Isolate("n1", "n2", "n3")
		least := leaseTime
		w.never(10*time.Second, "a node without a lease", func() bool {
			least = min(least, w.nodes["n2"].Lease().Remaining(), w.nodes["n3"].Lease().Remaining())
			return least <= 0
		})
		t.Logf("the shortest lease had %s left", least)
	})
}

// TestRemovedNode: its removal is a restriction like any other; it is refused, and leaves raft when its lease has run out.
func TestRemovedNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(4)
		removed := w.nodes["n4"]
		began := time.Now()
		index := w.propose(first, "remove n4")
		ack := make(chan error, 1)
		go func() { _, err := first.AwaitRestriction(t.Context(), index); ack <- err }()
		w.within(waitTime+election, "the acknowledgement", func() bool {
			if len(first.Voters()) < 4 && removed.Lease().Valid() {
				t.Error("it left raft with a lease in hand")
			}
			return len(ack) == 1
		})
		if err := <-ack; err != nil {
			t.Fatal(err)
		}
		if removed.Lease().Valid() {
			t.Error("acknowledged while it has a lease")
		}
		t.Logf("acknowledged after %s", time.Since(began))
		w.within(2*time.Second, "its vote to go", func() bool { return len(first.Voters()) == 3 })
		w.never(5*time.Second, "a lease or a vote", func() bool { return removed.Lease().Valid() || removed.IsLeader() })
		for _, to := range []cluster.NodeID{"n1", "n2"} {
			if _, err := removed.Call(t.Context(), to, "echo", nil); !errors.Is(err, cluster.ErrNotMember) {
				t.Errorf("call to %s: %v", to, err)
			}
		}
		if !first.IsLeader() {
			t.Error("it disturbed the others")
		}
	})
}

func TestRemovedLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(4)
		index := w.propose(first, "remove n1")
		next := w.leader("n2", "n3", "n4")
		if _, err := next.AwaitRestriction(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if first.Lease().Valid() {
			t.Error("acknowledged while it has a lease")
		}
		w.within(2*waitTime, "its vote to go", func() bool { return len(next.Voters()) == 3 })
		w.within(time.Second, "leases", func() bool { return w.leases() == 3 })
		w.never(5*time.Second, "a return", func() bool { return first.IsLeader() || first.Lease().Valid() })
	})
}
