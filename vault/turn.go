package vault

import "context"

// turn lets one in at a time, as a mutex does. It can be waited for no longer than a context lasts, because whoever has it may be waiting for a
// commit.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits if it must. An error is the context's; then there is nothing to give back.
func (t turn) take(ctx context.Context) error {
	if t.tryTake() { // also for whose context has ended
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) give() {
	select {
	case <-t:
	default:
		panic("vault: a turn is given back that nobody has")
	}
}
