package main

import (
	"fmt"
	"slices"
	"time"
)

// overtime is how long a campaign goes on beyond its length because too little has happened: a slow machine needs some of it, and one that
// does nothing at all is told apart.
const overtime = 5 * time.Minute

// amount is what a campaign has looked at so far, or must have.
type amount struct {
	faults, judged, states, reads, restrictions int
}

// reaches reports whether nothing of least is missing.
func (a amount) reaches(least amount) bool {
	return a.faults >= least.faults && a.judged >= least.judged && a.states >= least.states && a.reads >= least.reads && a.restrictions >= least.restrictions
}

func (a amount) String() string {
	return fmt.Sprintf("%d faults, %d judged, %d states, %d reads, %d restrictions", a.faults, a.judged, a.states, a.reads, a.restrictions)
}

// amount so far. Of what is judged only restrictions count that have ended: what is found about them does not change any more.
func (f *faults) amount() amount {
	a := f.h.amount()
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	a.states = len(f.l.states)
	return a
}

func (h *history) amount() (a amount) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.faults {
		a.faults += n
	}
	ended := slices.DeleteFunc(slices.Clone(h.restrictions), func(r restriction) bool { return r.lifted == 0 })
	a.judged = judge(h.uses, ended, h.pauses).judged
	a.reads, a.restrictions = h.staleReads, len(h.restrictions)
	return a
}

// goesOn says whether a campaign that should have ended at end still lacks something; the error is that it goes on lacking it.
func (f *faults) goesOn(least amount, end time.Time) (bool, error) {
	sofar := f.amount()
	switch {
	case sofar.reaches(least):
		return false, nil
	case sofar.faults >= least.faults && time.Since(end) > overtime: // each fault is bounded in itself, and any number of them may be asked for
		return false, fmt.Errorf("too little happened, even %s after the end: %s; wanted are %s", overtime, sofar, least)
	}
	return true, nil
}
