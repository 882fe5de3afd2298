package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/journal"
)

// Config of a Replica; every field is needed.
type Config struct {
	Journal *journal.Journal
	// Fatal is called once, with the reason, when the node must stop.
	Fatal  func(error)
	Logger *slog.Logger
}

// Replica implements raft.FSM and raft.BatchingFSM.
type Replica struct {
	cfg     Config
	machine *fsm.Machine

	stopped chan struct{}
	stop    sync.Once

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every publish
	hooks   []func(*fsm.State)
	failed  error // sticky; only the applying goroutine and Restore touch it
	damage  *journal.Damage
}

var _ raft.BatchingFSM = (*Replica)(nil)

// New makes a replica with an empty state.
func New(cfg Config) *Replica {
	return &Replica{cfg: cfg, machine: fsm.New(), changed: make(chan struct{}), stopped: make(chan struct{})}
}

// State is the latest published state; immutable.
func (r *Replica) State() *fsm.State { return r.machine.State() }

// Applied is the index of the last entry whose effects State shows.
func (r *Replica) Applied() uint64 { return r.State().Applied() }

// Floor is the index of the last entry that State shows and that nobody may lack who is given a lease.
func (r *Replica) Floor() uint64 { s := r.State(); return max(s.LastRestriction(), s.LastIncumbent()) }

// OnPublish adds a hook that is called after every publish, in the applying goroutine: it must not block.
// All hooks are added before raft starts.
func (r *Replica) OnPublish(hook func(*fsm.State)) { r.hooks = append(r.hooks, hook) }

// ErrStopped: nobody may wait any more, because nothing more may come.
var ErrStopped = errors.New("replica: the node is stopping")

// Stop ends every WaitFor, for good. What raft still applies is applied.
func (r *Replica) Stop() { r.stop.Do(func() { close(r.stopped) }) }

// WaitFor returns the first state for which ok holds, or the context's error, or ErrStopped.
func (r *Replica) WaitFor(ctx context.Context, ok func(*fsm.State) bool) (*fsm.State, error) {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if s := r.State(); ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-r.stopped:
			return nil, ErrStopped
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Changed returns a channel that is closed at the next publish.
func (r *Replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Replica) published(s *fsm.State) {
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	for _, hook := range r.hooks {
		hook(s)
	}
}

// Apply implements raft.FSM. The response is a fsm.Result, or an error if the node is stopping.
func (r *Replica) Apply(l *raft.Log) any { return r.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM.
func (r *Replica) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	var events []fsm.Event
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			out[i] = r.apply(l, &events)
		}
	}
	if err := r.record(events); err != nil && r.failed == nil {
		err = r.fail(fmt.Errorf("recording events of the entries up to %d: %w", logs[len(logs)-1].Index, err))
		for i := range out {
			out[i] = err
		}
	}
	if r.failed == nil {
		r.published(r.machine.Publish())
	}
	return out
}

func (r *Replica) apply(l *raft.Log, events *[]fsm.Event) any {
	if r.failed != nil {
		return r.failed
	}
	result, caused, err := r.machine.Apply(l.Index, l.Data)
	if err != nil {
		return r.fail(fmt.Errorf("applying entry %d: %w", l.Index, err))
	}
	*events = append(*events, caused...)
	return result
}

// record appends a batch's events to the journal in one piece. Damage is no reason to stop: the state and its root are right, and
// what the disk lost or somebody changed is healed from other nodes while this one goes on.
func (r *Replica) record(events []fsm.Event) error {
	if len(events) == 0 {
		return nil
	}
	data := make([][]byte, len(events))
	for i, e := range events {
		data[i] = e.Encode()
	}
	err := r.cfg.Journal.AppendAll(events[0].Leaf, data)
	var damage *journal.Damage
	if !errors.As(err, &damage) {
		return err
	}
	if r.damage == nil {
		r.damage = damage
		r.cfg.Logger.Error("the lifecycle log on this disk is damaged", "leaf", damage.Number, "err", err)
	}
	return nil
}

func (r *Replica) fail(err error) error {
	r.failed = err
	r.cfg.Fatal(err)
	return err
}

// Snapshot implements raft.FSM: it only takes the pointer.
func (r *Replica) Snapshot() (raft.FSMSnapshot, error) {
	if r.failed != nil {
		return nil, r.failed
	}
	return &snapshot{state: r.State(), journal: r.cfg.Journal, fatal: r.cfg.Fatal}, nil
}

// Restore implements raft.FSM.
func (r *Replica) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	if err := r.machine.Restore(rc); err != nil {
		return r.fail(fmt.Errorf("restoring a snapshot: %w", err))
	}
	r.published(r.State())
	return nil
}

type snapshot struct {
	state   *fsm.State
	journal *journal.Journal
	fatal   func(error)
}

// Persist implements raft.FSMSnapshot. raft only logs its error and tries again; a journal that could not be made durable must
// stop the node, because a second fsync may succeed without having written what the first one lost.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	err := s.journal.Sync()
	if err != nil {
		s.fatal(fmt.Errorf("making the lifecycle log durable: %w", err))
	} else {
		err = s.state.WriteSnapshot(sink)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing a snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}
