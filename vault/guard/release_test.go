package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/usage"
)

// recorded ends the usage log and returns the uses in it.
func (n *node) recorded() (all []usage.Entry) {
	n.t.Helper()
	n.stopUses()
	_, err := usage.Walk(n.uses, func(e usage.Entry) error {
		if e.Kind == usage.KindUse {
			all = append(all, e)
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

// wantOutcomes compares, each as outcome, or as outcome and what it withholds.
func (n *node) wantOutcomes(want ...string) []usage.Entry {
	n.t.Helper()
	all := n.recorded()
	var got []string
	numbers := map[uint64]int{}
	for i, e := range all {
		numbers[e.Sequence] = i
		text := e.Outcome.String()
		if e.Of != 0 {
			text += fmt.Sprintf(" of %d", numbers[e.Of])
		}
		got = append(got, text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		n.t.Errorf("recorded %q, want %q", got, want)
	}
	return all
}

// durableClass makes a class like standard, with a durable usage log.
func (n *node) durableClass(name string) {
	n.t.Helper()
	class, _ := n.machine.State().Class(fsm.ClassStandard)
	class.Name, class.UsageLog, class.Revision = name, fsm.UsageDurable, 0
	n.apply(fsm.CreateClass{Class: class})
}

// onSync does something once, the next time that the usage log is being made durable.
func (n *node) onSync(do func()) {
	once := func() {
		n.syncing.Store(nil)
		do()
	}
	n.syncing.Store(&once)
}

// TestEveryUseIsRecorded, with who and what, under the state that decided.
func TestEveryUseIsRecorded(t *testing.T) {
	n := newNode(t)
	n.durableClass("dear")
	n.createIn("dear", "root", hsm.HMACSHA256)
	n.create("mac", hsm.HMACSHA256, "bob")
	bob := n.user("bob")
	for _, name := range []fsm.KeyName{"mac", "root"} {
		caller := bob
		if name == "root" {
			caller = n.admin
		}
		_, err := n.guard.Use(usage.WithRequest(context.Background(), "r-"+string(name)), guard.Request{Caller: caller, Op: fsm.OpMAC, Name: name, Bytes: 5},
			func(context.Context, guard.Key, guard.Selected) error { return nil })
		want(t, err, nil)
	}
	all := n.wantOutcomes("done", "done")
	k, _ := n.machine.State().Key("mac")
	got := all[0]
	got.Sequence, got.Time = 0, all[1].Time
	if got != (usage.Entry{
		Kind: usage.KindUse, Time: all[1].Time, Boot: "boot", Index: n.index, KeyID: string(k.ID), Version: 1, Operation: "mac", Role: "user", Name: "bob", Serial: bob.Serial,
		RequestID: "r-mac", Bytes: 5, Outcome: usage.Done,
	}) {
		t.Errorf("%+v", got)
	}
	if all[1].RequestID != "r-root" || all[1].Name != "root" || all[1].Index != n.index {
		t.Errorf("%+v", all[1])
	}
}

// TestWhatIsNotLetGo: "does not verify" is an answer, an argument that is refused is none.
func TestWhatIsNotLetGo(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	bad := errors.New("a bad argument")
	for _, answer := range []error{hsm.ErrVerify, bad} {
		_, err := n.guard.Use(context.Background(), guard.Request{Caller: n.admin, Op: fsm.OpVerifyMAC, Name: "mac"},
			func(context.Context, guard.Key, guard.Selected) error { return answer })
		want(t, err, answer)
	}
	n.wantOutcomes("not-verified")
}

// TestADurableRecordComesBeforeTheLastCheck: a restriction that comes while the record is being made durable keeps the result back. An
// fsync between the check and the release would let it go.
func TestADurableRecordComesBeforeTheLastCheck(t *testing.T) {
	n := newNode(t)
	n.durableClass("dear")
	n.createIn("dear", "root", hsm.HMACSHA256)
	n.between = func() {
		n.onSync(func() { n.apply(fsm.ChangeKey{Name: "root", Action: fsm.ActionSuspend, Reason: "test"}) })
	}
	want(t, n.use(fsm.OpMAC, "root"), guard.ErrKeyState)
	n.wantOutcomes("done", "withheld of 0")
}

// TestNothingDurableIsReleasedBeforeItsRecord is on the disk.
func TestNothingDurableIsReleasedBeforeItsRecord(t *testing.T) {
	n := newNode(t)
	n.durableClass("dear")
	n.createIn("dear", "root", hsm.HMACSHA256)
	synced := false
	n.between = func() { n.onSync(func() { synced = true }) }
	want(t, n.use(fsm.OpMAC, "root"), nil)
	if !synced {
		t.Error("released without an fsync")
	}
	n.wantOutcomes("done")
}

// TestABufferedUseThatIsKeptBack leaves a record of that alone.
func TestABufferedUseThatIsKeptBack(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	n.between = func() { n.apply(fsm.ChangeKey{Name: "mac", Action: fsm.ActionSuspend, Reason: "test"}) }
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrKeyState)
	n.wantOutcomes("withheld")
}

// TestAClassThatIsRaisedMeanwhile holds for the uses that are under way: the promise that came with the acknowledgement is kept.
func TestAClassThatIsRaisedMeanwhile(t *testing.T) {
	n := newNode(t)
	n.durableClass("dear")
	n.create("mac", hsm.HMACSHA256, "")
	synced := false
	n.between = func() {
		n.apply(fsm.SetKeyClass{Name: "mac", Class: "dear"})
		n.onSync(func() { synced = true })
	}
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	if !synced {
		t.Error("released without an fsync")
	}
	n.wantOutcomes("done")
}

// TestWithoutAUsageLogNothingLeaves.
func TestWithoutAUsageLogNothingLeaves(t *testing.T) {
	n := newNode(t)
	n.durableClass("dear")
	n.createIn("dear", "root", hsm.HMACSHA256)
	n.create("mac", hsm.HMACSHA256, "")
	n.stopUses()
	want(t, n.use(fsm.OpMAC, "root"), usage.ErrClosed)
	want(t, n.use(fsm.OpMAC, "mac"), usage.ErrClosed)
	n.wantOutcomes()
}

// TestABufferedReleaseAllocatesNothing.
func TestABufferedReleaseAllocatesNothing(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	req, ctx := guard.Request{Caller: n.admin, Op: fsm.OpMAC, Name: "mac"}, context.Background()
	first, err := n.guard.Check(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() {
		if _, err := n.guard.Release(ctx, req, first); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%g allocations", got)
	}
}
