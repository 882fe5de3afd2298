package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/journal"
)

// reads reports whether every record on a node's disk is as its state's root says, and one is about the key. It asks as an auditor
// does, so the node notices what it cannot answer.
func (w *world) reads(id fsm.NodeID, name fsm.KeyName) bool {
	p := w.node(id)
	want := p.replica.State().Tree()
	var tree fsm.Frontier
	found := false
	for tree.Size() < want.Size {
		recs, err := p.vault.ReadRecords(w.ctx(), w.admin, id, tree.Size(), 0)
		if err != nil || len(recs.Records) == 0 {
			return false
		}
		for _, r := range recs.Records {
			e, err := fsm.DecodeEvent(r.Data)
			found = found || err == nil && e.Subject == "key/"+string(name)
			tree.Append(r.Data)
		}
	}
	return found && tree.Root() == want.Root
}

func (w *world) logFolder(id fsm.NodeID) string {
	return filepath.Join(w.config(id).DataDir, journalDir)
}

func (w *world) glob(id fsm.NodeID, pattern ...string) []string {
	w.t.Helper()
	paths, err := filepath.Glob(filepath.Join(append([]string{w.logFolder(id)}, pattern...)...))
	w.must(err)
	return paths
}

// TestDamageIsHealedFromPeers: whatever is done to the log on one node's disk while it runs is found and mended without anybody
// asking, and what was there is kept.
func TestDamageIsHealedFromPeers(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		for _, name := range []fsm.KeyName{"a", "b", "c"} {
			w.create(first, name, hsm.Ed25519)
		}
		if !w.reads("n2", "b") {
			t.Fatal("the log is not whole before anything was done")
		}
		for what, harm := range map[string]func(path string) error{
			"cut":     func(path string) error { return os.Truncate(path, 500) },
			"emptied": func(path string) error { return os.Truncate(path, 0) },
			"removed": os.Remove,
		} {
			for _, path := range w.glob("n2", "*.seg") {
				w.must(harm(path))
			}
			w.within(time.Minute, "healed after it was "+what, func() bool { return w.reads("n2", "b") })
		}
		w.changeRecord("n2", "ey/b")
		w.within(time.Minute, "healed after a byte was changed", func() bool { return w.reads("n2", "b") })
		kept := slices.ContainsFunc(w.glob("n2", "evidence", "*"), func(path string) bool {
			content, err := os.ReadFile(path)
			return err == nil && bytes.Contains(content, []byte("dey/b")) || bytes.Contains(content, []byte("jey/b"))
		})
		if !kept {
			t.Errorf("the changed record is not kept as evidence: %v", w.glob("n2", "evidence", "*"))
		}
		w.create(first, "d", hsm.Ed25519)
		w.within(time.Minute, "it goes on", func() bool { return w.reads("n2", "d") })
	})
}

// TestARewrittenLogIsHealed: a record that was changed together with its hash and with the tree over it fits by itself. Only the root
// in the state and the other nodes' records show it.
func TestARewrittenLogIsHealed(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.kill("n2")
		w.rewrite("n2", "key/pay", "key/lie")
		w.restart("n2")
		w.unseal("n2")
		w.within(time.Minute, "healed", func() bool { return w.reads("n2", "pay") })
		w.serving(3)
	})
}

// rewrite makes the log of a node that is down anew, with one text in place of another of the same length.
func (w *world) rewrite(id fsm.NodeID, from, to string) {
	w.t.Helper()
	dir := w.logFolder(id)
	old, err := journal.Open(dir)
	w.must(err)
	recs, err := old.Read(0, int(old.Next()), 1<<30)
	w.must(err)
	w.must(old.Close())
	w.must(os.RemoveAll(dir))
	forged, err := journal.Open(dir)
	w.must(err)
	for _, r := range recs {
		w.must(forged.Append(r.Leaf, bytes.ReplaceAll(r.Data, []byte(from), []byte(to))))
	}
	w.must(forged.Close())
}
