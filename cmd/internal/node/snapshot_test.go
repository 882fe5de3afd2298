package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
)

// compacting makes raft forget its log quickly.
func compacting(c *cluster.Config) {
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 5, time.Second
}

// outrun makes a node miss so much that it can only be brought back by a snapshot. It stays down.
func (w *world) outrun(id fsm.NodeID) {
	w.t.Helper()
	w.kill(id)
	leader := w.leader()
	for i := range 60 {
		w.create(leader, fsm.KeyName(fmt.Sprintf("missed-%d", i)), hsm.Ed25519)
	}
	last, err := w.storage[id].Logs.LastIndex()
	w.must(err)
	w.within(30*time.Second, "every log is compacted", func() bool {
		for _, p := range w.live() {
			if oldest, err := w.storage[p.id].Logs.FirstIndex(); err != nil || oldest <= last+1 {
				return false
			}
		}
		return true
	})
}

// whole reports whether a node's journal has every leaf up to its state's.
func hasWholeLog(p *process) bool {
	size := p.replica.State().Tree().Size
	from, to := p.journal.Gap(size)
	return size > 0 && from == to
}

// TestAnInstalledSnapshotsEventsAreFetched: the snapshot carries the tree's edge and not its leaves; a peer has those.
func TestAnInstalledSnapshotsEventsAreFetched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tune = compacting
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		before := first.journal.Next()
		w.outrun("n3")
		back := w.restart("n3")
		w.serving(3)
		w.within(10*time.Second, "its journal is whole", func() bool { return hasWholeLog(back) && back.journal.Next() > before+60 })
		snapshots, err := w.storage["n3"].Snapshots.List()
		if err != nil || len(snapshots) == 0 {
			t.Errorf("it was not brought back by a snapshot: %v, %v", snapshots, err)
		}
		if got := len(w.logged(back, "key.create", "")); got != 61 {
			t.Errorf("its disk has %d keys' creations", got)
		}
		w.unseal("n3")
		if !w.signs(back, "missed-7") {
			t.Error("it cannot use what it missed")
		}
		// Its log has a hole now, between what it had and what came after the snapshot.
		w.kill("n3")
		w.restart("n3")
		w.serving(3)
	})
}

// changeRecord turns one byte of the record that mentions a text, in the journal of a running node; done twice it is undone.
func (w *world) changeRecord(id fsm.NodeID, text string) {
	w.t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.config(id).DataDir, journalDir, "*.seg"))
	w.must(err)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		w.must(err)
		at := bytes.Index(content, []byte(text))
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		w.must(err)
		_, err = f.WriteAt([]byte{content[at-1] ^ 1}, int64(at-1)) // before the text, so that it is found again
		w.must(err)
		w.must(f.Close())
		return
	}
	w.t.Fatalf("no record of %s mentions %q", id, text)
}

// TestForgedRecordsAreNotFetched: what a peer offers must lead to the root that the replicated state commits to. Without a peer that
// has a record as it was the gap stays and is not papered over; with one, all nodes are healed from it.
func TestForgedRecordsAreNotFetched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tune = compacting
		w.unsealed(3)
		w.outrun("n3")
		w.changeRecord("n1", "ey/missed-7")
		w.changeRecord("n2", "ey/missed-7")
		back := w.restart("n3")
		w.serving(3)
		w.never(10*time.Second, "forged records are accepted", func() bool { return hasWholeLog(back) })
		w.changeRecord("n2", "ey/missed-7")
		w.within(2*time.Minute, "the honest peer's are", func() bool { return hasWholeLog(back) })
		w.within(5*time.Minute, "the other is healed", func() bool { return w.reads("n1", "missed-7") })
	})
}
