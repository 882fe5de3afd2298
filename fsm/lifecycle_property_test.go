package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

// fullClass has every control set.
func fullClass() fsm.Class {
	return fsm.Class{
		Name: "cards", Description: "d", HardwareOnly: true, Algorithms: []string{"ed25519"}, Export: true, OriginatorPeriod: 20 * time.Hour,
		RecipientPeriod: 30 * time.Hour, RotateEvery: 10 * time.Hour, RotateUses: 3, Budget: fsm.Budget{Operations: 4, Bytes: 5, Period: 6 * time.Hour},
		MinDestroyWait: 48 * time.Hour, Approvals: []fsm.Approval{{Operation: "destroy", Quorum: 2, Groups: []string{"ops"}}}, MFA: true,
		Lease: fsm.LeaseAvailable, LeaseDuration: fsm.AvailableLease, UsageLog: fsm.UsageDurable, Exact: true, DecryptWhileSuspended: true,
	}
}

func fullUpdate() fsm.UpdateKey {
	d, p, owner, at, later := "d", "p", fsm.Actor("spiffe://demo/user/bob"), opening, opening.Add(time.Hour)
	return fsm.UpdateKey{
		Name: "n", Revision: 3, SetLabels: []fsm.Label{{Name: "l", Value: "v"}}, RemoveLabels: []string{"m"}, Description: &d, Purpose: &p, Owner: &owner,
		AddLinks: []fsm.Link{{Kind: fsm.LinkReplaces, Target: "o"}}, RemoveLinks: []fsm.Link{{Kind: fsm.LinkCertificate, Target: "1"}}, Version: 2,
		ActivateAt: &at, DeactivateAt: &later, NeverExportable: true,
	}
}

// randomLifecycle draws something about classes, dates, exports and erasure.
func randomLifecycle(rt *rapid.T, s *stage, name fsm.KeyName, member fsm.NodeID) fsm.Command {
	state := s.m.State()
	switch rapid.IntRange(0, 9).Draw(rt, "lifecycle") {
	case 0:
		c := fsm.Class{
			Name: "own", Lease: rapid.SampledFrom([]fsm.LeaseMode{fsm.LeaseLeased, fsm.LeaseStrict}).Draw(rt, "lease"), UsageLog: fsm.UsageBuffered,
			MinDestroyWait: 24 * time.Hour, Export: true,
			RotateEvery:      time.Duration(rapid.IntRange(0, 3).Draw(rt, "rotate")) * 10 * time.Hour,
			OriginatorPeriod: time.Duration(rapid.IntRange(0, 3).Draw(rt, "originator")) * 10 * time.Hour,
		}
		c.RecipientPeriod = c.OriginatorPeriod * time.Duration(rapid.IntRange(0, 2).Draw(rt, "recipient"))
		if rapid.Bool().Draw(rt, "new") {
			return fsm.CreateClass{Class: c}
		}
		return fsm.UpdateClass{Class: c}
	case 1:
		return fsm.SetKeyClass{Name: name, Class: rapid.SampledFrom([]string{"own", "standard", "low", "critical"}).Draw(rt, "class")}
	case 2:
		return fsm.CreateKey{
			ID: fsm.KeyID(uuid(string(name))), Name: name, Algorithm: "ed25519", Class: "own", Material: material(1),
			ActivateAt: s.clock.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "activate")) * time.Hour),
		}
	case 3:
		at := s.clock.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "deactivate")) * time.Hour)
		return fsm.UpdateKey{Name: name, DeactivateAt: &at, SetLabels: []fsm.Label{{Name: "n", Value: fmt.Sprint(s.index)}}}
	case 4:
		list := append(state.AwaitingErasure(member, 2), fsm.ErasedVersion{Key: fsm.KeyID(uuid("a")), Version: 1})
		return fsm.RecordErasure{Node: member, Boot: "b", Erasure: fsm.ErasureState, Erased: list}
	case 5:
		k, _ := state.Key(name)
		return fsm.ExportKey{Name: name, ID: k.ID, Version: fsm.Version(rapid.IntRange(1, 2).Draw(rt, "version")), Form: "f", Recipient: [32]byte{1}}
	case 6:
		m := material(1)
		m.Exportable = true
		if rapid.Bool().Draw(rt, "never") {
			return fsm.UpdateKey{Name: name, NeverExportable: true}
		}
		return fsm.CreateKey{ID: fsm.KeyID(uuid(string(name))), Name: name, Algorithm: "ed25519", Material: m}
	default:
		due := state.Due(s.clock.Add(time.Duration(rapid.IntRange(0, 1).Draw(rt, "early"))*time.Hour), 10, nil)
		if len(due) == 0 {
			return fsm.DeleteClass{Name: "own"}
		}
		d := rapid.SampledFrom(due).Draw(rt, "due")
		if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
			d.Revision--
		}
		return fsm.ExecuteDue{Due: d, Material: material(1)}
	}
}

// wantSameCalendar: what is derived and in no snapshot is the same on a machine that was restored on the way.
func wantSameCalendar(rt *rapid.T, a, b *fsm.State) {
	far := opening.Add(fsm.MaxPeriod)
	if diff := cmp.Diff(a.Due(far, 1000, nil), b.Due(far, 1000, nil)); diff != "" {
		rt.Fatalf("the calendars differ:\n%s", diff)
	}
	next, some := a.NextDue()
	if other, too := b.NextDue(); !next.Equal(other) || some != too {
		rt.Fatalf("next due at %s and at %s", next, other)
	}
	for _, s := range []*fsm.State{a, b} {
		for _, k := range s.Keys("", "", 0) { // in the tree's order; the index by name has the same
			if got, ok := s.Key(k.Name); !ok || !cmp.Equal(got, k) {
				rt.Fatalf("by its name %s is %+v, %t, and in its place %+v", k.Name, got, ok, k)
			}
		}
	}
	for _, c := range a.AllClasses() {
		if a.KeysOf(c.Name) != b.KeysOf(c.Name) {
			rt.Fatalf("%d and %d keys of class %s", a.KeysOf(c.Name), b.KeysOf(c.Name), c.Name)
		}
	}
	if diff := cmp.Diff(a.AwaitingErasure("n1", 0), b.AwaitingErasure("n1", 0)); diff != "" || a.HasAvailable() != b.HasAvailable() {
		rt.Fatalf("receipts are owed for\n%s", diff)
	}
}

// TestEverythingDueIsDoneOnce: a scheduler that proposes all that is due twice, as two leaders would, does each exactly once, and what it
// leaves is refused for a reason that people must remove.
func TestEverythingDueIsDoneOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := cluster(t, true)
		for range rapid.IntRange(5, 40).Draw(rt, "entries") {
			s.applyEntry(randomEntry(rt, s))
		}
		s.clock = s.clock.Add(time.Duration(rapid.IntRange(0, 90).Draw(rt, "days")) * 24 * time.Hour)
		refused := map[fsm.Due]bool{}
		skip := func(d fsm.Due) bool { return refused[d] }
		rounds := 0
		for due := s.m.State().Due(s.clock, 1000, skip); len(due) > 0; due = s.m.State().Due(s.clock, 1000, skip) {
			for _, d := range due {
				first := s.offer(d)
				if again := s.offer(d); first.Code == fsm.CodeOK && again.Code == fsm.CodeOK {
					rt.Fatalf("%s of %s was done twice", d.Kind, d.Subject)
				}
				refused[d] = first.Code != fsm.CodeOK && first.Code != fsm.CodeVersionConflict
				if refused[d] && d.Kind != fsm.DueRotate {
					rt.Fatalf("%s of %s is due and refused: %s", d.Kind, d.Subject, first.Message)
				}
			}
			if rounds++; rounds > 50 {
				rt.Fatalf("after %d rounds %v are still due", rounds, due)
			}
		}
	})
}

// offer proposes a due action as a node does: without a request id.
func (s *stage) offer(d fsm.Due) fsm.Result {
	s.t.Helper()
	r, _ := s.applyEntry(fsm.Entry{Command: fsm.ExecuteDue{Due: d, Material: material(1)}, Actor: "spiffe://demo/node/n1"})
	return r
}
