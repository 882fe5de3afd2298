package fsm_test

import (
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// classed is a key k of a class "cards" whose budget is so many operations a day.
func classed(t *testing.T, operations uint64) (*stage, fsm.KeyID, fsm.Class) {
	t.Helper()
	s, id := budgeted(t, "ed25519", fsm.UseLimit{})
	s.raised()
	class, _ := s.m.State().Class(fsm.ClassStandard)
	class.Name, class.Budget = "cards", fsm.Budget{Operations: operations, Period: 24 * time.Hour}
	s.must(fsm.CreateClass{Class: class})
	s.must(fsm.SetKeyClass{Name: "k", Class: "cards"})
	s.settle()
	return s, id, class
}

// classBudgeted is one with 1200, and with a block of n1's.
func classBudgeted(t *testing.T) (*stage, fsm.KeyID, fsm.Class) {
	t.Helper()
	s, id, class := classed(t, 1200)
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

// spend has n1 reserve, spend and give back as much as it can of what it asks for.
func spend(s *stage, id fsm.KeyID, seq, want uint64) (spent uint64) {
	s.t.Helper()
	s.apply(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: seq, Need: operations(want), Waiting: operations(want)})
	b, has := s.m.State().UsableBlock(id, 0, "n1", "n1-1")
	if !has {
		return 0
	}
	s.must(fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: []fsm.UsedBlock{{Key: id, Opened: b.Opened, Used: b.Reserved}}})
	return b.Reserved.Operations
}

// TestAnOwnLimitForgetsNothingOfTheClasss: what was spent of a class's budget counts while the key has a limit of its own, and after, however
// often one is set and ended.
func TestAnOwnLimitForgetsNothingOfTheClasss(t *testing.T) {
	s, id, _ := classed(t, 2400)
	total := spend(s, id, 1, 2000)
	for i := range uint64(8) { // each hour has a limit of its own
		s.must(fsm.SetBudget{Name: "k", Limit: fsm.UseLimit{Amount: operations(100), Per: time.Hour}})
		s.settle()
		s.clock = s.clock.Add(time.Hour)
		total += spend(s, id, 10+2*i, 100)
		s.must(fsm.SetBudget{Name: "k"})
		s.settle()
		total += spend(s, id, 11+2*i, 50)
	}
	if total != 2400 {
		t.Errorf("%d operations in a day, of 2400", total)
	}
	s.clock = s.clock.Add(24 * time.Hour)
	if got := spend(s, id, 90, 2400); got != 2400 {
		t.Errorf("%d the next day", got)
	}
}

// TestABlockThatEndsAfterAWindowBegan counts in it: n1 may have spent it there.
func TestABlockThatEndsAfterAWindowBegan(t *testing.T) {
	for name, end := range map[string]func(*stage){
		"lapse":   func(s *stage) { s.must(fsm.LapseUse{Node: "n1"}); s.settle() },
		"restart": func(s *stage) { s.unsealedAs("n1", "n1-2") },
	} {
		t.Run(name, func(t *testing.T) {
			s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(120), Per: time.Hour})
			s.raised()
			s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Want: operations(1000)})
			s.clock = s.clock.Add(time.Hour)
			end(s)
			s.expect(fsm.CodeBudget, fsm.ReserveUse{Node: "n2", Boot: "n2-1", Key: id, Seq: 1, Need: operations(111)})
			s.must(fsm.ReserveUse{Node: "n2", Boot: "n2-1", Key: id, Seq: 2, Need: operations(110), Waiting: operations(110)})
			s.clock = s.clock.Add(time.Hour) // n2 has its block, and nobody else has one
			if got := s.m.State().Uses(s.key("k")); got.Reserved.Operations != 110 {
				t.Errorf("an hour later %+v counts", got)
			}
		})
	}
}
