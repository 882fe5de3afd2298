package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clusterpb"
)

// guestClock runs with the bubble's, until it is frozen or moved.
type guestClock struct {
	mu     sync.Mutex
	origin time.Time
	shift  time.Duration
	frozen time.Duration // where it stands; 0: it runs
}

func (c *guestClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *guestClock) now() time.Duration {
	if c.frozen != 0 {
		return c.frozen
	}
	return time.Since(c.origin) + c.shift
}

func (c *guestClock) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = c.now()
}

func (c *guestClock) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != 0 {
		c.shift, c.frozen = c.frozen-time.Since(c.origin), 0
	}
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

// waitsFor: a leader that does not know what it granted acknowledges nothing for a while.
func (p *process) waitsFor(t *testing.T, index uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var pending *cluster.PendingError
	if _, err := p.AwaitRestriction(ctx, index); !errors.As(err, &pending) {
		t.Errorf("a leader that does not know what it granted: %v", err)
	}
}

// TestALeaderThatSleptWaits: it may have granted what it does not know of, so a restriction waits as after an election.
func TestALeaderThatSleptWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(true)
		leader := w.form(3)
		c.boot[leader.id].jump(time.Minute)
		w.within(200*time.Millisecond, "it notices", func() bool { return c.complaints(leader.id) == 1 })
		index := w.propose(leader, "forbid x")
		leader.waitsFor(t, index)
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

// TestAFrozenGuestDropsItsLease: a node's clocks stand still, all of them, while the others elect a leader, forbid something and
// acknowledge that. Then they go on, and the first that it hears of the new leader ends its lease, nearly three seconds before its own clock
// would. It cannot apply what would let it install another.
func TestAFrozenGuestDropsItsLease(t *testing.T) {
	for name, pick := range map[string]func(*world) *process{
		"the leader": func(w *world) *process { return w.leader() },
		"a follower": func(w *world) *process { return w.follower() },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.clocked(false)
				old := w.form(5)
				frozen := pick(w)
				time.Sleep(2 * time.Second) // of the bubble's clock: everybody renews a few times
				stall := make(chan struct{})
				release := sync.OnceFunc(func() { frozen.reg.stall.Store(nil); close(stall) })
				defer release()
				frozen.reg.stall.Store(&stall)
				c.lease[frozen.id].freeze()
				w.net.Isolate(string(old.id), w.others(old.id)...)
				w.net.Isolate(string(frozen.id), w.others(frozen.id)...)
				leader := w.leader(w.othersOf(old.id, frozen.id)...)
				index := w.propose(leader, "forbid x")
				if _, err := leader.AwaitRestriction(t.Context(), index); err != nil {
					t.Fatal(err)
				}
				if !frozen.Lease().Valid() || c.complaints(frozen.id) != 0 {
					t.Fatal("the test shows nothing: it has found out by itself")
				}
				c.lease[frozen.id].thaw()
				w.net.Heal()
				if frozen != old {
					w.net.Isolate(string(old.id), w.others(old.id)...)
				}
				w.within(2*time.Second, "it learns of the gap", func() bool { return c.complaints(frozen.id) == 1 })
				w.never(time.Second, "a lease beside the old state", func() bool { return frozen.Lease().Valid() })
				w.net.Heal()
				release()
				w.within(10*time.Second, "all hold leases", func() bool { return w.leases() == 5 })
			})
		})
	}
}

// TestAFrozenLeaderForgetsItsEvidence: it was frozen for too short a time to lose its office. The followers' renewals show the gap.
func TestAFrozenLeaderForgetsItsEvidence(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(false)
		leader := w.form(3)
		c.lease[leader.id].jump(-3 * time.Second)
		w.within(time.Second, "its own lease is dropped", func() bool { return !leader.Lease().Valid() })
		index := w.propose(leader, "forbid x")
		leader.waitsFor(t, index)
		w.within(10*time.Second, "all hold leases", func() bool { return w.leases() == 3 })
	})
}

// TestOneWrongClockCostsNobodyElse: a follower's clock that runs away does not keep a leader from acknowledging.
func TestOneWrongClockCostsNobodyElse(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(false)
		leader := w.form(3)
		p := w.follower()
		for range 10 {
			c.lease[p.id].jump(10 * time.Second)
			time.Sleep(time.Second) // of the bubble's clock: it renews
		}
		if c.complaints(leader.id) < 5 || c.log.count(distrusted) != c.complaints(leader.id) {
			t.Errorf("%d complaints, of the leader %d", c.log.count(distrusted), c.complaints(leader.id))
		}
		began := time.Now()
		if _, err := leader.AwaitRestriction(t.Context(), w.propose(leader, "forbid x")); err != nil || time.Since(began) > time.Second {
			t.Errorf("acknowledged after %s: %v", time.Since(began), err)
		}
	})
}

// TestARefusedRenewalShowsClocksToo: it comes from a higher term, or to a node that does not lead. The answer says what that node knows.
func TestARefusedRenewalShowsClocksToo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.clocked(false)
		leader, follower := w.form(3), w.follower()
		from := w.follower(follower.id)
		for _, to := range []*process{leader, follower} {
			peer := rawPeer(t, w, from.id, to.id)
			for seq := range 2 {
				reply, err := peer.Renew(t.Context(), &clusterpb.RenewRequest{
					Node: string(from.id), Boot: "x", Seq: uint64(seq), Term: 1 << 40, Uptime: int64(time.Hour) + int64(seq)*int64(time.Minute),
				})
				if err != nil || reply.GetOutcome() != clusterpb.Outcome_OUTCOME_NOT_LEADER {
					t.Fatalf("%v, %v", reply, err)
				}
				if reply.GetClockOf() == "" || reply.GetClock() <= 0 || !slices.ContainsFunc(reply.GetOthers(), func(r *clusterpb.Reading) bool {
					return r.GetBoot() == "x" && r.GetUptime() >= int64(time.Hour)
				}) {
					t.Errorf("%s says of clocks: %v", to.id, reply)
				}
			}
			if n := c.complaints(to.id); n != 1 {
				t.Errorf("%s complains %d times, want 1", to.id, n)
			}
		}
	})
}
