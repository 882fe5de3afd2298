package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// TestReadIndexSeesAcknowledgedWrites writes through one node and reads through another at once, over and over.
func TestReadIndexSeesAcknowledgedWrites(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.SetLatency(time.Millisecond)
		ids := []cluster.NodeID{"n1", "n2", "n3"}
		for i := range 300 {
			writer, reader := w.nodes[ids[i%3]], w.nodes[ids[(i+1)%3]]
			if _, err := writer.CallLeader(t.Context(), "propose", fmt.Appendf(nil, "set %d", i)); err != nil {
				t.Fatal(err)
			}
			index, err := reader.ReadIndex(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := reader.WaitApplied(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			if got := reader.reg.state.Load().Value; got != fmt.Sprint(i) {
				t.Fatalf("%s read %q after %d was acknowledged", reader.id, got, i)
			}
		}
	})
}

// TestReadIndexIsThatOfACommand: barriers and configurations at the end of the log are indexes that nobody ever applies.
func TestReadIndexIsThatOfACommand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		last := w.propose(first, "set x")
		for range 3 {
			if err := first.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for id, p := range w.nodes {
			if got, err := p.ReadIndex(t.Context()); err != nil || got != last {
				t.Errorf("%s: %d, %v, want %d", id, got, err, last)
			}
		}
	})
}

// TestReadIndexRunsAheadOfTheFSM: what is committed and not applied on the leader itself counts.
func TestReadIndexRunsAheadOfTheFSM(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		gate := make(chan struct{})
		first.reg.stall.Store(&gate)
		done := make(chan error)
		go func() { _, _, err := first.Propose(t.Context(), []byte("set x")); done <- err }()
		before := first.reg.applied()
		w.within(time.Second, "the entry to be committed elsewhere", func() bool { return w.nodes["n2"].reg.applied() > before })
		if got, err := first.ReadIndex(t.Context()); err != nil || got != w.nodes["n2"].reg.applied() {
			t.Errorf("%d, %v, want %d", got, err, w.nodes["n2"].reg.applied())
		}
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// believer is the first leader, cut off and too patient to step down, while another leads and has committed more.
func (w *world) believer() (first *process, index uint64) {
	w.t.Helper()
	w.tune = func(c *cluster.Config) {
		if c.ID == "n1" {
			c.Timers = cluster.Timers{Heartbeat: 2 * time.Second, Election: 2 * time.Second, LeaderLease: 2 * time.Second, Commit: 50 * time.Millisecond}
		}
	}
	first = w.form(3)
	for _, other := range []string{"n2", "n3"} {
		w.net.Delay(other, "n1", 150*time.Millisecond)
	}
	time.Sleep(time.Second) // of the bubble's clock: late answers are on their way all the time
	if _, err := first.ReadIndex(w.t.Context()); err != nil {
		w.t.Fatal(err) // the connections for it exist now
	}
	w.net.Cut("n1", "n2")
	w.net.Cut("n1", "n3")
	w.within(2*time.Second, "another leader", func() bool { return w.leaderAmong("n2", "n3") })
	next := w.nodes["n2"]
	if !next.IsLeader() {
		next = w.nodes["n3"]
	}
	index = w.propose(next, "set new")
	if !first.IsLeader() {
		w.t.Fatal("it knows that it was deposed: nothing is tested")
	}
	return first, index
}

// TestDeposedLeaderAnswersNoRead asks a deposed leader that nobody answers any more.
func TestDeposedLeaderAnswersNoRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first, index := w.believer()
		for first.IsLeader() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if got, err := first.ReadIndex(ctx); err == nil {
				t.Fatalf("deposed leader answered %d, %d is acknowledged", got, index)
			}
			cancel()
		}
	})
}

// TestDeposedLeaderBelievesTheVoters asks it when the voters' answers come through again.
func TestDeposedLeaderBelievesTheVoters(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first, index := w.believer()
		type answer struct {
			index uint64
			err   error
		}
		answered := make(chan answer)
		go func() {
			got, err := first.ReadIndex(t.Context())
			answered <- answer{got, err}
		}()
		time.Sleep(10 * time.Millisecond) // of the bubble's clock: the question is under way
		w.net.Heal()
		if a := <-answered; a.err == nil && a.index < index {
			t.Errorf("answered %d, %d is acknowledged", a.index, index)
		}
	})
}

// TestConcurrentReadsShareRounds: many readers cost few questions, and each sees what was acknowledged before it asked.
func TestConcurrentReadsShareRounds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		w.net.SetLatency(5 * time.Millisecond)
		var readers sync.WaitGroup
		for i := range 50 {
			index := w.propose(first, fmt.Sprintf("set %d", i))
			for range 10 {
				readers.Go(func() {
					if got, err := w.nodes["n2"].ReadIndex(t.Context()); err != nil || got < index {
						t.Errorf("%d, %v, want at least %d", got, err, index)
					}
				})
			}
		}
		began := time.Now()
		readers.Wait()
		// 500 questions of 20 ms each would be 10 s; those that came together share two rounds.
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("readers needed %s", took)
		}
	})
}

func TestReadIndexBeforeAnyLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		lonely := w.start("n2") // nobody has bootstrapped it
		if _, err := lonely.ReadIndex(t.Context()); !errors.Is(err, cluster.ErrNoLeader) {
			t.Errorf("read: %v", err)
		}
	})
}
