package cluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// TestADeadNodeIsGivenUpAtOnce, by the second caller and the tenth as by the first: whoever waits for a connection to a leader that died
// asks no other meanwhile.
func TestADeadNodeIsGivenUpAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		w.stop("n3")
		for i := range 10 {
			began := time.Now()
			_, err := w.nodes["n2"].Call(t.Context(), "n3", "echo", nil)
			if !errors.Is(err, cluster.ErrUnreachable) {
				t.Fatalf("call %d: %v", i, err)
			}
			if took := time.Since(began); took > 400*time.Millisecond {
				t.Errorf("call %d took %s", i, took)
			}
		}
	})
}
