package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// overtime is how long a campaign goes on beyond its length because too little has happened: a slow machine needs some of it, and one that
// does nothing at all is told apart.
const overtime = 5 * time.Minute

// faultTime is what one fault may take on a machine that has other things to do; where it has none they take five seconds.
const faultTime = 15 * time.Second

// amount is what a campaign has looked at so far, or must have.
type amount struct {
	faults, judged, states, reads, restrictions int
	signed                                      int // signatures, by the node that gave the fewest
	fewest                                      string
}

// least is what must have happened, or nobody looked: for each fault, or the time that one may take, a fifth to a tenth of what two busy cores did
// per fault; in containers they do no less. A program that is merely slow gets there in the overtime; one that refuses everything never does.
func (s settings) least() amount {
	n := max(1, s.faults, int(s.length/faultTime))
	return amount{faults: n, judged: 40 * n, states: 10 * n, reads: n, restrictions: 2 * n, signed: 40 * n}
}

// lacks says what of least is missing.
func (a amount) lacks(least amount) (missing []string) {
	for _, of := range []struct {
		what      string
		is, least int
	}{
		{"faults", a.faults, least.faults}, {"judged", a.judged, least.judged}, {"states", a.states, least.states}, {"reads", a.reads, least.reads},
		{"restrictions", a.restrictions, least.restrictions}, {"signatures by " + a.fewest, a.signed, least.signed},
	} {
		if of.is < of.least {
			missing = append(missing, fmt.Sprintf("%s %d of %d", of.what, of.is, of.least))
		}
	}
	return missing
}

// amount so far.
func (f *faults) amount() amount {
	a := f.h.amount(f.c.nodes)
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	a.states = len(f.l.states)
	return a
}

// amount of the history. Of what is judged only restrictions count that have ended: what is found about them does not change any more. Those
// that were measured before the first fault are as many as one asks for, and tell nothing of what came then.
func (h *history) amount(nodes []*node) (a amount) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.faults {
		a.faults += n
	}
	ended := slices.DeleteFunc(slices.Clone(h.restrictions), func(r restriction) bool { return r.lifted == 0 })
	a.judged, a.reads = judge(h.uses, ended, h.pauses).judged, h.staleReads
	for _, r := range h.restrictions {
		if r.during != "healthy" {
			a.restrictions++
		}
	}
	signed := map[string]int{}
	for _, u := range h.uses {
		if u.signed {
			signed[u.node]++
		}
	}
	for i, n := range nodes {
		if i == 0 || signed[n.id] < a.signed {
			a.signed, a.fewest = signed[n.id], n.id
		}
	}
	return a
}

// goesOn says whether a campaign that should have ended at end still lacks something; the error is that it goes on lacking it.
func (f *faults) goesOn(least amount, end time.Time) (bool, error) {
	sofar := f.amount()
	missing := sofar.lacks(least)
	switch {
	case missing == nil:
		return false, nil
	case sofar.faults >= least.faults && time.Since(end) > overtime: // each fault is bounded in itself, and any number of them may be asked for
		return false, fmt.Errorf("too little happened, even %s after the end: %s", overtime, strings.Join(missing, ", "))
	}
	return true, nil
}
