package vault

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// WatchQuery says where a watch begins and what it shows.
type WatchQuery struct {
	From       uint64   // first leaf
	AfterIndex uint64   // with From 0: what entries above this index caused
	FromNow    bool     // with neither: only what comes after the call
	Subject    string   // only events of exactly this subject
	Prefix     string   // only of subjects that begin so
	Actions    []string // only these; one that ends in "." stands for all that begin so
}

func (q WatchQuery) wants(e fsm.Event) bool {
	if q.Subject != "" && e.Subject != q.Subject || !strings.HasPrefix(e.Subject, q.Prefix) {
		return false
	}
	return len(q.Actions) == 0 || slices.ContainsFunc(q.Actions, func(a string) bool {
		return a == e.Action || strings.HasSuffix(a, ".") && strings.HasPrefix(e.Action, a)
	})
}

// WatchBatch is what a watch sends at once. Next is the leaf to go on with: whoever asks for it again, here or at another node, misses
// nothing and hears nothing twice.
type WatchBatch struct {
	Events []fsm.Event
	Next   uint64
	Index  uint64 // of the state that it was read under
}

const (
	// watchBeat is how often a watch without events says how far it has come, so that its reader can tell silence from a dead node.
	watchBeat = 5 * time.Second
	// watchPace is how soon a watch on a node that waits for its unseal asks the leader again.
	watchPace = 100 * time.Millisecond
	// watchTime ends a watch before the bound of every call does: its reader goes on where it was.
	watchTime = 90 * time.Second
	// watchBatch bounds the events of one message; an event is a few hundred bytes.
	watchBatch = 500
)

// Watch sends the events of the lifecycle log, as they are applied here, from where the query says, without a gap: a user those of the
// keys that it may use, an administrator all. It ends with nil after a while, and with an error when this node may not answer any more;
// the caller goes on at the last batch's Next, at any node.
func (v *Vault) Watch(ctx context.Context, c policy.Caller, q WatchQuery, send func(WatchBatch) error) error {
	if len(q.Actions) > maxFilter {
		return fmt.Errorf("%w: %d actions, at most %d", ErrInvalid, len(q.Actions), maxFilter)
	}
	s, err := v.identified(ctx, c)
	if err != nil {
		return err
	}
	leaf, err := v.watchStart(s, q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	return v.stream(ctx, c, q, leaf, send)
}

func (v *Vault) watchStart(s *fsm.State, q WatchQuery) (uint64, error) {
	size := s.Tree().Size
	switch {
	case q.From > size:
		return 0, fmt.Errorf("%w: the log has %d leaves, so the watch cannot begin at %d", ErrInvalid, size, q.From)
	case q.From > 0:
		return q.From, nil
	case q.AfterIndex > 0:
		return v.leafAfter(size, q.AfterIndex)
	case q.FromNow:
		return size, nil
	default:
		return 0, nil
	}
}

// leafAfter finds the first leaf that an entry above index caused: indexes rise with the leaves.
func (v *Vault) leafAfter(size, index uint64) (uint64, error) {
	var failed error
	at := sort.Search(int(size), func(i int) bool {
		events, err := v.readEvents(uint64(i), 1)
		if err != nil || len(events) == 0 {
			failed = err
			return true
		}
		return events[0].Index > index
	})
	return uint64(at), failed
}

// readEvents reads consecutive events from this node's journal.
func (v *Vault) readEvents(leaf uint64, limit int) ([]fsm.Event, error) {
	recs, err := v.cfg.Journal.Read(leaf, limit, maxRecordBytes)
	if err != nil { // damaged, or not fetched yet after a snapshot
		return nil, fmt.Errorf("%w: node %s cannot read the lifecycle log at leaf %d (%w); another node may", guard.ErrUnavailable, v.cfg.Node, leaf, err)
	}
	events := make([]fsm.Event, len(recs))
	for i, r := range recs {
		if events[i], err = fsm.DecodeEvent(r.Data); err != nil {
			return nil, fmt.Errorf("%w: leaf %d of node %s: %w; run: conclave log verify", guard.ErrUnavailable, r.Leaf, v.cfg.Node, err)
		}
	}
	return events, nil
}

// stream is one watch's life: read what is there, send it, wait for more.
func (v *Vault) stream(ctx context.Context, c policy.Caller, q WatchQuery, leaf uint64, send func(WatchBatch) error) error {
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	due := true // the first message says where it begins
	for {
		changed := v.cfg.Replica.Changed() // before the state, so that nothing is missed between
		batch, err := v.watched(ctx, c, q, leaf)
		if err != nil && ctx.Err() != nil {
			return nil // its time ended while the leader was asked
		}
		if err != nil {
			return err
		}
		more := batch.Next > leaf
		if len(batch.Events) > 0 || due {
			if err := send(batch); err != nil {
				return err
			}
			due = false
		}
		if leaf = batch.Next; more && ctx.Err() == nil {
			continue
		}
		select {
		case <-changed:
			if !v.serves(v.state()) {
				pace(ctx)
			}
		case <-beat.C:
			due = true
		case <-ctx.Done():
			return nil
		}
	}
}

// pace keeps a watch that has to ask the leader from asking after each entry.
func pace(ctx context.Context) {
	select {
	case <-time.After(watchPace):
	case <-ctx.Done():
	}
}

// watched reads a batch. What a caller may see is decided by this node's state under its lease, each time: a role that was taken away, or
// a node that may have missed it, ends the watch. A node that waits for its unseal rests on no lease, and asks the leader.
func (v *Vault) watched(ctx context.Context, c policy.Caller, q WatchQuery, leaf uint64) (WatchBatch, error) {
	l := v.cfg.Lease() // first
	fences := v.guard.Fences()
	s := v.state()
	if s.DrainedAt(v.cfg.Node) != 0 {
		return WatchBatch{}, guard.ErrNoLease
	}
	if !v.serves(s) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		var err error
		if s, err = v.current(ctx); err != nil {
			return WatchBatch{}, fmt.Errorf("%w: %w", guard.ErrNoLease, err)
		}
		return v.readWatch(s, c, q, leaf, fences)
	}
	batch, err := v.readWatch(s, c, q, leaf, fences)
	if !l.Valid() { // last: reads the clock
		return batch, guard.ErrNoLease
	}
	return batch, err
}

// readWatch reads a batch as far as a state shows it.
func (v *Vault) readWatch(s *fsm.State, c policy.Caller, q WatchQuery, leaf uint64, fences guard.Fences) (WatchBatch, error) {
	denied := policy.Identify(s, c)
	batch := WatchBatch{Next: leaf, Index: s.Applied()}
	var events []fsm.Event
	if size := s.Tree().Size; denied == nil && leaf < size {
		var err error
		if events, err = v.readEvents(leaf, int(min(size-leaf, watchBatch))); err != nil {
			return batch, err
		}
	}
	for _, e := range events {
		if _, fenced := fences[subjectKey(e)]; fenced { // who may see it is being changed; the rest is read again under the state that has the change
			break
		}
		batch.Next++
		if q.wants(e) && maySee(s, c, e) {
			batch.Events = append(batch.Events, e)
		}
	}
	return batch, denied
}

// maySee: users see what happens to the keys that they may use now.
func maySee(s *fsm.State, c policy.Caller, e fsm.Event) bool {
	if policy.Administer(s, c) == nil {
		return true
	}
	name := subjectKey(e)
	k, found := s.Key(name)
	return name != "" && policy.Use(s, c, k, found) == nil
}

// subjectKey is the key that an event is about; empty if it is about none.
func subjectKey(e fsm.Event) fsm.KeyName {
	name, _ := fsm.SubjectKey(e.Subject)
	return name
}
