package node

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// change is an order about one subject, from when it was given until it was acknowledged; done is 0 if it never was.
type change struct {
	subject     string
	suspends    bool
	begun, done uint64
}

// ordering notes that an order is about to be given, and returns the function that notes its acknowledgement.
func (o *oracle) ordering(subject string, suspends bool) (acknowledged func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := len(o.changes)
	o.changes = append(o.changes, change{subject: subject, suspends: suspends, begun: o.tick()})
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changes[i].done = o.tick()
	}
}

// maxSample of uses of one key are given to porcupine: the latest, when most has happened.
const maxSample = 5000

// step is what a client saw of one subject.
type step uint8

const (
	used step = iota
	suspended
	resumed
)

// switchable is a key as its users see it: on or off.
var switchable = porcupine.Model{
	Init: func() any { return true },
	Step: func(state, input, _ any) (bool, any) {
		switch input.(step) {
		case suspended:
			return true, false
		case resumed:
			return true, true
		default:
			return state.(bool), state
		}
	},
}

// history is everything that was ordered about a subject, and a sample of what was done with it.
func (o *oracle) history(subject string) []porcupine.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []porcupine.Operation
	add := func(what step, from, to uint64) {
		if to == 0 {
			to = math.MaxInt64 // it may have taken effect at any time since, or never will
		}
		all = append(all, porcupine.Operation{ClientId: len(all), Input: what, Call: int64(from), Return: int64(to)})
	}
	for _, c := range o.changes {
		if c.subject == subject {
			add(map[bool]step{true: suspended, false: resumed}[c.suspends], c.begun, c.done)
		}
	}
	taken := 0
	for _, r := range slices.Backward(o.releases) {
		if taken < maxSample && slices.Contains(r.subjects, subject) {
			add(used, r.begun, r.left)
			taken++
		}
	}
	return all
}

// linearizable lets a judge that knows nothing of this project look at samples: every key must have been one switch.
func (c *campaign) linearizable(t *testing.T) {
	t.Helper()
	for i := range campaignKeys {
		subject := "key/" + string(campaignKey(i))
		h := c.o.history(subject)
		// Virtual time stands while it computes, so its time limit is of no use here; the sample's size is the limit.
		if !porcupine.CheckOperations(switchable, h) {
			t.Errorf("the history of %s (%d operations) is not linearizable", subject, len(h))
		}
	}
}

// TestPorcupineJudges: an order and a use that contradict each other, and that do not.
func TestPorcupineJudges(t *testing.T) {
	for name, c := range map[string]struct {
		use func(o *oracle, op *operation, order func())
		ok  bool
	}{
		"used before": {func(_ *oracle, op *operation, order func()) { op.workDone(); op.finish(); order() }, true},
		"at the time": {func(_ *oracle, op *operation, order func()) { op.workDone(); order(); op.finish() }, true},
	} {
		o := newOracle()
		_, op := o.begin(t.Context(), "n1", "x")
		c.use(o, op, func() { o.ordering("x", true)() })
		if got := porcupine.CheckOperationsTimeout(switchable, o.history("x"), time.Minute) == porcupine.Ok; got != c.ok {
			t.Errorf("%s: %t", name, got)
		}
	}
	o := newOracle()
	o.ordering("x", true)()
	_, op := o.begin(t.Context(), "n1", "x")
	op.workDone()
	op.finish()
	if porcupine.CheckOperations(switchable, o.history("x")) {
		t.Error("used after the acknowledgement: not seen")
	}
	o.ordering("x", false)()
	_, op = o.begin(t.Context(), "n1", "x")
	op.workDone()
	op.finish()
	if o.releases = o.releases[1:]; !porcupine.CheckOperations(switchable, o.history("x")) {
		t.Error("used after the end of the restriction: refused")
	}
}
