package guard_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

func (n *node) suspend(name fsm.KeyName) {
	n.t.Helper()
	n.apply(fsm.ChangeKey{Name: name, Action: fsm.ActionSuspend, Reason: "test"})
	n.guard.Unfence(n.machine.State())
}

// TestAFencedKeyIsNotUsed: it alone, until the state has what the fence announced; a use catches up instead of failing.
func TestAFencedKeyIsNotUsed(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	n.create("other", hsm.HMACSHA256, "")
	n.create("pair", hsm.Ed25519, "")
	want(t, n.guard.Fence("mac", n.index+2), nil)
	want(t, n.guard.Fence("pair", n.index+2), nil)
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrFenced)
	want(t, n.use(fsm.OpMAC, "other"), nil)
	if _, err := n.guard.Inspect(t.Context(), guard.Request{Caller: n.admin, Op: fsm.OpVerify, Name: "pair"}); !errors.Is(err, guard.ErrFenced) {
		t.Errorf("whether its signatures count is answered: %v", err)
	}
	n.create("third", hsm.HMACSHA256, "")
	n.guard.Unfence(n.machine.State())
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrFenced) // the state is not there yet
	n.catchUp = func() error { n.suspend("mac"); n.catchUp = nil; return nil }
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrKeyState)
	want(t, n.use(fsm.OpMAC, "other"), nil)
	// One that comes when the state is there already stays up for nobody.
	want(t, n.guard.Fence("other", n.index), nil)
	want(t, n.use(fsm.OpMAC, "other"), nil)
}

// TestAFenceThatGoesUpDuringAUse: the result is not released.
func TestAFenceThatGoesUpDuringAUse(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	n.between = func() { want(t, n.guard.Fence("mac", n.index+1), nil) }
	n.catchUp = func() error { return errors.New("no leader") }
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrUnavailable)
}

// TestAFenceIsLoadedBeforeTheState: it goes down as soon as the state that it announced is there. Who loaded a state from before, then
// looked for the fence and found none, would release a result against a restriction that was acknowledged because of the fence.
func TestAFenceIsLoadedBeforeTheState(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	want(t, n.use(fsm.OpMAC, "mac"), nil) // the copy is open from here on
	n.between = func() {
		want(t, n.guard.Fence("mac", n.index+1), nil)
		n.loaded = func() { n.loaded = nil; n.suspend("mac") } // between the load of the state and whatever comes then
	}
	n.catchUp = func() error { return errors.New("no leader") }
	if err := n.use(fsm.OpMAC, "mac"); err == nil {
		t.Error("released")
	}
}

// TestTooManyFences are refused, and the ones that are up stay up.
func TestTooManyFences(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	want(t, n.guard.Fence("mac", n.index+1), nil)
	var refused error
	for i := 0; refused == nil && i < 10_000; i++ {
		refused = n.guard.Fence(fsm.KeyName(fmt.Sprint("key-", i)), n.index+1)
	}
	if refused == nil {
		t.Error("fences without end")
	}
	want(t, n.guard.Fence("mac", n.index+2), nil)
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrFenced)
}
