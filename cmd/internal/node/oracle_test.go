package node

import (
	"context"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

// oracle puts what happens into one order, which all goroutines of a bubble share, and judges it by the promise: after a
// restriction is acknowledged, and until its lifting is ordered, no result is released whose deciding check came later. A check
// comes after the HSM's work, so a result is judged by the moment at which that ended.
type oracle struct {
	clock atomic.Uint64

	mu       sync.Mutex
	windows  map[string][]window // by what is restricted, in order
	releases []release
	changes  []change
	drafts   []release // what a node without a second check would have released
}

// window is while a restriction is in force for certain; lift is 0 while nobody has ordered that it end.
type window struct{ ack, lift uint64 }

// release is a result that left a node. It may rest on a state at any moment between worked and left.
type release struct {
	subjects            []string
	node                string
	begun, worked, left uint64
}

func newOracle() *oracle { return &oracle{windows: map[string][]window{}} }

func (o *oracle) tick() uint64 { return o.clock.Add(1) }

func (o *oracle) acknowledged(subject string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.windows[subject] = append(o.windows[subject], window{ack: o.tick()})
}

// lifting must be called before the order that lifts is given.
func (o *oracle) lifting(subject string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if all := o.windows[subject]; len(all) > 0 && all[len(all)-1].lift == 0 {
		all[len(all)-1].lift = o.tick()
	}
}

func (o *oracle) acks() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, all := range o.windows {
		n += len(all)
	}
	return n
}

// operation is one use of a key under watch. Its context carries it to the HSM and back.
type operation struct {
	o      *oracle
	what   release
	worked bool
}

type operationKey struct{}

func (o *oracle) begin(ctx context.Context, node string, subjects ...string) (context.Context, *operation) {
	op := &operation{o: o, what: release{subjects: subjects, node: node, begun: o.tick()}}
	return context.WithValue(ctx, operationKey{}, op), op
}

// finish records a result that was released.
func (op *operation) finish() {
	op.what.left = op.o.tick()
	op.o.mu.Lock()
	defer op.o.mu.Unlock()
	op.o.releases = append(op.o.releases, op.what)
}

func (op *operation) workDone() {
	op.what.worked, op.worked = op.o.tick(), true
	draft := op.what
	draft.left = op.o.tick()
	op.o.mu.Lock()
	defer op.o.mu.Unlock()
	op.o.drafts = append(op.o.drafts, draft)
}

// violations are the releases that the promise forbids.
func (o *oracle) violations() []release { return o.judge(func() []release { return o.releases }) }

func (o *oracle) draftViolations() []release { return o.judge(func() []release { return o.drafts }) }

func (o *oracle) judge(which func() []release) []release {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(which()), func(r release) bool {
		return !slices.ContainsFunc(r.subjects, func(s string) bool { return o.forbids(s, r) })
	})
}

func (o *oracle) forbids(subject string, r release) bool {
	return slices.ContainsFunc(o.windows[subject], func(w window) bool {
		return w.ack < r.worked && (w.lift == 0 || r.left < w.lift)
	})
}

func (o *oracle) released() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.releases)
}

// watchedKeys is a token whose signatures take their time, and that tells the oracle when one is made.
type watchedKeys struct {
	guard.KeyUse
	delay func()
}

func (k watchedKeys) Open(ctx context.Context, w hsm.WrappedKey) (guard.Key, error) {
	key, err := k.KeyUse.Open(ctx, w)
	if err != nil {
		return nil, err
	}
	return watchedKey{key, k.delay}, nil
}

type watchedKey struct {
	guard.Key
	delay func()
}

func (k watchedKey) Sign(ctx context.Context, in hsm.SignInput) ([]byte, error) {
	signature, err := k.Key.Sign(ctx, in)
	k.delay()
	tell(ctx, err)
	return signature, err
}

func (k watchedKey) MAC(ctx context.Context, data []byte) ([]byte, error) {
	mac, err := k.Key.MAC(ctx, data)
	if mathrand.IntN(1000) == 0 { // there are many of them
		k.delay()
	}
	tell(ctx, err)
	return mac, err
}

// tell the oracle that the HSM has done its work.
func tell(ctx context.Context, err error) {
	if op, ok := ctx.Value(operationKey{}).(*operation); ok && err == nil {
		op.workDone()
	}
}

// TestOracle: the judge itself, at every edge of a window.
func TestOracle(t *testing.T) {
	for name, c := range map[string]struct {
		during    func(o *oracle, work func(), leave func())
		violation bool
	}{
		"before":                {func(o *oracle, work, leave func()) { work(); leave(); o.acknowledged("x") }, false},
		"checked before":        {func(o *oracle, work, leave func()) { work(); o.acknowledged("x"); leave() }, false},
		"within":                {func(o *oracle, work, leave func()) { o.acknowledged("x"); work(); leave() }, true},
		"another's restriction": {func(o *oracle, work, leave func()) { o.acknowledged("y"); work(); leave() }, false},
		"left after the lift":   {func(o *oracle, work, leave func()) { o.acknowledged("x"); work(); o.lifting("x"); leave() }, false},
		"within the second": {func(o *oracle, work, leave func()) {
			o.acknowledged("x")
			o.lifting("x")
			o.acknowledged("x")
			work()
			leave()
			o.lifting("x")
		}, true},
		"between two": {func(o *oracle, work, leave func()) {
			o.acknowledged("x")
			o.lifting("x")
			work()
			leave()
			o.acknowledged("x")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle()
			_, op := o.begin(t.Context(), "n1", "x", "z")
			c.during(o, op.workDone, op.finish)
			if got := len(o.violations()) > 0; got != c.violation {
				t.Errorf("violation %t, want %t", got, c.violation)
			}
		})
	}
}
