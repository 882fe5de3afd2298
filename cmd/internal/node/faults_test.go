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

// unruly gives each process a clock within the tolerance, most often at one of its ends, and makes logs so short that whoever was away
// gets a snapshot.
func unruly(c *cluster.Config) {
	rate := []float64{0.9, 1.1, 0.9 + 0.2*mathrand.Float64()}[mathrand.IntN(3)]
	c.Clock = skewed{time.Now().Add(-time.Duration(mathrand.Int64N(int64(time.Hour)))), rate}
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 60, 15, 5*time.Second
}

// freeze stops a node's state machine for a while. Its raft goes on, and so does its lease.
func (c *campaign) freeze(victim fsm.NodeID) {
	c.w.gates[victim].close()
	c.pause(between(200*time.Millisecond, 6*time.Second))
	c.w.gates[victim].reopen()
}

// transfer makes the leader hand over; who leads by then, if anybody, decides.
func (c *campaign) transfer() {
	ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
	defer cancel()
	for _, p := range c.w.live() {
		if p.cluster.IsLeader() {
			_ = p.cluster.StepDown(ctx) // it may have lost its office meanwhile
		}
	}
}
