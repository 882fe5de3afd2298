package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

func TestCalls(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		for _, to := range []cluster.NodeID{"n1", "n2", "n3"} {
			got, err := w.nodes["n2"].Call(t.Context(), to, "echo", []byte("hello"))
			if want := "n2 to " + string(to) + ": hello"; err != nil || string(got) != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			var remote *cluster.RemoteError
			if _, err := w.nodes["n2"].Call(t.Context(), to, "nonsense", nil); !errors.As(err, &remote) || remote.Message != "no such kind" {
				t.Errorf("handler's error: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := w.nodes["n2"].Call(ctx, to, "wait", nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("deadline: %v", err)
			}
			cancel()
		}
		if _, err := w.nodes["n2"].Call(t.Context(), "n9", "echo", nil); !errors.Is(err, cluster.ErrUnknownNode) {
			t.Errorf("unknown node: %v", err)
		}
		if _, err := w.nodes["n2"].Call(t.Context(), "n1", "echo", make([]byte, cluster.MaxMessageBytes+1)); !errors.Is(err, cluster.ErrTooLarge) {
			t.Errorf("oversized call: %v", err)
		}
		large := make([]byte, cluster.MaxMessageBytes-100)
		if got, err := w.nodes["n2"].Call(t.Context(), "n1", "echo", large); err != nil || len(got) < len(large) {
			t.Errorf("largest call: %d bytes, %v", len(got), err)
		}
	})
}

func TestUnreachableNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.kill("n3")
		if _, err := w.nodes["n2"].Call(t.Context(), "n3", "echo", nil); !errors.Is(err, cluster.ErrUnreachable) || errors.Is(err, cluster.ErrOutcomeUnknown) {
			t.Errorf("dead node: %v", err)
		}
	})
}

// TestBrokenCallIsNotRepeated: the answer is lost, so nobody knows whether it was handled; once is what it may be.
func TestBrokenCallIsNotRepeated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(3)
		failed := make(chan error)
		go func() {
			_, err := w.nodes["n2"].CallLeader(t.Context(), "wait", nil)
			failed <- err
		}()
		w.within(time.Second, "the call to arrive", func() bool { return first.calls.count() == 1 })
		w.kill("n1")
		if err := <-failed; !errors.Is(err, cluster.ErrOutcomeUnknown) {
			t.Errorf("broken call: %v", err)
		}
		if n := w.nodes["n2"].calls.count() + w.nodes["n3"].calls.count(); n != 0 {
			t.Errorf("it was handled %d times more", n)
		}
	})
}

func TestCallLeaderFromAnywhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		for id, p := range w.nodes {
			if _, err := p.CallLeader(t.Context(), "propose", []byte("set "+string(id))); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

// TestCallLeaderWaitsForTheElection asks at the moment at which the leader is cut off: the first answer is that nobody knows
// what became of the call, and the next call finds the new leader.
func TestCallLeaderWaitsForTheElection(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		if _, err := w.nodes["n2"].CallLeader(t.Context(), "echo", nil); err != nil {
			t.Fatal(err) // the connection exists now
		}
		w.net.Isolate("n1", "n2", "n3")
		began := time.Now()
		_, err := w.nodes["n2"].CallLeader(t.Context(), "echo", nil)
		if !errors.Is(err, cluster.ErrOutcomeUnknown) {
			t.Errorf("call to a leader that is cut off: %v", err)
		}
		if _, err := w.nodes["n2"].CallLeader(t.Context(), "echo", nil); err != nil {
			t.Errorf("call to its successor: %v", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
		if _, err := w.nodes["n3"].ReadIndex(t.Context()); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}

// TestReadGoesOnWithTheNextLeader: a question can be asked again, so its caller does not notice.
func TestReadGoesOnWithTheNextLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.Isolate("n1", "n2", "n3")
		w.within(3*time.Second, "reads to go on", func() bool {
			_, err := w.nodes["n2"].ReadIndex(t.Context())
			return err == nil
		})
	})
}

func (w *world) leaderAmong(ids ...cluster.NodeID) bool {
	for _, id := range ids {
		if w.nodes[id].IsLeader() {
			return true
		}
	}
	return false
}

func TestNoLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		w.within(5*time.Second, "no leader", func() bool { return !w.leaderAmong("n1", "n2", "n3") })
		began := time.Now()
		if _, err := w.nodes["n2"].CallLeader(t.Context(), "echo", nil); !errors.Is(err, cluster.ErrNoLeader) {
			t.Errorf("call: %v", err)
		}
		if took := time.Since(began); took > 2500*time.Millisecond {
			t.Errorf("the call took %s to give up", took)
		}
		if _, err := w.nodes["n2"].ReadIndex(t.Context()); !errors.Is(err, cluster.ErrNoLeader) {
			t.Errorf("read: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := w.nodes["n2"].ReadIndex(ctx); !errors.Is(err, cluster.ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read with a deadline: %v", err)
		}
	})
}

// TestHandlerThatLostItsOffice: ErrNotLeader from the handler means that nothing was done, so the call goes on to the leader.
func TestHandlerThatLostItsOffice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refusals := 0
		w.tune = func(c *cluster.Config) {
			inner := c.Handler
			c.Handler = func(ctx context.Context, from cluster.NodeID, kind string, payload []byte) ([]byte, error) {
				if refusals < 1 {
					refusals++
					return nil, cluster.ErrNotLeader
				}
				return inner(ctx, from, kind, payload)
			}
		}
		w.form(3)
		got, err := w.nodes["n2"].CallLeader(t.Context(), "echo", []byte("x"))
		if err != nil || string(got) != "n2 to n1: x" || refusals != 1 {
			t.Errorf("%q, %v after %d refusals", got, err, refusals)
		}
	})
}

// TestLoadDoesNotStarveRenewals fills every place for calls; leases and reads go on.
func TestLoadDoesNotStarveRenewals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		const calls = 700
		for i := range calls {
			go func() {
				from := w.nodes[[]cluster.NodeID{"n2", "n3"}[i%2]]
				_, _ = from.Call(ctx, "n1", "wait", nil) // ends with ctx
				ended <- struct{}{}
			}()
		}
		w.within(time.Second, "every place taken", func() bool { return w.nodes["n1"].calls.count() == 512 })
		w.never(10*time.Second, "a lease lost", func() bool { return w.leases() != 3 })
		if _, err := w.nodes["n2"].ReadIndex(t.Context()); err != nil {
			t.Errorf("read under load: %v", err)
		}
		cancel()
		for range calls {
			<-ended
		}
	})
}
