package lease_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// fakeClock moves when told to.
type fakeClock struct{ now time.Duration }

func (c *fakeClock) Now() time.Duration { return c.now }

func fixed(v uint64) func() uint64 { return func() uint64 { return v } }

func TestZeroLeaseIsNeverValid(t *testing.T) {
	var l lease.Lease
	if l.Valid() || l.Remaining() != 0 || l.Term() != 0 {
		t.Errorf("zero lease: valid %v, remaining %s, term %d", l.Valid(), l.Remaining(), l.Term())
	}
}

func TestConfigLimits(t *testing.T) {
	for _, c := range []lease.Config{
		{}, {D: time.Second}, {D: time.Second, Rho: 0.05}, {D: time.Second, Rho: 0.6}, {D: time.Second, Rho: math.NaN()},
		{D: -time.Second, Rho: 0.1}, {D: time.Hour, Rho: 0.1},
	} {
		if err := c.Validate(); !errors.Is(err, lease.ErrConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := lease.Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestWaitCoversTheSlowestHolder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := lease.Config{
			D:   time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "d")),
			Rho: rapid.Float64Range(0.084, 0.5).Draw(t, "rho"),
		}
		d := time.Duration(rapid.Int64Range(0, int64(cfg.D)).Draw(t, "grant"))
		// Real time that passes while the slowest holder's clock counts d, and while the fastest granter's counts W(d).
		holder := float64(d) / (1 - cfg.Rho)
		granter := float64(cfg.W(d)) / (1 + cfg.Rho)
		if granter < holder*(1-1e-12) {
			t.Fatalf("granter waits %f ns of real time, holder serves %f", granter, holder)
		}
	})
	if got := lease.Default().W(3 * time.Second).Round(time.Millisecond); got != 3667*time.Millisecond {
		t.Errorf("W(3 s) = %s", got)
	}
}

// holderAt returns a holder and a renewal of it.
func holderAt(clock lease.Clock, term, applied uint64) (*lease.Holder, lease.Renew) {
	h := lease.NewHolder("n2", "boot", clock)
	return h, h.Renew(fixed(term), fixed(applied))
}

func answer(r lease.Renew, term uint64, d time.Duration) lease.Grant {
	return lease.Grant{Boot: r.Boot, Seq: r.Seq, Term: term, GrantSeq: 7, Duration: d}
}

func TestHolderCountsFromSending(t *testing.T) {
	clock := &fakeClock{now: 100}
	h, r := holderAt(clock, 1, 0)
	clock.now += 600 // the answer took its time
	if err := h.Install(answer(r, 1, 1000), fixed(0)); err != nil {
		t.Fatal(err)
	}
	if got := h.Lease().Remaining(); got != 400 {
		t.Errorf("remaining %d, want 400", got)
	}
	clock.now += 399
	if !h.Lease().Valid() {
		t.Error("ended early")
	}
	clock.now++
	if h.Lease().Valid() {
		t.Error("valid at its end")
	}
}

func TestHolderRefusesGrants(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*lease.Grant)
		applied uint64
		want    error
	}{
		"another process":     {func(g *lease.Grant) { g.Boot = "other" }, 5, lease.ErrForeignGrant},
		"another renewal":     {func(g *lease.Grant) { g.Seq++ }, 5, lease.ErrForeignGrant},
		"an older term":       {func(g *lease.Grant) { g.Term-- }, 5, lease.ErrOldTerm},
		"nothing granted":     {func(g *lease.Grant) { g.Duration = 0 }, 5, lease.ErrNoEvidence},
		"a restriction ahead": {func(g *lease.Grant) { g.Floor = 6 }, 5, lease.ErrBehindFloor},
	} {
		t.Run(name, func(t *testing.T) {
			h, r := holderAt(&fakeClock{}, 3, c.applied)
			g := answer(r, 3, 1000)
			c.change(&g)
			if err := h.Install(g, fixed(c.applied)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if h.Lease().Valid() {
				t.Error("a lease was installed")
			}
		})
	}
}

func TestHolderAcceptsFloorItHasReached(t *testing.T) {
	h, r := holderAt(&fakeClock{}, 3, 2)
	g := answer(r, 3, 1000)
	g.Floor = 6
	if err := h.Install(g, fixed(6)); err != nil || !h.Lease().Valid() { // applied since the renewal was sent
		t.Errorf("err %v, valid %v", err, h.Lease().Valid())
	}
}

func TestHolderTakesAGrantOnce(t *testing.T) {
	clock := &fakeClock{}
	h, r := holderAt(clock, 1, 0)
	if err := h.Install(answer(r, 1, 10), fixed(0)); err != nil {
		t.Fatal(err)
	}
	if err := h.Install(answer(r, 1, 1000), fixed(0)); !errors.Is(err, lease.ErrForeignGrant) {
		t.Errorf("replayed grant: %v", err)
	}
}

func TestHolderKeepsTheHighestTermItReported(t *testing.T) {
	clock := &fakeClock{}
	h, _ := holderAt(clock, 5, 0)
	r := h.Renew(fixed(4), fixed(0))
	if r.Term != 5 {
		t.Errorf("reported %d after 5", r.Term)
	}
	if err := h.Install(answer(r, 4, 1000), fixed(0)); !errors.Is(err, lease.ErrOldTerm) {
		t.Errorf("grant of term 4: %v", err)
	}
}

func TestHolderNeverShortensALease(t *testing.T) {
	clock := &fakeClock{}
	h, r := holderAt(clock, 1, 0)
	if err := h.Install(answer(r, 1, 1000), fixed(0)); err != nil {
		t.Fatal(err)
	}
	r = h.Renew(fixed(2), fixed(0))
	if err := h.Install(answer(r, 2, 10), fixed(0)); err != nil {
		t.Fatal(err)
	}
	if got := h.Lease().Remaining(); got != 1000 {
		t.Errorf("remaining %d, want 1000", got)
	}
	h.Drop()
	if h.Lease().Valid() {
		t.Error("dropped lease is valid")
	}
}

// TestRenewReadsTheTermNow: a term taken before the echo was received would be older than the moment that the echo proves.
func TestRenewReadsTheTermNow(t *testing.T) {
	h, r := holderAt(&fakeClock{}, 1, 0)
	if r.Echo != (lease.Echo{}) {
		t.Errorf("echo %+v before any grant", r.Echo)
	}
	if err := h.Install(answer(r, 1, 0), fixed(0)); !errors.Is(err, lease.ErrNoEvidence) {
		t.Fatal(err)
	}
	r = h.Renew(fixed(9), fixed(0))
	if want := (lease.Echo{Term: 1, GrantSeq: 7}); r.Echo != want || r.Term != 9 {
		t.Errorf("echo %+v, term %d: even an empty grant must be echoed", r.Echo, r.Term)
	}
}

func TestWatchComparesClocks(t *testing.T) {
	start := lease.Readings{Monotonic: 5, Boot: time.Hour, Wall: 1e18}
	for name, c := range map[string]struct {
		mono, boot, wall time.Duration
		agree            bool
	}{
		"all go on":       {time.Second, time.Second, time.Second, true},
		"slewed":          {time.Second, time.Second, 1080 * time.Millisecond, true},
		"slept":           {time.Second, time.Minute, time.Minute, false},
		"wall clock set":  {time.Second, time.Second, time.Hour, false},
		"wall set back":   {time.Second, time.Second, -time.Hour, false},
		"monotonic stood": {0, time.Second, time.Second, false},
	} {
		w := lease.NewWatch(lease.Default())
		if err := w.Look(start); err != nil {
			t.Fatal(err)
		}
		err := w.Look(lease.Readings{Monotonic: start.Monotonic + c.mono, Boot: start.Boot + c.boot, Wall: start.Wall + c.wall})
		if (err == nil) != c.agree || (err != nil && !errors.Is(err, lease.ErrClock)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWatchAddsUp: clocks that part by less than a look shows have parted all the same; rates within the margin never add up.
func TestWatchAddsUp(t *testing.T) {
	const look = 100 * time.Millisecond
	slow, fast := look*9/10, look*11/10
	for name, c := range map[string]struct {
		each  lease.Readings // how far each clock goes from one look to the next
		agree bool
	}{
		"a slow and a fast clock":         {lease.Readings{Monotonic: slow, Boot: fast, Wall: look}, true},
		"the other way":                   {lease.Readings{Monotonic: fast, Boot: slow, Wall: look}, true},
		"monotonic between both":          {lease.Readings{Monotonic: look, Boot: slow, Wall: fast}, true},
		"boot time runs away":             {lease.Readings{Monotonic: look, Boot: look + 90*time.Millisecond, Wall: look}, false},
		"wall time stays behind":          {lease.Readings{Monotonic: look, Boot: look, Wall: 10 * time.Millisecond}, false},
		"beyond the margin, but a little": {lease.Readings{Monotonic: slow, Boot: fast + 5*time.Millisecond, Wall: look}, false},
	} {
		var now lease.Readings
		var err error
		w := lease.NewWatch(lease.Default())
		for range 36_000 {
			now.Monotonic, now.Boot, now.Wall = now.Monotonic+c.each.Monotonic, now.Boot+c.each.Boot, now.Wall+c.each.Wall
			err = errors.Join(err, w.Look(now))
		}
		if (err == nil) != c.agree {
			t.Errorf("%s: agree %t", name, err == nil)
		}
	}
}

// TestSureClock: a machine slept; its monotonic clock did not notice, the other did.
func TestSureClock(t *testing.T) {
	clock, sure := &fakeClock{now: 7}, &fakeClock{now: 900}
	h := lease.NewHolder("n2", "boot", clock).With(lease.Default(), 1, sure)
	if err := h.Install(answer(h.Renew(fixed(1), fixed(0)), 1, time.Second), fixed(0)); err != nil {
		t.Fatal(err)
	}
	if l := h.Lease(); !l.Valid() || !l.ValidSurely() {
		t.Fatal("not valid")
	}
	sure.now += time.Second
	if l := h.Lease(); !l.Valid() || l.ValidSurely() {
		t.Error("valid after sleep")
	}
	if boot := lease.BootTime(); boot != nil && boot.Now() <= 0 {
		t.Error("boot time does not run")
	}
}

func TestDropVoidsTheOutstandingRenewal(t *testing.T) {
	h, r := holderAt(&fakeClock{}, 1, 0)
	h.Drop()
	if err := h.Install(answer(r, 1, 1000), fixed(0)); !errors.Is(err, lease.ErrForeignGrant) || h.Lease().Valid() {
		t.Errorf("a grant asked for before the drop: %v", err)
	}
}

func BenchmarkClocks(b *testing.B) {
	for name, clock := range map[string]lease.Clock{"monotonic": lease.Monotonic(), "boot": lease.BootTime()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				clock.Now()
			}
		})
	}
}
