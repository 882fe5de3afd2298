package fsm

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Machine applies entries to a working copy and publishes states. One goroutine calls Apply, Publish and Restore; any may
// call State and Applied.
type Machine struct {
	work      *State
	published atomic.Pointer[State]
	applied   atomic.Uint64
}

// New returns a machine with the empty state, published.
func New() *Machine {
	m := &Machine{work: newState()}
	m.Publish()
	return m
}

// State is the one published last.
func (m *Machine) State() *State { return m.published.Load() }

// Applied is the index of the state published last. It is stored after that state can be seen, so whoever reads an index here
// finds everything up to it in State.
func (m *Machine) Applied() uint64 { return m.applied.Load() }

// Publish makes all that was applied visible at once. Its cost does not depend on what the state holds; call it once a batch,
// before any result of the batch is answered.
func (m *Machine) Publish() *State {
	s := m.work.copy()
	m.published.Store(s)
	m.applied.Store(s.applied)
	return s
}

// Apply applies one entry to the working copy, which nobody sees before Publish. Indexes must rise; one that does not is a
// broken invariant of the caller and panics.
//
// The error means "stop the node": ErrUnknownEntry. Everything else is a Result, equal on every replica: bytes that are no
// entry yield CodeInvalid. The events are the leaves to append to the journal, in order; a refused entry yields none, save
// the abort of a ceremony whose time had run out (see expire).
func (m *Machine) Apply(index uint64, data []byte) (Result, []Event, error) {
	if index <= m.work.applied {
		panic(fmt.Sprintf("fsm: applying index %d after %d", index, m.work.applied))
	}
	e, err := DecodeEntry(data)
	if errors.Is(err, ErrUnknownEntry) {
		return Result{}, nil, fmt.Errorf("applying index %d: %w", index, err)
	}
	m.work.applied = index
	if err != nil {
		return refused(err, index), nil, nil
	}
	before := m.work.now
	m.work.advance(e.Time)
	x := &execution{State: m.work, entry: e, index: index}
	result := x.run()
	if x.stop != nil {
		return Result{}, nil, fmt.Errorf("applying index %d: %w", index, x.stop)
	}
	if result.Code != CodeOK && len(x.events) == 0 && m.work.FeatureLevel() < levelOfRigour {
		m.work.now = before // but the requests that it has made forget stay forgotten, so from that level on the time stays, too
	}
	return result, x.events, nil
}

// advance: the log's time never goes back, whatever a new leader's clock says.
func (s *State) advance(t time.Time) {
	if t.After(s.now) {
		s.now = t
	}
}

// Preview says what applying a stamped entry next would yield. It works on a copy and changes nothing; by the time the entry is
// applied the answer may be another.
func (s *State) Preview(e Entry) Result {
	s.copying.Lock()
	scratch := s.copy()
	s.copying.Unlock()
	scratch.applied++
	scratch.advance(e.Time)
	return (&execution{State: scratch, entry: e, index: scratch.applied}).run()
}

// Restore replaces everything by a snapshot, verified first, and publishes it. On an error nothing has changed.
func (m *Machine) Restore(r io.Reader) error {
	s, err := readSnapshot(r)
	if err != nil {
		return err
	}
	m.work = s
	m.Publish()
	return nil
}

// refused turns a command's error into its result. Errors of validators are CodeInvalid.
func refused(err error, index uint64) Result {
	if r, ok := errors.AsType[*refusal](err); ok {
		return Result{Code: r.code, Message: r.message, Index: index}
	}
	return Result{Code: CodeInvalid, Message: err.Error(), Index: index}
}
