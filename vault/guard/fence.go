package guard

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/conclave-vault/conclave/fsm"
)

var (
	// ErrFenced: a restriction of the key is committed that this node has not applied yet.
	ErrFenced = errors.New("a restriction of this key is on its way to this node")
	// errFences: there are too many of them.
	errFences = errors.New("too many fences")
)

// maxFences bounds the keys behind a fence. A restriction without one is acknowledged a moment later.
const maxFences = 1024

// fences are the keys that must not be used before the state has an index. A fence goes up before the leader hears that it is up, and down
// only after a state with that index is visible: who loads the fence first and the state then sees one of the two.
type fences struct {
	mu sync.Mutex
	up atomic.Pointer[Fences] // nil, most of the time: none. A map is never changed
}

func (f *fences) raise(name fsm.KeyName, index uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := Fences{}
	if old := f.up.Load(); old != nil {
		next = maps.Clone(*old)
	}
	if _, has := next[name]; !has && len(next) >= maxFences {
		return errFences
	}
	next[name] = max(next[name], index)
	f.up.Store(&next)
	return nil
}

// lower takes down what a visible state makes needless.
func (f *fences) lower(applied uint64) {
	if f.up.Load() == nil { // it is asked for every state
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.up.Load()
	if old == nil { // somebody else has taken down the last
		return
	}
	next := maps.Clone(*old)
	maps.DeleteFunc(next, func(_ fsm.KeyName, index uint64) bool { return index <= applied })
	if len(next) == 0 {
		f.up.Store(nil)
		return
	}
	f.up.Store(&next)
}

func (f *fences) block(name fsm.KeyName) bool {
	up := f.up.Load()
	if up == nil {
		return false
	}
	_, blocked := (*up)[name]
	return blocked
}

// Fence keeps from a key until the state includes index. When it returns nil no use releases a result any more whose deciding check comes
// later and sees a state before it.
func (g *Guard) Fence(name fsm.KeyName, index uint64) error {
	if err := g.fences.raise(name, index); err != nil {
		return fmt.Errorf("fence of %s at %d: %w", name, index, err)
	}
	g.fences.lower(g.cfg.State().Applied()) // it may have come while the fence went up
	return nil
}

// Fences are the keys behind one, as they are when it is called: load them before the state. What it returns is nil where there is none.
func (g *Guard) Fences() Fences {
	if up := g.fences.up.Load(); up != nil {
		return *up
	}
	return nil
}

// Fences are keys of which a restriction is committed that the state may not have yet, with its index.
type Fences map[fsm.KeyName]uint64

// Unfence is told of every state once it is visible.
func (g *Guard) Unfence(s *fsm.State) { g.fences.lower(s.Applied()) }
