package vault

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurnEndsWithTheContext in a bubble, whose clock stands still for as long as anybody waits for a mutex.
func TestTurnEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newTurn()
		if !u.tryTake() || u.tryTake() {
			t.Fatal("the first has it, and no second")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := u.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, while somebody else has it", err)
		}
		taken := make(chan error)
		go func() { taken <- u.take(t.Context()) }()
		synctest.Wait()
		u.give()
		if err := <-taken; err != nil || u.tryTake() {
			t.Errorf("the one who waited got %v, and not the turn", err)
		}
		u.give()
		if err := u.take(ctx); err != nil {
			t.Errorf("%v, of a turn that nobody has", err)
		}
	})
}
