package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// futures waits for raft's futures without ever hanging on one, and counts those outstanding: raft answers none that are still
// queued when it shuts down, so they are counted out first.
type futures struct {
	mu     sync.Mutex
	open   int
	closed bool
	left   *signal
}

func newFutures() *futures { return &futures{left: newSignal()} }

// await runs start, which may block until raft takes the request, and waits for its future or for ctx. An error of await
// itself (not of the future) is ctx's, or ErrStopped if nothing was started.
func (f *futures) await(ctx context.Context, start func() raft.Future) (raft.Future, error) {
	if !f.enter() {
		return nil, ErrStopped
	}
	answered := make(chan raft.Future, 1)
	go func() { // ends with the future; drain waits for it
		defer f.leave()
		future := start()
		_ = future.Error() // remembered by the future
		answered <- future
	}()
	select {
	case future := <-answered:
		return future, future.Error()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *futures) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.open++
	return true
}

func (f *futures) leave() {
	f.mu.Lock()
	f.open--
	f.mu.Unlock()
	f.left.Broadcast()
}

func (f *futures) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// drain refuses new requests and waits for the outstanding ones, at most for limit: a leader without a majority loses its
// office and answers all within its leader lease; only a stuck state machine takes longer.
func (f *futures) drain(limit time.Duration) bool {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		left := f.left.Wait()
		if f.count() == 0 {
			return true
		}
		select {
		case <-left:
		case <-timer.C:
			return false
		}
	}
}

// outcome translates an error of raft into what a proposer must know: was it certainly not done?
func outcome(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrStopped):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrBusy
	default: // leadership lost, shutdown, a failing disk, the caller's deadline: the entry may be in a log
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}
