package node

import (
	"context"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/fsm"
)

// gate stops who passes it while it is closed. The zero gate is open.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // nil: open
	seen atomic.Uint64 // index of the last entry that came to it
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = make(chan struct{})
	}
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open != nil {
		<-open
	}
}

// gatedFSM is a state machine that can be frozen: raft goes on, and what is committed is not applied.
type gatedFSM struct {
	raft.BatchingFSM
	gate *gate
}

func (f gatedFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f gatedFSM) ApplyBatch(logs []*raft.Log) []any {
	f.gate.seen.Store(logs[len(logs)-1].Index)
	f.gate.pass()
	return f.BatchingFSM.ApplyBatch(logs)
}

func (f gatedFSM) Restore(r io.ReadCloser) error { f.gate.pass(); return f.BatchingFSM.Restore(r) }

// skewed is a lease clock that runs at a rate of its own.
type skewed struct {
	origin time.Time
	rate   float64
}

func (s skewed) Now() time.Duration { return time.Duration(float64(time.Since(s.origin)) * s.rate) }

// brief is how long the longer lease lasts in campaigns: longer than the faults, and short enough to be waited for often. The state promises
// a minute, which is only what users are told.
const brief = 15 * time.Second

// unruly gives each process a clock within the tolerance, most often at one of its ends, and makes logs so short that whoever was away
// gets a snapshot.
func unruly(c *cluster.Config) {
	rate := []float64{0.9, 1.1, 0.9 + 0.2*mathrand.Float64()}[mathrand.IntN(3)]
	c.Clock = skewed{time.Now().Add(-time.Duration(mathrand.Int64N(int64(time.Hour)))), rate}
	if mathrand.IntN(2) == 0 { // and another clock, of another kind, that nobody would say disagrees
		c.BootClock = skewed{time.Now().Add(-time.Duration(mathrand.Int64N(int64(time.Hour)))), 0.9 + 0.2*mathrand.Float64()}
	}
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 60, 15, 5*time.Second
}

// fault is what is done to a node, the leader most often.
type fault struct {
	name string
	make func(*campaign, fsm.NodeID)
}

func faults() []fault {
	return []fault{
		{"isolated", func(c *campaign, victim fsm.NodeID) { c.w.isolate(victim); c.recover() }},
		{"not heard", (*campaign).mute},
		{"not hearing", (*campaign).deafen},
		{"link cut", (*campaign).cutOne},
		{"killed", (*campaign).kill},
		{"cloned", (*campaign).clone},
		{"slow answers", (*campaign).slow},
		{"frozen", (*campaign).freeze},
		{"frozen and lost", (*campaign).stun},
		{"leader handed over", (*campaign).transfer},
		{"membership", (*campaign).reorganise},
	}
}

// disturb is the faults: one at a time, with pauses in which everything may recover. They come like cards of a deck, so that none is left out.
func (c *campaign) disturb() {
	defer c.w.heal()
	var deck []fault
	for c.pause(between(500*time.Millisecond, 3*time.Second)) {
		if len(deck) == 0 {
			deck = faults()
			mathrand.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		if c.moves.about() && mathrand.IntN(2) == 0 { // to lose who does not know that keys have moved matters most
			f = fault{"frozen and lost", (*campaign).stun}
		} else {
			deck = deck[1:]
		}
		c.faults.Add(1)
		f.make(c, c.victim())
		c.met.add(f.name)
	}
}

func (c *campaign) victim() fsm.NodeID {
	live := c.w.live()
	victim := live[mathrand.IntN(len(live))]
	if mathrand.IntN(2) == 0 { // the leader matters most
		for _, p := range live {
			if p.cluster.IsLeader() {
				victim = p
			}
		}
	}
	return victim.id
}

func (c *campaign) recover() {
	c.pause(between(200*time.Millisecond, 8*time.Second))
	c.w.heal()
}

// mute: it hears and is not heard.
func (c *campaign) mute(victim fsm.NodeID) {
	for _, id := range c.w.ids() {
		c.w.cut(victim, id)
	}
	c.recover()
}

// deafen: it is heard and does not hear.
func (c *campaign) deafen(victim fsm.NodeID) {
	for _, id := range c.w.ids() {
		c.w.cut(id, victim)
	}
	c.recover()
}

func (c *campaign) cutOne(victim fsm.NodeID) {
	ids := c.w.ids()
	c.w.cut(victim, ids[mathrand.IntN(len(ids))])
	c.recover()
}

func (c *campaign) kill(victim fsm.NodeID) {
	c.w.kill(victim)
	c.pause(between(0, 6*time.Second))
	c.w.restart(victim)
}

// slow delays the answers to a node and then cuts its requests: what is under way arrives when nobody expects it any more.
func (c *campaign) slow(victim fsm.NodeID) {
	ids := c.w.ids()
	delay := between(100*time.Millisecond, 1500*time.Millisecond)
	for _, id := range ids {
		if id != victim {
			c.w.net.Delay(string(id), string(victim), delay)
			defer c.w.net.Delay(string(id), string(victim), 0)
		}
	}
	c.pause(between(0, time.Second))
	for _, id := range ids {
		c.w.cut(victim, id)
	}
	c.pause(between(time.Second, 6*time.Second))
	c.w.heal()
}

// freeze stops a node's state machine for a while. Its raft goes on, and so does its lease.
func (c *campaign) freeze(victim fsm.NodeID) {
	c.stop(victim)
	c.pause(between(200*time.Millisecond, 6*time.Second))
	c.goOn(victim)
}

func (c *campaign) stop(victim fsm.NodeID) { c.w.gates[victim].close(); c.stunned.Store(true) }

func (c *campaign) goOn(victim fsm.NodeID) { c.stunned.Store(false); c.w.gates[victim].reopen() }

// stun stops a node's state machine and then cuts it off: what it has said to keep from it keeps from, and of all else that was ordered
// meanwhile it knows nothing, as long as its lease lasts.
func (c *campaign) stun(victim fsm.NodeID) {
	if all := c.w.followers(); len(all) > 0 && mathrand.IntN(4) > 0 { // without its leader the others would order nothing
		victim = all[mathrand.IntN(len(all))].id
	}
	c.stop(victim)
	c.pause(between(500*time.Millisecond, 4*time.Second))
	c.w.isolate(victim)
	c.pause(between(2*time.Second, 10*time.Second))
	c.goOn(victim) // what raft had handed over before is applied now
	c.recover()
}

// transfer makes the leader hand over; who leads by then, if anybody, decides.
func (c *campaign) transfer(fsm.NodeID) {
	ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
	defer cancel()
	for _, p := range c.w.live() {
		if p.cluster.IsLeader() {
			_ = p.cluster.StepDown(ctx) // it may have lost its office meanwhile
		}
	}
}
