package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

func TestEveryNodeApplies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		index := w.propose(first, "set x")
		for id, p := range w.nodes {
			if err := p.WaitApplied(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			if got := p.reg.state.Load().Value; got != "x" {
				t.Errorf("%s has %q", id, got)
			}
			if leader, known := p.Leader(); !known || leader != first.id {
				t.Errorf("%s believes in %q", id, leader)
			}
		}
		if first.Role() != "leader" || w.nodes["n2"].Role() != "follower" {
			t.Errorf("roles %s and %s", first.Role(), w.nodes["n2"].Role())
		}
		if err := first.Barrier(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyTheLeaderProposes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		p := w.follower()
		if _, _, err := p.Propose(t.Context(), []byte("set x")); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("propose: %v", err)
		}
		if err := p.Barrier(t.Context()); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("barrier: %v", err)
		}
		if _, err := p.AwaitRestriction(t.Context(), 1); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("await: %v", err)
		}
		big := make([]byte, cluster.MaxEntryBytes+1)
		if _, _, err := w.leader().Propose(t.Context(), big); !errors.Is(err, cluster.ErrTooLarge) {
			t.Errorf("oversized entry: %v", err)
		}
	})
}

func TestOutcomeIsUnknownWithoutMajority(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.net.Isolate("n1", "n2", "n3")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, _, err := first.Propose(ctx, []byte("set x"))
		if !errors.Is(err, cluster.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("own deadline: %v", err)
		}
		// Without one, losing the office is the answer.
		if _, _, err := first.Propose(t.Context(), []byte("set y")); !errors.Is(err, cluster.ErrOutcomeUnknown) {
			t.Errorf("leadership lost: %v", err)
		}
	})
}

// TestLeaderIsKilled: no acknowledged write is lost, and a client goes on within three seconds.
func TestLeaderIsKilled(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		index := w.propose(first, "set x")
		client := w.follower()
		w.kill(first.id)
		began := time.Now()
		var err error
		for {
			if _, err = client.CallLeader(t.Context(), "propose", []byte("set y")); err == nil {
				break
			}
			if time.Since(began) > 3*time.Second {
				t.Fatalf("no write within three seconds: %v", err)
			}
		}
		next := w.leader("n2", "n3")
		if got := next.reg.state.Load(); got.Value != "y" || got.Applied <= index {
			t.Errorf("new leader has %+v", got)
		}
		back := w.start(first.id)
		read, err := back.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := back.WaitApplied(t.Context(), read); err != nil {
			t.Fatal(err)
		}
		if got := back.reg.state.Load().Value; got != "y" {
			t.Errorf("restarted node has %q", got)
		}
	})
}

func TestLeaderHandsOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.stop(first.id)
		began := time.Now()
		w.within(200*time.Millisecond, "a successor without an election timeout", func() bool {
			return w.nodes["n2"].IsLeader() || w.nodes["n3"].IsLeader()
		})
		t.Logf("successor after %s", time.Since(began))
	})
}

// TestNewNodeVotesWhenItHasCaughtUp watches a node that cannot apply: it stays without a vote.
func TestNewNodeVotesWhenItHasCaughtUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(1)
		for i := range 100 {
			w.propose(first, fmt.Sprintf("set %d", i))
		}
		late := w.start("n2")
		gate := make(chan struct{})
		late.reg.stall.Store(&gate)
		w.propose(first, "forbid x")
		if got := late.Role(); got != "nonvoter" {
			t.Errorf("role %s", got)
		}
		w.propose(first, "add n2 n2:1")
		w.never(5*time.Second, "a vote for a node that is behind", func() bool { return len(first.Voters()) > 1 })
		if late.Lease().Valid() {
			t.Error("a node that is behind every restriction has a lease")
		}
		close(gate)
		w.within(5*time.Second, "a vote for a node that caught up", func() bool { return len(first.Voters()) == 2 })
	})
}

func TestSnapshotIsInstalled(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.tune = func(c *cluster.Config) {
			c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 5, time.Second
		}
		first := w.form(2)
		for i := range 200 {
			w.propose(first, fmt.Sprintf("set %d", i))
		}
		w.within(10*time.Second, "the log to be compacted", func() bool {
			oldest, err := first.storage.Logs.FirstIndex()
			return err == nil && oldest > 100
		})
		late := w.start("n3")
		index := w.propose(first, "add n3 n3:1")
		if err := late.WaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if got := late.reg.state.Load().Value; got != "199" {
			t.Errorf("value %q", got)
		}
		snapshots, err := late.storage.Snapshots.List()
		if err != nil || len(snapshots) == 0 {
			t.Errorf("it was not brought up by a snapshot: %v, %v", snapshots, err)
		}
		w.within(5*time.Second, "a vote", func() bool { return len(first.Voters()) == 3 })
		w.stop("n3")
		if again := w.start("n3"); again.WaitApplied(t.Context(), index) != nil || again.reg.state.Load().Value != "199" {
			t.Error("state is gone after a restart from a snapshot")
		}
	})
}

func TestWholeClusterRestarts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		index := w.propose(w.form(3), "set x")
		for id := range w.nodes {
			w.kill(id)
		}
		for _, id := range []cluster.NodeID{"n1", "n2", "n3"} {
			w.start(id)
		}
		w.leader()
		for id, p := range w.nodes {
			if err := p.WaitApplied(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			if got := p.reg.state.Load().Value; got != "x" {
				t.Errorf("%s has %q", id, got)
			}
		}
	})
}

func TestMovedNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.kill("n3")
		w.tune = func(c *cluster.Config) { c.Bind = string(c.ID) + ":2" }
		w.start("n3")
		w.never(time.Second, "a lease at an address that nobody knows", func() bool { return w.nodes["n3"].Lease().Valid() && !first.IsLeader() })
		index := w.propose(first, "add n3 n3:2")
		if err := w.nodes["n3"].WaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Call(t.Context(), "n3", "echo", nil); err != nil {
			t.Errorf("call to the new address: %v", err)
		}
	})
}

func TestStoppedNodeSaysSo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(1)
		waiting := make(chan error)
		go func() { waiting <- first.WaitApplied(t.Context(), 1<<40) }()
		w.stop("n1")
		if err := <-waiting; !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("wait: %v", err)
		}
		if _, _, err := first.Propose(t.Context(), nil); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("propose: %v", err)
		}
		if _, err := first.ReadIndex(t.Context()); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("read: %v", err)
		}
		if _, err := first.Call(t.Context(), "n1", "echo", nil); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("call: %v", err)
		}
		if _, err := first.CallLeader(t.Context(), "echo", nil); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("call leader: %v", err)
		}
		if first.Lease().Valid() || first.IsLeader() || first.Term() != 0 || len(first.Gossip()) != 0 {
			t.Error("it still claims something")
		}
		if err := first.Run(t.Context()); !errors.Is(err, cluster.ErrRunning) {
			t.Errorf("second run: %v", err)
		}
	})
}

// TestShutdownWithoutMajority: whatever waits for raft is answered, and nothing hangs.
func TestShutdownWithoutMajority(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.net.Isolate("n1", "n2", "n3")
		answers := make(chan error, 40)
		for range 20 {
			go func() { _, _, err := first.Propose(t.Context(), []byte("set x")); answers <- err }()
			go func() { answers <- first.Barrier(t.Context()) }()
		}
		time.Sleep(time.Millisecond) // of the bubble's clock: all are queued
		w.stop("n1")
		for range 40 {
			if err := <-answers; err == nil {
				t.Error("committed without a majority")
			}
		}
	})
}
