package cluster_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// TestDeposedLeadersStop replaces a leader again and again while entries are on their way to its followers, whose answers then
// come from a higher term. Each must let go of its followers, or it could never stop.
func TestDeposedLeadersStop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.net.SetLatency(time.Millisecond)
		for round := range 20 {
			old := w.leader()
			var proposing sync.WaitGroup
			for i := range 100 {
				proposing.Go(func() {
					time.Sleep(time.Duration(i) * 3 * time.Millisecond) // of the bubble's clock
					_, _, _ = old.Propose(t.Context(), fmt.Appendf(nil, "set %d-%d", round, i))
				})
			}
			time.Sleep(20 * time.Millisecond) // of the bubble's clock
			for _, o := range w.others(old.id) {
				w.net.Cut(string(old.id), o)
			}
			var others []cluster.NodeID
			for _, o := range w.others(old.id) {
				others = append(others, cluster.NodeID(o))
			}
			w.leader(others...)
			w.net.Heal()     // what was on its way arrives now
			proposing.Wait() // the last ones were refused
		}
	})
}
