package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// guestClock runs with the bubble's, until it is moved.
type guestClock struct {
	mu     sync.Mutex
	origin time.Time
	shift  time.Duration
}

func (c *guestClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.origin) + c.shift
}

func (c *guestClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// clocks are those of a world's nodes.
type clocks struct {
	lease, boot map[cluster.NodeID]*guestClock
	log         *lineLog
}

const distrusted = "the clock cannot be relied upon"

// clocked gives every node of a world a lease clock of its own, and a boot time if the clocks of a machine are to be compared.
func (w *world) clocked(boot bool) *clocks {
	c := &clocks{lease: map[cluster.NodeID]*guestClock{}, boot: map[cluster.NodeID]*guestClock{}, log: &lineLog{}}
	w.tune = func(cfg *cluster.Config) {
		c.lease[cfg.ID], c.boot[cfg.ID] = &guestClock{origin: time.Now().Add(-time.Hour)}, &guestClock{origin: time.Now().Add(-time.Minute)}
		cfg.Clock, cfg.BootClock = c.lease[cfg.ID], c.boot[cfg.ID]
		if !boot {
			cfg.BootClock = nil
		}
		cfg.Logger = slog.New(slog.NewTextHandler(c.log, nil))
	}
	return c
}

func (c *clocks) complaints(id cluster.NodeID) int {
	return c.log.count(distrusted, "node="+string(id))
}

// TestAMachineThatSleptDropsItsLease: its boot time went on without the rest. Nobody else tells it: it is cut off.
func TestAMachineThatSleptDropsItsLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(true)
		w.form(3)
		p := w.follower()
		w.net.Isolate(string(p.id), w.others(p.id)...)
		c.boot[p.id].jump(time.Minute)
		w.within(200*time.Millisecond, "its lease is dropped", func() bool { return !p.Lease().Valid() })
		w.net.Heal()
		w.within(10*time.Second, "it has a lease again", func() bool { return p.Lease().Valid() })
		if n := c.log.count(distrusted); n != 1 {
			t.Errorf("%d complaints, want 1", n)
		}
	})
}

// TestALeaderThatSleptWaits: it may have granted what it does not know of, so a restriction waits as after an election.
func TestALeaderThatSleptWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(true)
		leader := w.form(3)
		c.boot[leader.id].jump(time.Minute)
		w.within(200*time.Millisecond, "it notices", func() bool { return c.complaints(leader.id) == 1 })
		index := w.propose(leader, "forbid x")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var pending *cluster.PendingError
		if _, err := leader.AwaitRestriction(ctx, index); !errors.As(err, &pending) {
			t.Errorf("a leader that does not know what it granted: %v", err)
		}
		if _, err := leader.AwaitRestriction(t.Context(), index); err != nil {
			t.Error(err)
		}
	})
}

// TestALeaderWhoseClocksGoOnDisagreeingHandsOver: it could acknowledge nothing.
func TestALeaderWhoseClocksGoOnDisagreeingHandsOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(true)
		leader := w.form(3)
		w.within(5*time.Second, "another leads", func() bool {
			c.boot[leader.id].jump(5 * time.Millisecond) // twice as fast
			return !leader.IsLeader()
		})
		next := w.leader(w.othersOf(leader.id)...)
		if _, err := next.AwaitRestriction(t.Context(), w.propose(next, "forbid x")); err != nil {
			t.Error(err)
		}
	})
}
