package lease

import (
	"slices"
	"time"
)

// Ack is the answer to "may this restriction be acknowledged?".
type Ack struct {
	Done    bool
	Pending []string      // not done: the nodes that may still act against it, sorted
	Expired []string      // done: the nodes that have not reported it and whose leases have run out, sorted
	Next    time.Duration // not done: after this long, time alone may have changed the answer
	Within  time.Duration // not done: after this long, time alone has made it done, unless more leases were granted
}

// Acked evaluates the rule for a restriction of what is used under leases of the kind Serving.
func (t *Table) Acked(index uint64, serving []string) Ack { return t.AckedFor(Serving, index, serving) }

// AckedFor evaluates the rule for the restriction at index, which the leader itself must have applied, of what may be used under
// leases up to a kind: every node of serving, and every other node that still holds a lease of this term, either runs only
// processes that have reported index or put up its fence, or can hold no lease: none of this term that has not run out, and none of an earlier term,
// because it has told this leader what it had left, or because W has passed since the election.
func (t *Table) AckedFor(k Kind, index uint64, serving []string) Ack {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	var a Ack
	for _, node := range t.concerned(serving, now) {
		wait, applied := t.waitAll(k, node, index, now)
		switch {
		case applied:
		case wait < 0:
			a.Expired = append(a.Expired, node)
		default:
			a.Pending = append(a.Pending, node)
			a.Within = max(a.Within, wait)
			if a.Next == 0 || wait < a.Next {
				a.Next = max(wait, 1) // one tick beyond the bound: the rule asks for strictly later
			}
		}
	}
	if a.Done = len(a.Pending) == 0; !a.Done {
		a.Expired = nil
	}
	return a
}

// concerned adds to the serving set whoever left it with a lease in hand.
func (t *Table) concerned(serving []string, now time.Duration) []string {
	all := slices.Clone(serving)
	for node, s := range t.nodes {
		if slices.ContainsFunc(s.boots, func(b *boot) bool { return b.held(now) }) {
			all = append(all, node)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// waitAll is wait for all kinds up to k: a longer lease does not end sooner because a shorter one was granted later, but the
// rule is asked of each.
func (t *Table) waitAll(k Kind, node string, index uint64, now time.Duration) (longest time.Duration, applied bool) {
	longest, applied = -1, true
	unheard := t.actsUnheard(node)
	for kind := range k + 1 {
		wait, has := t.wait(kind, node, unheard, index, now)
		if !has {
			applied, longest = false, max(longest, wait)
		}
	}
	return longest, applied
}

// actsUnheard: the leader's state, which has the restriction, has a process serve that has not renewed here. It may have a lease of an earlier term.
func (t *Table) actsUnheard(node string) bool {
	s := t.nodes[node]
	if s == nil || t.off.has(earlierProcess) {
		return false // nothing is known of any
	}
	boot, _ := t.incumbent(node)
	return boot != "" && !s.knows(boot)
}

// wait returns whether the node has applied index, and if not how long it may still hold a lease; below zero if it cannot.
func (t *Table) wait(k Kind, node string, unheard bool, index uint64, now time.Duration) (time.Duration, bool) {
	s := t.nodes[node]
	if s == nil || len(s.boots) == 0 {
		if t.off.has(waitAfterElection) {
			return -1, false
		}
		return remaining(t.sinceElection()[k], now), false
	}
	last, behind := time.Duration(0), false
	before := s.before[k]
	if unheard {
		before = max(before, t.sinceElection()[k])
	}
	if now <= before {
		last, behind = before, true
	}
	for i, b := range s.boots {
		latest, bound := i == len(s.boots)-1, b.bound(k)
		if b.applied >= index || b.behindFence(index, t.off.has(exactFence)) || !(latest || now <= bound) {
			continue
		}
		behind = true
		last = max(last, bound)
	}
	if t.off.has(waitForExpiry) {
		return -1, !behind
	}
	return remaining(last, now), !behind
}

// remaining is below zero when now is strictly after the bound, else the time until it is.
func remaining(bound, now time.Duration) time.Duration {
	if now > bound {
		return -1
	}
	return bound - now + 1
}

// Report is what a node last said of itself in this term.
type Report struct {
	Applied uint64
	Age     time.Duration // since it said so
}

// Reported returns what the node's latest process reported in this term; false if none has.
func (t *Table) Reported(node string) (Report, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.nodes[node]
	if s == nil || len(s.boots) == 0 {
		return Report{}, false
	}
	latest := s.boots[len(s.boots)-1]
	return Report{Applied: latest.applied, Age: t.clock.Now() - latest.seen}, true
}

// Drained reports that the node can hold no lease, of this term or of an earlier one. It stays so only while its renewals
// are refused.
func (t *Table) Drained(node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	for _, last := range t.sinceElection() {
		if now <= last {
			return false
		}
	}
	s := t.nodes[node]
	return s == nil || !slices.ContainsFunc(s.boots, func(b *boot) bool { return b.held(now) })
}
