package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
)

// aborted waits until the ceremony is over, and checks the reason that the log keeps.
func (s *sitting) aborted(reason string) {
	w := s.w
	w.t.Helper()
	p := w.leader()
	w.within(10*time.Second, "the abort", func() bool { return s.shown(p).Phase == fsm.PhaseAborted })
	events := w.logged(p, "ceremony.abort", "ceremony/"+string(s.id))
	if len(events) != 1 || !strings.Contains(events[0].Reason, reason) {
		w.t.Errorf("events: %+v, want one that says %q", events, reason)
	}
	if _, mastered := p.replica.State().Master(); mastered {
		w.t.Error("there is a master")
	}
}

// TestAMismatchingRevealAborts: a value that is not the committed one could have been chosen after the others were known.
func TestAMismatchingRevealAborts(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(3)
		s := w.convene(first, 0)
		for _, who := range w.custodians {
			w.must(s.commit(w.node("n2"), who))
		}
		w.must(s.reveal(w.node("n2"), w.custodians[0]))
		err := s.revealValue(w.node("n3"), w.custodians[1], make([]byte, 32))
		if !errors.Is(err, vault.ErrShare) || !strings.Contains(err.Error(), "bob") {
			t.Errorf("another value: %v", err)
		}
		s.aborted("bob")
		w.genesis(w.node("n2"))
	})
}

// TestAMissingRevealEndsWithTheCeremonysTime, and until then nobody can start another over it.
func TestAMissingRevealEndsWithTheCeremonysTime(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(3)
		s := w.convene(first, time.Minute)
		for _, who := range w.custodians {
			w.must(s.commit(first, who))
		}
		w.must(s.reveal(first, w.custodians[0]))
		var refused *vault.Refused
		if _, _, err := first.vault.StartGenesis(w.ctx(), w.admin, request(), threshold, w.appoint(), 0); !errors.As(err, &refused) || refused.Code != fsm.CodeConflict {
			t.Errorf("another start while it is open: %v", err)
		}
		time.Sleep(2 * time.Minute) // of the bubble's clock
		next := w.convene(w.node("n3"), 0)
		s.aborted("expired")
		next.finish()
	})
}

// TestADealerThatRestartsAborts: its part of the random was in its memory.
func TestADealerThatRestartsAborts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.form(3)
		s := w.convene(w.node("n2"), 0)
		for _, who := range w.custodians {
			w.must(s.commit(w.node("n1"), who))
		}
		w.kill("n2")
		w.restart("n2")
		w.serving(3)
		s.aborted("lost its part")
		w.genesis(w.node("n2"))
	})
}

// TestOneOfTwoGenesesWins when they are started at the same time through two nodes.
func TestOneOfTwoGenesesWins(t *testing.T) {
	inWorld(t, func(w *world) {
		w.form(3)
		cards := w.appoint()
		type start struct {
			c   fsm.Ceremony
			err error
		}
		starts := make(chan start, 2)
		for _, id := range []fsm.NodeID{"n2", "n3"} {
			go func() {
				c, _, err := w.node(id).vault.StartGenesis(w.ctx(), w.admin, request(), threshold, cards, 0)
				starts <- start{c, err}
			}()
		}
		a, b := <-starts, <-starts
		if b.err == nil {
			a, b = b, a
		}
		w.must(a.err)
		var refused *vault.Refused
		if !errors.As(b.err, &refused) || refused.Code != fsm.CodeConflict {
			t.Errorf("the other start: %v", b.err)
		}
		s := &sitting{w: w, id: a.c.ID, entropy: map[fsm.CustodianName][32]byte{}}
		s.finish()
	})
}
