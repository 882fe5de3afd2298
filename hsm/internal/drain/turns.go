package drain

import (
	"context"
	"fmt"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
)

// Master is a backend's master session: anything that embeds *Session.
type Master interface {
	Begin() error
	End()
	Shut() <-chan struct{}
	Drain(context.Context) error
}

// Turns holds the current master session of a token and lets one at a time change it. The zero value is not usable: see NewTurns.
type Turns[M Master] struct {
	admin chan struct{} // holds one value while somebody changes the session, or for ever after Close
	done  chan struct{} // closed by Close: nobody waits for admin any more

	mu      sync.Mutex
	session M
	closed  bool
}

// NewTurns starts with a sealed session.
func NewTurns[M Master](sealed M) *Turns[M] {
	return &Turns[M]{admin: make(chan struct{}, 1), done: make(chan struct{}), session: sealed}
}

// Current is the master session, sealed or not. hsm.ErrClosed.
func (t *Turns[M]) Current() (s M, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return s, hsm.ErrClosed
	}
	return t.session, nil
}

// Enter finds the session and counts an operation in; the caller calls End. The errors of ctx, hsm.ErrClosed, hsm.ErrSealed.
func (t *Turns[M]) Enter(ctx context.Context, operation string) (s M, err error) {
	if err := ctx.Err(); err != nil {
		return s, fmt.Errorf("%s: %w", operation, err)
	}
	if s, err = t.Current(); err != nil {
		return s, err
	}
	return s, s.Begin()
}

// Administer waits for the right to change the session. The errors of ctx, hsm.ErrClosed.
func (t *Turns[M]) Administer(ctx context.Context) (release func(), err error) {
	if _, err := t.Current(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting for the token: %w", err) // select would choose by chance
	}
	select {
	case t.admin <- struct{}{}:
		return func() { <-t.admin }, nil
	case <-t.done:
		return nil, hsm.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the token: %w", ctx.Err())
	}
}

// Drain ends the current session and waits; see Session.Drain. The caller administers.
func (t *Turns[M]) Drain(ctx context.Context) error {
	s, err := t.Current()
	if err != nil {
		return err
	}
	return s.Drain(ctx)
}

// Install makes s the master session, unless the token was closed meanwhile. The caller administers, and has drained the last
// one.
func (t *Turns[M]) Install(s M) error {
	t.mu.Lock()
	if !t.closed {
		t.session = s
		t.mu.Unlock()
		return nil
	}
	t.mu.Unlock()
	s.Shut()
	return hsm.ErrClosed
}

// Seal refuses new work from the first moment, whatever else fails; then forget (nil: nothing to forget) runs alone, with no
// session open; then it waits for the operations under way. Forgetting comes before the wait, because an order to forget must
// not be lost to a slow operation or to a crash while waiting.
func (t *Turns[M]) Seal(ctx context.Context, forget func() error) error {
	if s, err := t.Current(); err == nil {
		s.Shut() // at once: an import may have the turn for a while
	}
	release, err := t.Administer(ctx)
	if err != nil {
		return err
	}
	defer release()
	if forget != nil {
		s, err := t.Current()
		if err != nil {
			return err
		}
		s.Shut() // an import may have opened it meanwhile
		if err := forget(); err != nil {
			return err
		}
	}
	return t.Drain(ctx)
}

// Close ends the session, waits without bound for the operations under way, and takes the turn for ever. It reports false if
// somebody closed before.
func (t *Turns[M]) Close() bool {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return false
	}
	t.closed = true
	close(t.done)
	s := t.session
	t.mu.Unlock()
	<-s.Shut()
	t.admin <- struct{}{}
	return true
}
