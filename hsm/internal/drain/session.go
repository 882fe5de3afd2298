package drain

import (
	"context"
	"fmt"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
)

// Session counts the operations under way on a master session, those of its copies included; told to shut, it refuses new ones
// and is destroyed by whoever ends the last. It is safe for concurrent use.
type Session struct {
	hsm.Redacted
	destroy func()

	mu       sync.Mutex
	closing  bool
	finished bool // the destroying has begun
	active   int
	copies   map[*Copy]struct{}
	drained  chan struct{} // closed when everything is destroyed
}

// NewSession starts an open session. destroy is called once, when nothing uses the session any more.
func NewSession(destroy func()) *Session {
	return &Session{destroy: destroy, copies: make(map[*Copy]struct{}), drained: make(chan struct{})}
}

// Sealed stands for "no master": it refuses everything.
func Sealed() *Session {
	s := &Session{closing: true, finished: true, drained: make(chan struct{})}
	close(s.drained)
	return s
}

// Begin counts an operation in; the caller calls End. hsm.ErrSealed.
func (s *Session) Begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return hsm.ErrSealed
	}
	s.active++
	return nil
}

// End counts an operation out.
func (s *Session) End() {
	s.mu.Lock()
	s.active--
	finish := s.last()
	s.mu.Unlock()
	finish()
}

// last gives what the caller does after it has let go of s.mu: destroy the session if nothing is left to wait for, else nothing.
func (s *Session) last() (finish func()) {
	if !s.closing || s.active > 0 || s.finished {
		return func() {}
	}
	s.finished = true
	copies := s.copies
	s.copies = nil
	return func() {
		for c := range copies {
			c.destroy()
		}
		s.destroy()
		close(s.drained)
	}
}

// Shut refuses new operations from now on. The channel is closed when the last one has ended and everything is destroyed.
func (s *Session) Shut() <-chan struct{} {
	s.mu.Lock()
	s.closing = true
	finish := s.last()
	s.mu.Unlock()
	finish()
	return s.drained
}

// Drain shuts and waits. After an error of ctx the session still ends by itself, with its last operation.
func (s *Session) Drain(ctx context.Context) error {
	drained := s.Shut()
	select {
	case <-drained:
		return nil
	default:
	}
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for operations under way: %w", ctx.Err())
	}
}

// Adopt registers a working copy, which destroy destroys. The caller is counted in, so the session cannot end before the copy
// belongs to it.
func (s *Session) Adopt(destroy func()) *Copy {
	c := &Copy{session: s, destroy: destroy}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[c] = struct{}{}
	return c
}

// Copy counts the operations of one working copy. Its fields are guarded by the session's lock, so that an operation is counted
// into both at once.
type Copy struct {
	hsm.Redacted
	session  *Session
	destroy  func()
	active   int
	released bool
}

// Begin counts an operation in; the caller calls End. hsm.ErrClosed after Release, hsm.ErrSealed after the session was shut.
func (c *Copy) Begin() error {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	switch {
	case c.released:
		return hsm.ErrClosed
	case c.session.closing:
		return hsm.ErrSealed
	}
	c.active++
	c.session.active++
	return nil
}

// End counts an operation out.
func (c *Copy) End() {
	c.session.mu.Lock()
	c.active--
	unused := c.unused()
	c.session.mu.Unlock()
	if unused {
		c.destroy()
	}
	c.session.End()
}

// Release gives the copy back: it is destroyed as soon as no operation holds it. A second call does nothing.
func (c *Copy) Release() {
	c.session.mu.Lock()
	c.released = true
	unused := c.unused()
	if unused {
		c.session.active++ // the session waits for the destroying
	}
	c.session.mu.Unlock()
	if unused {
		c.destroy()
		c.session.End()
	}
}

// unused takes a released copy that no operation holds from its session, unless the session already did; the session's lock is
// held.
func (c *Copy) unused() bool {
	_, live := c.session.copies[c]
	if !live || !c.released || c.active > 0 {
		return false
	}
	delete(c.session.copies, c)
	return true
}
