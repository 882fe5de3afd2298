package cluster_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
)

// brokenLogs is a log store whose disk can fail.
type brokenLogs struct {
	raft.LogStore
	broken atomic.Bool
}

var errDisk = errors.New("input/output error")

func (b *brokenLogs) StoreLogs(l []*raft.Log) error {
	if b.broken.Load() {
		return errDisk
	}
	return b.LogStore.StoreLogs(l)
}

func (b *brokenLogs) StoreLog(l *raft.Log) error { return b.StoreLogs([]*raft.Log{l}) }

// TestFailingDiskEndsRun, on a leader, where raft only steps down, and on a follower, where it only refuses the entries.
func TestFailingDiskEndsRun(t *testing.T) {
	for _, victim := range []cluster.NodeID{"n1", "n3"} {
		t.Run(string(victim), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var disk *brokenLogs
				w.tune = func(c *cluster.Config) {
					if c.ID == victim {
						disk = &brokenLogs{LogStore: c.Storage.Logs}
						storage := *c.Storage
						storage.Logs = disk
						c.Storage = &storage
					}
				}
				first := w.form(3)
				disk.broken.Store(true)
				_, _, err := first.Propose(t.Context(), []byte("set x"))
				if victim == "n1" && !errors.Is(err, cluster.ErrOutcomeUnknown) {
					t.Errorf("propose: %v", err)
				}
				if victim == "n3" && err != nil {
					t.Errorf("propose with a majority of good disks: %v", err)
				}
				p := w.nodes[victim]
				select {
				case <-p.ended:
				case <-time.After(3 * time.Second):
					t.Fatal("it goes on with a broken disk")
				}
				if !errors.Is(p.err, errDisk) {
					t.Errorf("ended with: %v", p.err)
				}
				delete(w.nodes, victim)
				next := w.leader()
				w.propose(next, "set y")
			})
		})
	}
}
