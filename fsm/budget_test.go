package fsm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// unsealedAs reports that a node's process boot has opened the master.
func (s *stage) unsealedAs(n fsm.NodeID, boot string) {
	s.t.Helper()
	s.must(fsm.RecordNodeUnsealed{Node: n, Boot: boot, Generation: 1, Seen: s.index})
}

// budgeted is a cluster with unsealed nodes and a key k with a limit.
func budgeted(t testing.TB, algorithm string, limit fsm.UseLimit) (*stage, fsm.KeyID) {
	t.Helper()
	s := cluster(t, true)
	for _, n := range []fsm.NodeID{"n1", "n2", "n3"} {
		s.unsealedAs(n, string(n)+"-1")
	}
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: algorithm, Material: material(1)})
	if !limit.None() {
		s.must(fsm.SetBudget{Name: "k", Limit: limit})
		s.settle()
	}
	return s, fsm.KeyID(uuid("k"))
}

// settle ends every barrier.
func (s *stage) settle() {
	s.t.Helper()
	for _, b := range s.m.State().PendingBarriers() {
		s.must(fsm.CompleteBarrier{Restriction: b.Index})
	}
}

func operations(n uint64) fsm.Amount { return fsm.Amount{Operations: n} }

// left is what a process has in hand by the state; -1 if it may not spend.
func (s *stage) left(n fsm.NodeID) int64 {
	b, usable := s.m.State().UsableBlock(fsm.KeyID(uuid("k")), 0, n, string(n)+"-1")
	if !usable {
		return -1
	}
	return int64(b.Left().Operations)
}

func everyUseCommand() []fsm.Command {
	return []fsm.Command{
		fsm.SetBudget{Name: "k", Limit: fsm.UseLimit{Amount: fsm.Amount{Operations: 1, Bytes: 2}, Per: time.Hour, Exact: true}},
		fsm.ReserveUse{
			Node: "n1", Boot: "b", Key: "k", Version: 1, Seq: 2, Opened: 3, Used: fsm.Amount{Operations: 4, Bytes: 5}, Final: true,
			Need: fsm.Amount{Operations: 6, Bytes: 7}, Waiting: fsm.Amount{Operations: 8, Bytes: 9}, Want: fsm.Amount{Operations: 10, Bytes: 11},
		},
		fsm.ReturnUse{Node: "n1", Boot: "b", Blocks: []fsm.UsedBlock{{Key: "k", Version: 1, Opened: 2, Used: operations(3)}}},
		fsm.RecordUse{Node: "n1", Versions: []fsm.UsedVersion{{Key: "k", Version: 1, Operations: 4}}},
		fsm.LapseUse{Node: "n1"},
	}
}

func TestUseEntriesKeepTheirNumbers(t *testing.T) {
	restricting := map[string]bool{"fsm.SetBudget": true, "fsm.LapseUse": true}
	for i, c := range everyUseCommand() {
		e := entryOf(c)
		data := encode(t, e)
		back, err := fsm.DecodeEntry(data)
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Errorf("%T: %v (-sent +received)\n%s", c, err, diff)
		}
		var w fsmpb.Entry
		if err := proto.Unmarshal(data, &w); err != nil || w.GetType() != uint32(65+i) || !w.GetMustUnderstand() {
			t.Errorf("%T has number %d (%v)", c, w.GetType(), err)
		}
		if c.Restricting() != restricting[typeName(c)] {
			t.Errorf("%T restricting: %t", c, c.Restricting())
		}
	}
}

func TestBlocksAreAQuarterOfANodesShare(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(1200), Per: time.Hour})
	ask := fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Need: operations(1), Waiting: operations(1), Want: operations(1000)}
	s.must(ask)
	if got := s.left("n1"); got != 100 {
		t.Fatalf("a block of %d, want 1200/(4×3)", got)
	}
	s.must(ask)
	if got := s.left("n1"); got != 100 {
		t.Fatalf("the same entry again made it %d", got)
	}
	// 90 used: 1200-90 remain with what is in hand, a twelfth of them is 92.
	b, _ := s.m.State().UsableBlock(id, 0, "n1", "n1-1")
	s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Opened: b.Opened, Used: operations(90), Want: operations(1000)})
	if got := s.left("n1"); got != 92 {
		t.Fatalf("a refilled block of %d, want 92", got)
	}
	s.must(fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: []fsm.UsedBlock{{Key: id, Opened: b.Opened, Used: operations(120)}}})
	if u := s.m.State().UseRecord(id); u.Limited.Total() != operations(120) || s.left("n1") != -1 {
		t.Errorf("after the return: %+v", u)
	}
}

// TestTheLastOperationsAreCountedOneByOne, and the last one goes to one node alone.
func TestTheLastOperationsAreCountedOneByOne(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(3), Per: time.Hour})
	one := func(n fsm.NodeID, seq uint64) fsm.Result {
		r, _ := s.apply(fsm.ReserveUse{Node: n, Boot: string(n) + "-1", Key: id, Seq: seq, Need: operations(1), Waiting: operations(1), Want: operations(100)})
		return r
	}
	for _, n := range []fsm.NodeID{"n1", "n2", "n3"} {
		if r := one(n, 1); r.Code != fsm.CodeOK || s.left(n) != 1 {
			t.Fatalf("%s: %+v, has %d", n, r, s.left(n))
		}
	}
	b, _ := s.m.State().UsableBlock(id, 0, "n1", "n1-1")
	r, _ := s.apply(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Opened: b.Opened, Used: operations(1), Need: operations(1), Want: operations(9)})
	if r.Code != fsm.CodeBudget || !strings.Contains(r.Message, "2026-03-01T10:00:00") {
		t.Fatalf("a fourth operation: %+v", r)
	}
	s.must(fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: []fsm.UsedBlock{{Key: id, Opened: b.Opened, Used: operations(1)}}})
	s.clock = s.clock.Add(time.Hour)
	s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Need: operations(1), Want: operations(9)})
	// The others' blocks may still be spent, so they count in this window too.
	if got := s.m.State().UseRecord(id).Limited.Total(); got != operations(3) {
		t.Errorf("in the new window %+v counts", got)
	}
}

func TestLoweringVoidsAndRaisingDoesNot(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(1200)})
	s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Want: operations(1000)})
	if r := s.must(fsm.SetBudget{Name: "k", Limit: fsm.UseLimit{Amount: operations(2400)}}); r.Barrier != 0 || s.left("n1") != 100 {
		t.Fatalf("raising: %+v, %d left", r, s.left("n1"))
	}
	b, _ := s.m.State().UsableBlock(id, 0, "n1", "n1-1")
	r := s.must(fsm.SetBudget{Name: "k", Limit: fsm.UseLimit{Amount: operations(300)}})
	if k, _ := s.m.State().Key("k"); r.Barrier != r.Index || k.Barrier.State != fsm.BarrierPending || s.left("n1") != -1 {
		t.Fatalf("lowering: %+v, %+v, %d left", r, k.Barrier, s.left("n1"))
	}
	// All of it counts until the process has said what it spent, for good.
	ask := fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Opened: b.Opened, Used: operations(7), Need: operations(1), Waiting: operations(1), Want: operations(1000)}
	s.must(ask)
	if total := s.m.State().UseRecord(id).Limited.Total(); total != operations(100) || s.left("n1") != -1 {
		t.Fatalf("while it may be spending: %+v counts", total)
	}
	ask.Final = true
	ask.Seq++
	s.must(ask)
	if total := s.m.State().UseRecord(id).Limited; total.Spent != operations(7) || s.left("n1") != (300-7)/12 {
		t.Errorf("after the report: %+v", total)
	}
}

func TestARestartLosesTheBlock(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(1200)})
	ask := fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Want: operations(1000)}
	s.must(ask)
	s.unsealedAs("n1", "n1-2")
	s.expect(fsm.CodeConflict, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 2, Want: operations(1000)})
	ask.Boot = "n1-2"
	s.must(ask)
	if a := s.m.State().UseRecord(id).Limited; a.Spent != operations(100) || len(a.Blocks) != 1 || a.Blocks[0].Left() != operations(1100/12) {
		t.Errorf("%+v", a)
	}
}

func TestALapsedNodeIsNotWaitedForInTheNextWindow(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{Amount: operations(1200), Per: time.Hour})
	s.must(fsm.ReserveUse{Node: "n3", Boot: "n3-1", Key: id, Seq: 1, Want: operations(1000)})
	r := s.must(fsm.LapseUse{Node: "n3"})
	if r.Barrier == 0 || s.left("n3") != -1 || s.m.State().UseRecord(id).Limited.Total() != operations(100) {
		t.Fatalf("%+v, %d left", r, s.left("n3"))
	}
	next := func(seq uint64) fsm.Amount {
		s.clock = s.clock.Add(time.Hour)
		s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: seq, Need: operations(1), Waiting: operations(1)})
		return s.m.State().UseRecord(id).Limited.Total()
	}
	if got := next(1); got != operations(101) {
		t.Errorf("before the barrier is done, %+v counts in the next window", got)
	}
	s.settle()
	if got := next(2); got.Operations > 2 {
		t.Errorf("after it, %+v counts", got)
	}
}

// worn are the rotations by uses that are due.
func worn(s *fsm.State) (all []fsm.Due) {
	for _, d := range s.Due(s.Time(), 10, nil) {
		if d.Kind == fsm.DueUses {
			all = append(all, d)
		}
	}
	return all
}

// TestUsesOfEveryAlgorithmCount under a class that rotates by them: they are reported, and only there.
func TestUsesOfEveryAlgorithmCount(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{})
	s.raised()
	class, _ := s.m.State().Class(fsm.ClassStandard)
	class.Name, class.RotateUses = "busy", 100
	s.must(fsm.CreateClass{Class: class})
	if k := s.key("k"); s.m.State().CountsForRotation(&k) {
		t.Error("class standard does not rotate by uses")
	}
	s.must(fsm.SetKeyClass{Name: "k", Class: "busy"})
	lazy := class
	lazy.Name, lazy.RotateUses = "lazy", 1<<40
	s.must(fsm.CreateClass{Class: lazy})
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("l")), Name: "l", Class: "lazy", Algorithm: "ed25519", Material: material(1)})
	s.must(fsm.RecordUse{Node: "n2", Versions: []fsm.UsedVersion{{Key: fsm.KeyID(uuid("l")), Version: 1, Operations: 1 << 33}}})
	if len(worn(s.m.State())) != 0 {
		t.Error("the bound of AES-GCM holds for Ed25519")
	}
	if k := s.key("k"); !s.m.State().CountsForRotation(&k) {
		t.Error("class busy does")
	}
	report := func(n uint64) {
		s.must(fsm.RecordUse{Node: "n2", Versions: []fsm.UsedVersion{{Key: id, Version: 1, Operations: n}}})
	}
	report(99)
	if len(worn(s.m.State())) != 0 {
		t.Error("due after 99 uses of 100")
	}
	if next, some := s.m.State().NextDue(); some && !next.After(s.m.State().Time()) {
		t.Errorf("something is due since %s", next)
	}
	report(1)
	if next, some := s.m.State().NextDue(); !some || next.After(s.m.State().Time()) {
		t.Error("nothing is due")
	}
	_, events := s.apply(fsm.ExecuteDue{Due: worn(s.m.State())[0], Material: material(1)})
	if len(events) != 2 || events[0].Action != "key.rotate" || events[0].Detail != "uses=100" || s.key("k").Primary != 2 {
		t.Errorf("%+v", events)
	}
	s.expect(fsm.CodeInvalid, fsm.RecordUse{Node: "n2", Versions: []fsm.UsedVersion{{Key: id, Version: 2, Operations: fsm.MaxUses + 1}}})
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("g")), Name: "g", Algorithm: "aes-256-gcm", Material: material(1)})
	s.expect(fsm.CodeInvalid, fsm.RecordUse{Node: "n2", Versions: []fsm.UsedVersion{{Key: fsm.KeyID(uuid("g")), Version: 1, Operations: 1}}})
}

// TestTheBoundOfGCM: blocks come from it until it is reached, and the key is worn before.
func TestTheBoundOfGCM(t *testing.T) {
	s, id := budgeted(t, "aes-256-gcm", fsm.UseLimit{})
	s.raised()
	s.expect(fsm.CodeNotFound, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Version: 2, Seq: 1})
	var opened, used, seq uint64
	wornAt := uint64(0)
	for {
		seq++
		r, _ := s.apply(fsm.ReserveUse{
			Node: "n1", Boot: "n1-1", Key: id, Version: 1, Seq: seq, Opened: opened, Used: operations(used),
			Need: operations(1), Waiting: operations(1000), Want: operations(1 << 40),
		})
		if r.Code != fsm.CodeOK {
			if r.Code != fsm.CodeBudget || !strings.Contains(r.Message, "38D") {
				t.Fatalf("%+v", r)
			}
			break
		}
		b, _ := s.m.State().UsableBlock(id, 1, "n1", "n1-1")
		opened, used = b.Opened, b.Reserved.Operations
		if len(worn(s.m.State())) > 0 && wornAt == 0 {
			wornAt = used
		}
	}
	if used != 1<<32-1<<28 || wornAt < used/2 || wornAt > used-used/8 {
		t.Errorf("%d encryptions were granted, and the key was worn at %d", used, wornAt)
	}
	m := fsm.New()
	if err := m.Restore(strings.NewReader(string(snapshot(t, s.m.State())))); err != nil || len(worn(m.State())) != 1 || m.State().Digest() != s.m.State().Digest() {
		t.Fatalf("%v: restored, %d keys are worn", err, len(worn(m.State())))
	}
	due := worn(s.m.State())[0]
	stale := due
	stale.Revision--
	s.expect(fsm.CodeVersionConflict, fsm.ExecuteDue{Due: stale, Material: material(1)})
	s.must(fsm.ExecuteDue{Due: due, Material: material(1)})
	s.expect(fsm.CodeVersionConflict, fsm.ExecuteDue{Due: due, Material: material(1)})
	if k := s.key("k"); k.Primary != 2 {
		t.Errorf("the primary version is %d", k.Primary)
	}
	if len(worn(s.m.State())) != 0 {
		t.Error("a rotated key is worn")
	}
	s.must(fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Version: 2, Seq: 1, Need: operations(1)})
}

func TestLastUsedIsTheLogsTime(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{})
	if s.m.State().UseRecord(id) != nil || !s.m.State().UsesSince().IsZero() {
		t.Fatal("uses of an unused key")
	}
	s.must(fsm.RecordUse{Node: "n2"})
	since := s.m.State().UsesSince()
	s.clock = s.clock.Add(time.Minute)
	s.must(fsm.RecordUse{Node: "n2", Versions: []fsm.UsedVersion{{Key: id, Version: 1}, {Key: "none", Version: 1}, {Key: id, Version: 9}}})
	v, _ := s.m.State().UseRecord(id).Version(1)
	if since != opening || v.LastUsed != s.clock.UnixMilli() || len(s.m.State().UseRecord(id).Versions) != 1 || s.m.State().UsesSince() != since {
		t.Errorf("since %v: %+v", since, s.m.State().UseRecord(id))
	}
}

func TestBadBudgets(t *testing.T) {
	s, id := budgeted(t, "ed25519", fsm.UseLimit{})
	for name, l := range map[string]fsm.UseLimit{
		"nothing limited": {Per: time.Hour}, "exact nothing": {Exact: true}, "short": {Amount: operations(1), Per: time.Millisecond},
		"long": {Amount: operations(1), Per: fsm.MaxUsePeriod + time.Hour}, "negative": {Amount: operations(1), Per: -time.Hour},
		"odd": {Amount: operations(1), Per: time.Hour + time.Nanosecond}, "huge": {Amount: operations(fsm.MaxUses + 1)},
		"huge bytes": {Amount: fsm.Amount{Bytes: fsm.MaxUses + 1}},
	} {
		if r, events := s.apply(fsm.SetBudget{Name: "k", Limit: l}); r.Code != fsm.CodeInvalid || len(events) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s.expect(fsm.CodeNotFound, fsm.SetBudget{Name: "none", Limit: fsm.UseLimit{Amount: operations(1)}})
	s.expect(fsm.CodeNotFound, fsm.ReserveUse{Node: "n9", Boot: "b", Key: id, Seq: 1})
	s.expect(fsm.CodeConflict, fsm.ReserveUse{Node: "n1", Key: id, Seq: 1})
	s.expect(fsm.CodeNotFound, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: "none", Seq: 1})
	s.expect(fsm.CodeInvalid, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Version: 1, Seq: 1}) // ed25519 has no bound
	s.expect(fsm.CodeInvalid, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Want: operations(1 << 60)})
	s.expect(fsm.CodeOK, fsm.ReserveUse{Node: "n1", Boot: "n1-1", Key: id, Seq: 1, Need: operations(1)}) // there is no limit
	s.expect(fsm.CodeNotFound, fsm.ReturnUse{Node: "n9", Boot: "b"})
	s.expect(fsm.CodeInvalid, fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: make([]fsm.UsedBlock, 5000)})
	s.expect(fsm.CodeInvalid, fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: []fsm.UsedBlock{{Key: id, Used: operations(1 << 60)}}})
	s.expect(fsm.CodeOK, fsm.ReturnUse{Node: "n1", Boot: "n1-1", Blocks: []fsm.UsedBlock{{Key: id, Opened: 3}, {Key: "none"}}})
	s.expect(fsm.CodeNotFound, fsm.RecordUse{Node: "n9"})
	s.expect(fsm.CodeInvalid, fsm.RecordUse{Node: "n1", Versions: make([]fsm.UsedVersion, 5000)})
	s.expect(fsm.CodeNotFound, fsm.LapseUse{Node: "n9"})
}

// TestABudgetIsAnUpdate: where a class has updates of its keys approved, a limit of the key's own, which goes before the class's, is one.
func TestABudgetIsAnUpdate(t *testing.T) {
	s := cluster(t, true)
	class, _ := s.m.State().Class("standard")
	class.Name, class.Budget = "watched", fsm.Budget{Operations: 10, Period: 24 * time.Hour}
	class.Approvals = []fsm.Approval{{Operation: "update", Quorum: 2}}
	s.must(fsm.CreateClass{Class: class})
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Class: "watched", Material: material(1)})
	for _, l := range []fsm.UseLimit{{Amount: operations(1000)}, {Amount: operations(1)}, {}} {
		s.expect(fsm.CodeNeedsApproval, fsm.SetBudget{Name: "k", Limit: l})
	}
	k := s.key("k")
	if got := s.m.State().UseLimit(&k); got.Operations != 10 {
		t.Errorf("the limit is %s", got)
	}
}
