package main

import (
	"sync"
	"time"

	"github.com/conclave-vault/conclave/transport/kind"
)

// history is what clients saw. All times are of one clock, this process's monotonic one, since the campaign began.
type history struct {
	began time.Time

	mu           sync.Mutex
	uses         []use
	restrictions []restriction
	pauses       []span // of nodes' processes
	writes       []write
	kills        []kill
	stale        []string
	staleReads   int // that were looked at
	faults       map[string]int
	starts       []time.Duration // of faults, and of the clients' end
	healthy      []time.Duration // revoke latency before any fault
	loaded       []time.Duration // the same, with the load of the campaign
}

func newHistory() *history { return &history{began: time.Now(), faults: map[string]int{}} }

// skew is how far the wall clock, which nodes' records are of, went from the history's clock since the beginning.
func (h *history) skew() time.Duration {
	wall := time.Now().Round(0).Sub(h.began.Round(0))
	return (wall - time.Since(h.began)).Abs()
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// use is one request for a signature, sent to one node once.
type use struct {
	node, subject string // what a restriction names: a key, or a user
	id            string // as the client named the request
	start, end    time.Duration
	signed        bool
	kind          kind.Kind     // of a refusal
	index         uint64        // of the state that decided, as the answer says
	recorded      time.Duration // the time in the node's record: the decision came after it; 0: there is none
}

// restriction is a suspension or a revocation that was acknowledged.
type restriction struct {
	subject, during string // under which fault; empty: none in particular
	sent, acked     time.Duration
	lifted          time.Duration // when the request that lifts it was sent; 0: never
}

// span is from when to when a node's process was stopped: the kernel had said so by `from`, and it could go on from `to`.
type span struct {
	node     string
	from, to time.Duration
}

// write is a key whose creation was acknowledged.
type write struct {
	writer, key string
	acked       time.Duration
}

// kill is a kill -9.
type kill struct {
	node   string
	leader bool
	at     time.Duration // when it was ordered; an engine takes its time
	gone   time.Duration // when it was done
	back   time.Duration // when all nodes served again
}

// note changes the history under its lock.
func (h *history) note(change func(*history)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func (h *history) used(u use) { h.note(func(h *history) { h.uses = append(h.uses, u) }) }

// restricted notes a restriction and returns what notes its end.
func (h *history) restricted(r restriction) (lift func()) {
	i := 0
	h.note(func(h *history) {
		i = len(h.restrictions)
		h.restrictions = append(h.restrictions, r)
	})
	return func() {
		now := h.now()
		h.note(func(h *history) { h.restrictions[i].lifted = now })
	}
}
