//go:build cgo && unix

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"
)

// pool lends worker sessions, each to one user at a time: a session used by two threads at once has crashed every module tried.
// Sessions are opened when they are needed: a device's may be few. If it has none left, the pool goes on with those it has.
type pool struct {
	idle   chan p11.SessionHandle
	rights chan struct{} // to open one session more; one that the device refused is not given back
	opened atomic.Int32

	stopping sync.Once
	stopped  chan struct{}
	reason   error // why it was stopped; read after stopped

	open   func() (p11.SessionHandle, error)
	close  func(p11.SessionHandle)
	shrunk func(sessions int32, err error) // told when the device refused a session
	calls  *watch
}

func newPool(size int, open func() (p11.SessionHandle, error), closeSession func(p11.SessionHandle), shrunk func(int32, error), calls *watch) *pool {
	p := &pool{
		idle: make(chan p11.SessionHandle, size), rights: make(chan struct{}, size), stopped: make(chan struct{}),
		open: open, close: closeSession, shrunk: shrunk, calls: calls,
	}
	for range size {
		p.rights <- struct{}{}
	}
	return p
}

// with lends a session to f. The errors of ctx; the reason of stop.
func (p *pool) with(ctx context.Context, f func(p11.SessionHandle) error) error {
	s, err := p.take(ctx.Done())
	if errors.Is(err, errGivenUp) {
		return fmt.Errorf("waiting for a session of the token: %w", ctx.Err())
	}
	if err != nil {
		return err
	}
	return p.lend(s, f)
}

// always is with for interfaces that have no context (crypto.Signer): it waits for a session as long as it takes.
func (p *pool) always(f func(p11.SessionHandle) error) error {
	s, err := p.take(nil)
	if err != nil {
		return err
	}
	return p.lend(s, f)
}

// lend runs f on s and gives s back. If f fails because an operation was left active (CKR_OPERATION_ACTIVE), s is replaced and
// f runs once more: such a session never works again, and f has done nothing.
func (p *pool) lend(s p11.SessionHandle, f func(p11.SessionHandle) error) error {
	defer p.calls.leave(p.calls.enter())
	err := f(s)
	if classOf(err) != busy {
		p.idle <- s
		return err
	}
	p.close(s)
	s, again := p.open()
	if again != nil {
		p.opened.Add(-1)
		p.rights <- struct{}{}
		return errors.Join(err, again)
	}
	if err = f(s); classOf(err) != busy {
		p.idle <- s
		return err
	}
	p.close(s)
	p.opened.Add(-1)
	p.rights <- struct{}{}
	return err
}

var errGivenUp = errors.New("given up")

func (p *pool) take(givenUp <-chan struct{}) (p11.SessionHandle, error) {
	for {
		select {
		case <-p.stopped:
			return 0, p.reason // select would choose by chance
		default:
		}
		select {
		case s := <-p.idle:
			return s, nil // before another is opened
		default:
		}
		select {
		case s := <-p.idle:
			return s, nil
		case <-p.rights:
			s, err := p.grow()
			if err != nil || s != 0 {
				return s, err
			}
		case <-p.stopped:
			return 0, p.reason
		case <-givenUp:
			return 0, errGivenUp
		}
	}
}

// grow uses a right to open a session. It gives 0 if the device has none left and others are there to wait for.
func (p *pool) grow() (p11.SessionHandle, error) {
	s, err := p.open()
	switch {
	case err == nil:
		p.opened.Add(1)
		return s, nil
	case classOf(err) == limit && p.opened.Load() > 0:
		p.shrunk(p.opened.Load(), err)
		return 0, nil
	}
	p.rights <- struct{}{}
	return 0, err
}

// yield closes an idle session, for an administrative act that found none left on the device. False if there is none.
func (p *pool) yield() bool {
	select {
	case s := <-p.idle:
		p.close(s)
		p.opened.Add(-1)
		p.rights <- struct{}{}
		return true
	default:
		return false
	}
}

// stop refuses new users, and those who wait, with reason. The first reason counts.
func (p *pool) stop(reason error) {
	p.stopping.Do(func() {
		p.reason = reason
		close(p.stopped)
	})
}

// shut closes all sessions, after the last user has gone.
func (p *pool) shut() {
	for {
		select {
		case s := <-p.idle:
			p.close(s)
		default:
			return
		}
	}
}
