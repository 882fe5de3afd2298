package cluster_test

import (
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// TestDeadConnectionsCostNoElection: raft keeps connections to who was asked before. Those to a node that has restarted since are dead, and a candidate
// that finds one must not take that for an answer.
func TestDeadConnectionsCostNoElection(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		for range 6 { // so that everybody has led
			w.handOver()
		}
		for round := range 5 {
			old := w.leader()
			rest := w.others(old.id)
			w.net.Reset(rest[0], rest[1])
			time.Sleep(time.Second)
			began := time.Now()
			w.net.Isolate(string(old.id), rest...)
			w.within(10*time.Second, "a leader", func() bool {
				return w.nodes[cluster.NodeID(rest[0])].IsLeader() || w.nodes[cluster.NodeID(rest[1])].IsLeader()
			})
			// Each looks once in one to two heartbeat timeouts whether it has heard nothing for one, and the later to miss it gets the other's vote.
			if took := time.Since(began); took > 3*cluster.LAN().Heartbeat+50*time.Millisecond {
				t.Errorf("round %d: an election took %s", round, took)
			}
			w.net.Heal()
			w.within(10*time.Second, "all hold leases", func() bool { return w.leases() == 3 })
			w.handOver()
		}
	})
}

// handOver makes another node lead.
func (w *world) handOver() {
	w.t.Helper()
	old := w.leader()
	if err := old.StepDown(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.within(10*time.Second, "another leader", func() bool { return w.leader().id != old.id })
	w.within(10*time.Second, "all hold leases", func() bool { return w.leases() == len(w.nodes) })
}
