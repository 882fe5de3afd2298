package fsm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// TestASnapshotInTheMiddleOfADestruction: receipts that came are kept, and those that are missing are still asked for.
func TestASnapshotInTheMiddleOfADestruction(t *testing.T) {
	s, _ := reachable(t, fsm.ClassStandard, fsm.StateDestroying)
	wallet := fsm.ErasedVersion{Key: fsm.KeyID(uuid("k")), Version: 1}
	s.must(fsm.RecordErasure{Node: "n2", Boot: "b", Erasure: fsm.ErasureState, Erased: []fsm.ErasedVersion{wallet}})
	a, b := s.m.State(), restored(t, snapshot(t, s.m.State())).State()
	if diff := cmp.Diff(a.Keys("", "", 0), b.Keys("", "", 0)); diff != "" || a.Digest() != b.Digest() {
		t.Errorf("restored as another:\n%s", diff)
	}
	for n, owes := range map[fsm.NodeID]bool{"n1": true, "n2": false, "n3": true} {
		if got := b.AwaitingErasure(n, 10); (len(got) == 1) != owes {
			t.Errorf("%s owes %v", n, got)
		}
	}
}

// TestADestructionFromElsewhere: a record without the beginning of its destruction is waited for all the same.
func TestADestructionFromElsewhere(t *testing.T) {
	s := amid(t, inState(fsm.StateDestroying, 0))
	for _, n := range []fsm.NodeID{"n1", "n2", "n3"} {
		s.must(fsm.RecordErasure{Node: n, Erasure: fsm.ErasureState, Erased: []fsm.ErasedVersion{{Key: fsm.KeyID(uuid("k")), Version: 1}}})
	}
	if v := s.key("k").Versions[0]; v.State != fsm.StateDestroyed || len(v.Destruction.Receipts) != 3 {
		t.Errorf("%+v", v)
	}
}

// TestRefusedSnapshots of classes.
func TestRefusedSnapshotsOfClasses(t *testing.T) {
	own := &fsmpb.Class{Name: "own", Revision: 7}
	for name, more := range map[string][]*fsmpb.Class{"twice": {own, own}, "built in": {{Name: "low", Revision: 7}}, "without a revision": {{Name: "own"}}} {
		all := records(t, snapshot(t, cluster(t, true).m.State()))
		for _, c := range more {
			all = append(all, &fsmpb.Record{Kind: &fsmpb.Record_Class{Class: c}})
		}
		if err := fsm.New().Restore(bytes.NewReader(sealed(t, all...))); !errors.Is(err, fsm.ErrSnapshot) {
			t.Errorf("a class %s is taken", name)
		}
	}
}

// TestDatesMeetLimits: a calendar does not get around limits, and waits where they are met.
func TestDatesMeetLimits(t *testing.T) {
	k := &fsmpb.Key{Id: uuid("k"), Name: "k", Algorithm: "ed25519", Class: "standard", Primary: fsm.MaxVersions}
	for v := range fsm.MaxVersions {
		k.Versions = append(k.Versions, &fsmpb.KeyVersion{Version: uint32(v + 1), State: uint32(fsm.StateActive), ActivatedAtMs: opening.UnixMilli()})
	}
	s := amid(t, &fsmpb.Record{Kind: &fsmpb.Record_Key{Key: k}})
	s.clock = s.clock.AddDate(1, 0, 0)
	s.expect(fsm.CodeLimit, fsm.ExecuteDue{Due: s.dueOf("k", fsm.DueRotate), Material: material(1)})

	var crowd []*fsmpb.Record
	for i := range fsm.MaxBarriers {
		crowd = append(crowd, &fsmpb.Record{Kind: &fsmpb.Record_Barrier{Barrier: &fsmpb.PendingBarrier{Index: uint64(1_000_000 + i), Subject: "cluster"}}})
	}
	full := inState(fsm.StateActive, 0)
	full.GetKey().Versions[0].DeactivateAtMs = opening.UnixMilli() + 1
	s = amid(t, append(crowd, full, &fsmpb.Record{Kind: &fsmpb.Record_Class{Class: &fsmpb.Class{
		Name: "own", Revision: 7, Lease: "leased", UsageLog: "buffered", MinDestroyWaitNs: 24 * 3600e9,
	}}})...)
	s.clock = s.clock.AddDate(0, 0, 1)
	s.expect(fsm.CodeLimit, fsm.ExecuteDue{Due: s.dueOf("k", fsm.DueDeactivate)})
	own, _ := s.m.State().Class("own")
	own.Exact = true
	s.expect(fsm.CodeLimit, fsm.UpdateClass{Class: own})
	s.expect(fsm.CodeLimit, fsm.SetKeyClass{Name: "k", Class: "critical"})
	s.must(fsm.UpdateKey{Name: "k", SetLabels: []fsm.Label{{Name: "users", Value: "bob"}}})
	s.expect(fsm.CodeLimit, fsm.UpdateKey{Name: "k", RemoveLabels: []string{"users"}})
	if v := s.key("k"); v.Versions[0].State != fsm.StateActive || v.Class != "standard" {
		t.Errorf("refusals left %+v", v)
	}
}
