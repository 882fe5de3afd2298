package drain_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
)

// TestOrderOfDestroying: a released copy goes with its last operation, the others with the session, the session last, all once.
func TestOrderOfDestroying(t *testing.T) {
	var got []string
	note := func(what string) func() { return func() { got = append(got, what) } }
	s := drain.NewSession(note("session"))
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	first, second := s.Adopt(note("first")), s.Adopt(note("second"))
	if err := first.Begin(); err != nil {
		t.Fatal(err)
	}
	first.Release()
	first.Release()
	if err := first.Begin(); !errors.Is(err, hsm.ErrClosed) || len(got) != 0 {
		t.Errorf("a released copy in use: %v, %v", err, got)
	}
	first.End()
	s.Shut()
	if err := second.Begin(); !errors.Is(err, hsm.ErrSealed) || len(got) != 1 {
		t.Errorf("while draining: %v, %v", err, got)
	}
	s.End()
	<-s.Shut()
	second.Release()
	if len(got) != 3 || got[0] != "first" || got[1] != "second" || got[2] != "session" {
		t.Errorf("destroyed in the order %v", got)
	}
}

// TestDestroyingIsWaitedFor: a device that is slow to destroy a copy keeps the session open, and no lock is held meanwhile.
func TestDestroyingIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		s := drain.NewSession(func() {})
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		c, other := s.Adopt(func() { <-slow }), s.Adopt(func() {})
		s.End()
		go c.Release()
		synctest.Wait()
		if err := errors.Join(other.Begin(), s.Begin()); err != nil {
			t.Errorf("while a copy is destroyed: %v", err)
		}
		other.End()
		s.End()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Drain did not wait for the destroying: %v", err)
		}
		close(slow)
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type session struct{ *drain.Session }

// TestTurns: what comes after Close is refused, and a session installed after it ends at once.
func TestTurns(t *testing.T) {
	turns := drain.NewTurns(session{drain.Sealed()})
	if _, err := turns.Enter(t.Context(), "use"); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("a sealed token: %v", err)
	}
	destroyed := 0
	open := func() session { return session{drain.NewSession(func() { destroyed++ })} }
	if err := turns.Install(open()); err != nil {
		t.Fatal(err)
	}
	forgotten := errors.New("the disk is full")
	if err := turns.Seal(t.Context(), func() error { return forgotten }); !errors.Is(err, forgotten) || destroyed != 1 {
		t.Errorf("Seal that could not forget: %v, %d destroyed", err, destroyed)
	}
	if !turns.Close() || turns.Close() {
		t.Error("Close counts wrongly")
	}
	if err := turns.Install(open()); !errors.Is(err, hsm.ErrClosed) || destroyed != 2 {
		t.Errorf("Install after Close: %v, %d destroyed", err, destroyed)
	}
	if _, err := turns.Administer(t.Context()); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("Administer after Close: %v", err)
	}
}
