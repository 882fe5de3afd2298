package guard_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// createIn makes a key of a class.
func (n *node) createIn(class string, name fsm.KeyName, alg hsm.Algorithm) {
	n.t.Helper()
	c := n.newKey(name, alg, "")
	c.Class = class
	n.apply(c)
}

// use does nothing with a key, and says whether a result would have been released.
func (n *node) use(op fsm.Operation, name fsm.KeyName) error {
	n.t.Helper()
	_, err := n.guard.Use(context.Background(), guard.Request{Caller: n.admin, Op: op, Name: name},
		func(context.Context, guard.Key, guard.Selected) error {
			if n.between != nil {
				n.between()
			}
			return nil
		})
	return err
}

// TestStrictNeedsTheLeaderAndNoClock: a key of class public-trust is used without any lease, after the leader was asked.
func TestStrictNeedsTheLeaderAndNoClock(t *testing.T) {
	n := newNode(t)
	n.createIn(fsm.ClassPublicTrust, "root", hsm.HMACSHA256)
	n.clock.advance(time.Hour)
	asked := n.caught.Load()
	want(t, n.use(fsm.OpVerifyMAC, "root"), nil)
	if n.caught.Load() != asked+1 {
		t.Errorf("the leader was asked %d times", n.caught.Load()-asked)
	}
	n.catchUp = func() error { return errors.New("no leader") }
	want(t, n.use(fsm.OpVerifyMAC, "root"), guard.ErrUnavailable)
	n.catchUp = func() error { // what the leader had committed while the HSM worked
		n.apply(fsm.ChangeKey{Name: "root", Action: fsm.ActionCompromise, Reason: "leaked"})
		n.catchUp = nil
		return nil
	}
	if err := n.use(fsm.OpVerifyMAC, "root"); !errors.Is(err, guard.ErrNeedsApproval) && !errors.Is(err, guard.ErrKeyState) {
		t.Errorf("released against a restriction that this node had not applied yet: %v", err)
	}
}

// TestAvailableOutlivesTheServingLease: only for the classes that say so, and only if it was asked for in time.
func TestAvailableOutlivesTheServingLease(t *testing.T) {
	n := newNode(t)
	n.createIn(fsm.ClassLow, "cheap", hsm.HMACSHA256)
	n.create("dear", hsm.HMACSHA256, "")
	if !n.machine.State().HasAvailable() {
		t.Fatal("the state does not know its key of class low")
	}
	n.table.AllowAvailable()
	n.renew()
	want(t, n.use(fsm.OpMAC, "dear"), nil)
	n.renew()
	if l := n.holder.Available(); l.Valid() {
		t.Fatal("a lease that nobody wants")
	}
	want(t, n.use(fsm.OpMAC, "cheap"), nil) // asks for it
	n.renew()
	n.clock.advance(lease.Default().D)
	want(t, n.use(fsm.OpMAC, "dear"), guard.ErrNoLease)
	want(t, n.use(fsm.OpMAC, "cheap"), nil)
	n.clock.advance(lease.Default().Available)
	want(t, n.use(fsm.OpMAC, "cheap"), guard.ErrNoLease)
}

// TestTheSecondCheckReadsTheClockThatDoesNotSleep: the machine slept while the HSM worked.
func TestTheSecondCheckReadsTheClockThatDoesNotSleep(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	sure := &clock{}
	sure.advance(time.Minute)
	n.holder.With(lease.Default(), 0, sure)
	n.clock.advance(time.Second)
	n.renew()
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	n.between = func() { sure.advance(lease.Default().D) }
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrNoLease)
}

// TestAPermissionIsRememberedNoLongerThanItHolds: each thing that it rests on ends it.
func TestAPermissionIsRememberedNoLongerThanItHolds(t *testing.T) {
	n := newNode(t)
	n.create("pay", hsm.ECDSAP256, "bob")
	n.create("other", hsm.ECDSAP256, "")
	bob := n.user("bob")
	request := guard.Request{Caller: bob, Op: fsm.OpSign, Name: "pay"}
	check := func(wanted error) {
		t.Helper()
		n.renew()
		s, err := n.guard.Check(request)
		want(t, err, wanted)
		if err == nil && s.Index() != n.machine.State().Applied() {
			t.Errorf("index %d of a state at %d", s.Index(), n.machine.State().Applied())
		}
	}
	check(nil)
	n.apply(fsm.ChangeKey{Name: "other", Action: fsm.ActionSuspend, Reason: "test"}) // somebody else's
	check(nil)
	n.apply(fsm.ChangeKey{Name: "pay", Action: fsm.ActionSuspend, Reason: "test"})
	check(guard.ErrKeyState)
	n.apply(fsm.ChangeKey{Name: "pay", Action: fsm.ActionResume})
	check(nil)
	n.sealed.Store(true)
	check(hsm.ErrSealed)
	n.sealed.Store(false)
	n.apply(fsm.RevokeCertificates{Role: fsm.RoleUser, Name: "bob", Reason: "left"})
	check(policy.ErrUnauthenticated)
}

// TestChecksAllocateNothing, once a permission is remembered.
func TestChecksAllocateNothing(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	req, ctx := guard.Request{Caller: n.admin, Op: fsm.OpMAC, Name: "mac"}, context.Background()
	got := testing.AllocsPerRun(100, func() {
		s, err := n.guard.Check(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.guard.CheckAgain(ctx, req, s); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%g allocations", got)
	}
}

// BenchmarkCheck is what the two checks cost, with real clocks.
func BenchmarkCheck(b *testing.B) {
	n := newNode(b)
	n.create("mac", hsm.HMACSHA256, "")
	cfg := lease.Config{D: 10 * time.Minute, Rho: 0.1}
	holder := lease.NewHolder("n1", "boot", lease.Monotonic()).With(cfg, 0, lease.BootTime())
	table := lease.NewTable(cfg, lease.Monotonic(), 1, 0, []string{"n1"})
	for range 2 {
		zero := func() uint64 { return 0 }
		g, err := table.Renew(holder.Renew(func() uint64 { return 1 }, zero), zero)
		if err != nil {
			b.Fatal(err)
		}
		_ = holder.Install(g, zero) // the first is empty
	}
	g := guard.New(guard.Config{
		Lease: holder.Lease, State: n.machine.State, Unsealed: func(*fsm.State) error { return nil },
		CatchUp: func(context.Context) error { return nil }, ClusterID: func() string { return n.cluster }, Uses: n.log,
	})
	req, ctx := guard.Request{Caller: n.admin, Op: fsm.OpMAC, Name: "mac"}, context.Background()
	first, err := g.Check(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Check(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("second", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.CheckAgain(ctx, req, first); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("release", func(b *testing.B) { // the second check and the record in the buffer
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Release(ctx, req, first); err != nil {
				b.Fatal(err)
			}
		}
	})
}
