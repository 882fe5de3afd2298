package fsm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

func TestServingCommandsOnTheWire(t *testing.T) {
	restricting := map[uint32]bool{50: true, 52: true}
	for number, c := range map[uint32]fsm.Command{
		50: fsm.DrainNode{Node: "n1", Reason: "r"}, 51: fsm.UndrainNode{Node: "n1"}, 52: fsm.RemoveNode{Node: "n1", Reason: "r"},
	} {
		e := entryOf(c)
		data := encode(t, e)
		back, err := fsm.DecodeEntry(data)
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Errorf("%T: %v (-sent +received)\n%s", c, err, diff)
		}
		var w fsmpb.Entry
		if err := proto.Unmarshal(data, &w); err != nil || w.GetType() != number || !w.GetMustUnderstand() {
			t.Errorf("%T has number %d (%v), and numbers never change: %d", c, w.GetType(), err, number)
		}
		if c.Restricting() != restricting[number] {
			t.Errorf("%T restricting: %t", c, c.Restricting())
		}
	}
}

// TestStandingSurvivesASnapshot: what is derived is derived again.
func TestStandingSurvivesASnapshot(t *testing.T) {
	s := cluster(t, true)
	s.must(fsm.DrainNode{Node: "n2"})
	drained := s.index
	s.must(fsm.RemoveNode{Node: "n3"})
	m := restored(t, snapshot(t, s.m.State()))
	for id, want := range map[fsm.NodeID]fsm.Standing{"n1": fsm.StandingServing, "n2": fsm.StandingDraining, "n3": fsm.StandingRemoving} {
		n, _ := m.State().Node(id)
		if got := m.State().Standing(n); got != want {
			t.Errorf("%s is %s, and was %s", id, got, want)
		}
	}
	for id, want := range map[fsm.NodeID]uint64{"n1": 0, "n2": drained, "n3": s.index, "n9": 0} {
		if got := m.State().DrainedAt(id); got != want {
			t.Errorf("%s is drained at %d, and was at %d", id, got, want)
		}
	}
	if m.State().Digest() != s.m.State().Digest() {
		t.Error("another digest")
	}
}

// TestRemovalWaitsForReceipts: a version that is being destroyed may still be on the node's disk.
func TestRemovalWaitsForReceipts(t *testing.T) {
	s := cluster(t, true)
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1)})
	all := records(t, snapshot(t, s.m.State()))
	for _, r := range all {
		if k := r.GetKey(); k != nil {
			k.Versions[0].State = uint32(fsm.StateDestroying)
		}
	}
	s.m = restored(t, sealed(t, all...))
	if r, _ := s.apply(fsm.RemoveNode{Node: "n3"}); r.Code != fsm.CodeNeedsApproval {
		t.Errorf("%+v", r)
	}
	if r, _ := s.apply(fsm.DrainNode{Node: "n3"}); r.Code != fsm.CodeOK {
		t.Errorf("a drain takes nothing away from the destruction: %+v", r)
	}
}
