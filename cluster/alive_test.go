package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
)

// soon is longer than any loop that turns needs to answer.
const soon = 2 * time.Second

func alive(t *testing.T, p *process) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return p.Alive(ctx)
}

// TestAliveNeedsNoQuorum: the leader, a follower, and each of them cut off from all others take part; one that ended does not.
func TestAliveNeedsNoQuorum(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		leader, follower := w.leader(), w.follower()
		for _, p := range []*process{leader, follower} {
			if err := alive(t, p); err != nil {
				t.Errorf("%s, leader %t: %v", p.id, p.IsLeader(), err)
			}
			w.net.Isolate(string(p.id), w.others(p.id)...)
			for range 20 { // before and after it notices
				if err := alive(t, p); err != nil {
					t.Errorf("%s, cut off: %v", p.id, err)
				}
				time.Sleep(100 * time.Millisecond) // of the bubble's clock
			}
			w.net.Heal()
			w.leader()
		}
		w.stop(follower.id)
		if err := alive(t, follower); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// stuckDisk is a log store whose writes hang until gate is closed.
type stuckDisk struct {
	raft.LogStore
	gate chan struct{}
}

func (d stuckDisk) StoreLogs(logs []*raft.Log) error {
	<-d.gate
	return d.LogStore.StoreLogs(logs)
}

// TestAliveSeesAStuckLoop: a disk that hangs stops raft's loop while the process looks well; when it goes on, so does the node.
func TestAliveSeesAStuckLoop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		id := w.follower().id
		w.stop(id)
		gate := make(chan struct{})
		w.tune = func(c *cluster.Config) {
			storage := *c.Storage
			storage.Logs = stuckDisk{storage.Logs, gate}
			c.Storage = &storage
		}
		p := w.start(id)
		w.propose(w.leader(w.othersOf(id)...), "set x")
		w.within(10*time.Second, "the loop is stuck", func() bool { return errors.Is(alive(t, p), context.DeadlineExceeded) })
		for range 3 { // none of those who ask in vain stays behind: the bubble would say so
			if err := alive(t, p); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stuck: %v", err)
			}
		}
		close(gate)
		w.within(10*time.Second, "it goes on", func() bool { return alive(t, p) == nil })
	})
}

// othersOf are all nodes but some.
func (w *world) othersOf(some ...cluster.NodeID) []cluster.NodeID {
	var all []cluster.NodeID
	for id := range w.nodes {
		if !contains(some, id) {
			all = append(all, id)
		}
	}
	return all
}
