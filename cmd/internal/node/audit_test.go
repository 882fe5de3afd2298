package node

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/usage"
)

// audit ends every test: all live nodes reach one index with equal digests and nothing pending, and after they have ended the
// journal on each disk yields the tree that the state commits to, and the usage log on each is whole.
func (w *world) audit() {
	w.t.Helper()
	w.heal()
	states := w.settled()
	w.within(time.Minute, "every journal is whole", func() bool {
		for _, p := range w.live() {
			if from, to := p.journal.Gap(states[p.id].Tree().Size); from != to {
				return false
			}
		}
		return true
	})
	w.stopAll()
	for id, s := range states {
		w.recompute(id, s.Tree())
		w.usesOf(id)
	}
}

// usesOf walks through the usage log on a node's disk.
func (w *world) usesOf(id fsm.NodeID) (all []usage.Entry) {
	w.t.Helper()
	_, err := usage.Walk(filepath.Join(w.config(id).DataDir, usageDir), func(e usage.Entry) error {
		if e.Kind == usage.KindUse {
			all = append(all, e)
		}
		return nil
	})
	w.must(err)
	return all
}

// settled waits until every live node shows one index, and compares there.
func (w *world) settled() map[fsm.NodeID]*fsm.State {
	w.t.Helper()
	var states map[fsm.NodeID]*fsm.State
	w.within(3*time.Minute, "all nodes at one index, no barrier pending", func() bool {
		states = map[fsm.NodeID]*fsm.State{}
		for _, p := range w.live() {
			states[p.id] = p.replica.State()
		}
		return agree(slices.Collect(maps.Values(states)))
	})
	var first *fsm.State
	for id, s := range states {
		if first == nil {
			first = s
		}
		if s.Digest() != first.Digest() {
			w.t.Errorf("%s: digest %x at index %d, another node has %x", id, s.Digest(), s.Applied(), first.Digest())
		}
	}
	return states
}

func agree(states []*fsm.State) bool {
	return !slices.ContainsFunc(states, func(s *fsm.State) bool {
		return s.Applied() != states[0].Applied() || len(s.PendingBarriers()) > 0
	})
}

// recompute builds the tree from the records of a node that has ended. A node that went on after its index was noted has more
// records, never others.
func (w *world) recompute(id fsm.NodeID, want fsm.Tree) {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.config(id).DataDir, journalDir))
	w.must(err)
	defer func() { w.must(j.Close()) }()
	var tree fsm.Frontier
	for tree.Size() < want.Size {
		records, err := j.Read(tree.Size(), int(want.Size-tree.Size()), 1<<30)
		if err != nil || len(records) == 0 {
			w.t.Errorf("%s: the journal ends at leaf %d of %d: %v", id, tree.Size(), want.Size, err)
			return
		}
		for _, r := range records {
			tree.Append(r.Data)
		}
	}
	if tree.Root() != want.Root {
		w.t.Errorf("%s: the journal's root is %x, the state's %x", id, tree.Root(), want.Root)
	}
}
