package fsm_test

import (
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// classBudgeted is a key k of a class "cards" whose budget is 1200 a day, with a block of n1's.
func classBudgeted(t *testing.T) (*stage, fsm.KeyID, fsm.Class) {
	t.Helper()
	s, id := budgeted(t, "ed25519", fsm.UseLimit{})
	s.raised()
	class, _ := s.m.State().Class(fsm.ClassStandard)
	class.Name, class.Budget = "cards", fsm.Budget{Operations: 1200, Period: 24 * time.Hour}
	s.must(fsm.CreateClass{Class: class})
	s.must(fsm.SetKeyClass{Name: "k", Class: "cards"})
	s.settle()
	s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Want: operations(1000)})
	if got := s.left("n1"); got != 100 {
		t.Fatalf("a block of %d, want 1200/(4×3)", got)
	}
	return s, id, class
}

// wantVoided: the restriction at r ended n1's block, all of it counts until n1 says what it spent, and what is granted then is of the new limit.
func wantVoided(t *testing.T, s *stage, id fsm.KeyID, r fsm.Result, block int64) {
	t.Helper()
	if r.Barrier != r.Index || s.left("n1") != -1 {
		t.Fatalf("%+v, n1 has %d", r, s.left("n1"))
	}
	held, _ := s.m.State().HeldBlock(id, 0, "n1", "n1-1")
	ask := fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Opened: held.Opened, Used: operations(7), Need: operations(1), Waiting: operations(1), Want: operations(1000)}
	s.must(ask)
	if total := s.m.State().UseRecord(id).Limited.Total(); total != operations(100) || s.left("n1") != -1 {
		t.Fatalf("before its last word %+v counts, and it has %d", total, s.left("n1"))
	}
	s.settle()
	ask.Seq, ask.Final = 3, true
	s.must(ask)
	if got := s.left("n1"); got != block {
		t.Errorf("a new block of %d, want %d", got, block)
	}
}

// TestAClassThatLowersItsBudgetVoidsBlocks of all its keys, by the class's own restriction.
func TestAClassThatLowersItsBudgetVoidsBlocks(t *testing.T) {
	s, id, class := classBudgeted(t)
	class.Budget.Operations = 127
	r := s.must(fsm.UpdateClass{Class: class})
	wantVoided(t, s, id, r, (127-7)/12)
}

// TestAMoveToALowerBudgetVoidsBlocks of the key.
func TestAMoveToALowerBudgetVoidsBlocks(t *testing.T) {
	s, id, class := classBudgeted(t)
	class.Name, class.Budget.Operations = "lower", 127
	s.must(fsm.CreateClass{Class: class})
	r := s.must(fsm.SetKeyClass{Name: "k", Class: "lower"})
	wantVoided(t, s, id, r, (127-7)/12)
}

// TestOtherClassesKeepTheirBlocks when one is changed.
func TestOtherClassesKeepTheirBlocks(t *testing.T) {
	s, _, class := classBudgeted(t)
	class.Name = "other"
	s.must(fsm.CreateClass{Class: class})
	class.Budget.Operations = 127
	s.must(fsm.UpdateClass{Class: class})
	if got := s.left("n1"); got != 100 {
		t.Errorf("n1 has %d", got)
	}
}
