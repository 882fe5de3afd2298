package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

var errSpent = errors.New("the budget is spent")

// counting makes the node's guard one with budgets, whose reservations are applied at once.
func (n *node) counting(t testing.TB) *counted {
	t.Helper()
	c := &counted{node: n}
	n.apply(fsm.RecordNodeUnsealed{Node: "n1", Boot: "boot", Generation: 1, Seen: n.index})
	n.guard = guard.New(guard.Config{
		Uses: n.log,
		Keys: countingKeys{n.token, &n.opened}, Lease: n.holder.Lease, State: n.machine.State, ClusterID: func() string { return n.cluster },
		Unsealed: func(*fsm.State) error { return nil }, CatchUp: func(context.Context) error { return nil },
		Node: "n1", Boot: "boot", Reserve: c.reserve, Background: func(f func(context.Context)) bool {
			c.later = append(c.later, f)
			return true
		},
	})
	return c
}

// counted is a node whose guard reserves.
type counted struct {
	*node
	mu       sync.Mutex
	reserved int
	fails    error
	later    []func(context.Context)
}

func (c *counted) reserve(_ context.Context, r fsm.ReserveUse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails != nil {
		return c.fails
	}
	c.reserved++
	return c.say(context.Background(), r)
}

// say applies what the guard proposes.
func (c *counted) say(_ context.Context, cmd fsm.Command) error {
	data, err := fsm.EncodeEntry(fsm.Entry{Command: cmd, Actor: "spiffe://x/node/n1"}.Stamped(time.Now()))
	if err != nil {
		return err
	}
	switch r := c.applyRaw(data); r.Code {
	case fsm.CodeOK:
		return nil
	case fsm.CodeBudget:
		return errSpent
	default:
		return errors.New(r.Message)
	}
}

// refill does what the guard wants done in the background.
func (c *counted) refill() {
	for _, f := range c.later {
		f(context.Background())
	}
	c.later = nil
}

func (c *counted) limit(l fsm.UseLimit) {
	c.t.Helper()
	c.apply(fsm.SetBudget{Name: "mac", Limit: l})
	c.apply(fsm.CompleteBarrier{Restriction: c.machine.State().LastRestriction()})
	c.renew()
}

func (c *counted) spent() fsm.Amount {
	k, _ := c.machine.State().Key("mac")
	return c.machine.State().Uses(k).Spent
}

// times uses the key until it is refused.
func (c *counted) times(op fsm.Operation, bytes uint64) (n int, err error) {
	for {
		_, err = c.guard.Use(context.Background(), guard.Request{Caller: c.admin, Op: op, Name: "mac", Bytes: bytes},
			func(context.Context, guard.Key, guard.Selected) error { return nil })
		if err != nil {
			return n, err
		}
		n++
	}
}

func TestExactlyTheBudgetIsSpent(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 100, Bytes: 1 << 20}})
	got, err := c.times(fsm.OpMAC, 3)
	if got != 100 || !errors.Is(err, errSpent) {
		t.Errorf("%d operations with a budget of 100: %v", got, err)
	}
	if c.reserved > 40 {
		t.Errorf("%d reservations for 100 operations", c.reserved)
	}
	want(t, n.use(fsm.OpVerifyMAC, "mac"), nil) // does not count
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 200, Bytes: 330}})
	if got, err := c.times(fsm.OpMAC, 3); got != 10 || !errors.Is(err, errSpent) {
		t.Errorf("%d operations of 3 bytes with 30 bytes left: %v", got, err)
	}
	c.limit(fsm.UseLimit{})
	want(t, n.use(fsm.OpMAC, "mac"), nil)
}

// TestAnOperationWithoutTheHSMIsNotCounted.
func TestAnOperationWithoutTheHSMIsNotCounted(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 1}, Exact: true})
	_, err := c.guard.Use(context.Background(), guard.Request{Caller: c.admin, Op: fsm.OpMAC, Name: "mac"},
		func(context.Context, guard.Key, guard.Selected) error { return hsm.ErrHandle })
	want(t, err, hsm.ErrHandle)
	if got, err := c.times(fsm.OpMAC, 0); got != 1 || !errors.Is(err, errSpent) {
		t.Errorf("%d operations after one that the HSM never saw: %v", got, err)
	}
}

// TestALowerLimitDuringTheHSMCall: what was charged to the block before is not released, but done again under the new limit.
func TestALowerLimitDuringTheHSMCall(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 100}})
	n.between = func() {
		n.between = nil
		c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 3}})
	}
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	if got, _ := c.times(fsm.OpMAC, 0); got != 1 {
		t.Errorf("%d more: the operation was done twice and counts twice", got)
	}
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 4}})
	n.between = func() {
		n.between = nil
		c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 1}})
	}
	want(t, n.use(fsm.OpMAC, "mac"), errSpent)
}

// TestTheFirstLimitDuringTheHSMCall: the operation began unlimited.
func TestTheFirstLimitDuringTheHSMCall(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	n.between = func() {
		n.between = nil
		c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 5}})
	}
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	if got, _ := c.times(fsm.OpMAC, 0); got != 4 {
		t.Errorf("%d more of 5", got)
	}
}

func TestABlockComesBack(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 1000}})
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	ctx, k := context.Background(), func() fsm.Key { k, _ := n.machine.State().Key("mac"); return k }
	if u := n.machine.State().Uses(k()); u.Reserved.Operations != 250 || len(u.Holders) != 1 {
		t.Fatalf("%+v", u)
	}
	for range 4 { // idle
		if err := c.guard.Sweep(ctx, time.Now(), c.say); err != nil {
			t.Fatal(err)
		}
	}
	u := n.machine.State().Uses(k())
	if u.Reserved.Operations != 0 || u.Spent.Operations != 1 || len(u.Versions) != 1 || u.Versions[0].LastUsed.IsZero() {
		t.Errorf("after a while: %+v", u)
	}
	want(t, n.use(fsm.OpMAC, "mac"), nil)
	lost := errors.New("no leader")
	if err := c.guard.Return(ctx, func(context.Context, fsm.Command) error { return lost }); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	want(t, n.use(fsm.OpMAC, "mac"), nil) // what could not be returned is reported with the next reservation
	if err := c.guard.Return(ctx, c.say); err != nil || c.spent().Operations != 3 {
		t.Errorf("%v: %+v is spent", err, c.spent())
	}
}

// TestEncryptionBeginsOnCredit: the first block comes behind its back, and counts what was encrypted before.
func TestEncryptionBeginsOnCredit(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.AES256GCM, "")
	c := n.counting(t)
	c.fails = guard.ErrUnavailable
	for range fsm.GCMCredit {
		want(t, n.use(fsm.OpEncrypt, "mac"), nil)
	}
	want(t, n.use(fsm.OpEncrypt, "mac"), guard.ErrUnavailable)
	want(t, n.use(fsm.OpDecrypt, "mac"), nil)
	c.fails = nil
	c.refill()
	want(t, n.use(fsm.OpEncrypt, "mac"), nil)
	if err := c.guard.Return(context.Background(), c.say); err != nil {
		t.Fatal(err)
	}
	k, _ := n.machine.State().Key("mac")
	if u := n.machine.State().Uses(k); u.Versions[0].Encryptions != fsm.GCMCredit+1 {
		t.Errorf("%+v", u.Versions)
	}
}

func TestWithoutReservationsThereIsNoBudget(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	n.apply(fsm.SetBudget{Name: "mac", Limit: fsm.UseLimit{Amount: fsm.Amount{Operations: 5}}})
	n.renew()
	want(t, n.use(fsm.OpMAC, "mac"), guard.ErrUnavailable)
}

// TestManyCallersShareABlock, with returns in between.
func TestManyCallersShareABlock(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	c := n.counting(t)
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 2000}})
	var done atomic.Int64
	var wg sync.WaitGroup
	locked := func(ctx context.Context, cmd fsm.Command) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.say(ctx, cmd)
	}
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				err := n.use(fsm.OpMAC, "mac")
				if errors.Is(err, errSpent) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
				if i%100 == 99 {
					if err := c.guard.Return(context.Background(), locked); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := done.Load(); got > 2000 || got < 1900 {
		t.Errorf("%d operations with a budget of 2000", got)
	}
}

// charged is the guard of a benchmark: a key with a limit that is not reached, and a lease that lasts.
func charged(b testing.TB) (*counted, guard.Request) {
	n := newNode(b)
	n.create("mac", hsm.AES256GCM, "")
	c := n.counting(b)
	c.apply(fsm.SetBudget{Name: "mac", Limit: fsm.UseLimit{Amount: fsm.Amount{Operations: 1 << 50, Bytes: 1 << 52}}})
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
	c.guard = guard.New(guard.Config{
		Uses:  c.log,
		Lease: holder.Lease, State: n.machine.State, Unsealed: func(*fsm.State) error { return nil },
		CatchUp: func(context.Context) error { return nil }, ClusterID: func() string { return n.cluster },
		Node: "n1", Boot: "boot", Reserve: c.reserve, Background: func(f func(context.Context)) bool { f(context.Background()); return true },
	})
	req := guard.Request{Caller: n.admin, Op: fsm.OpEncrypt, Name: "mac", Bytes: 100}
	for range 5000 { // the blocks have grown
		if err := c.guard.Admit(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
	return c, req
}

func TestChargingAllocatesNothing(t *testing.T) {
	c, req := charged(t)
	ctx := context.Background()
	if got := testing.AllocsPerRun(20, func() {
		if err := c.guard.Admit(ctx, req); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%g allocations", got)
	}
}

// BenchmarkAdmit is the first check with the charge to a limit of operations and bytes and to the bound of AES-GCM, refills included.
func BenchmarkAdmit(b *testing.B) {
	c, req := charged(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.guard.Admit(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}
