package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
)

const second = time.Second

// board is a table of term 2 with three voters, elected at 10 s, and a holder for each.
type board struct {
	t       *testing.T
	clock   *fakeClock
	cfg     lease.Config
	table   *lease.Table
	holders map[string]*lease.Holder
	floor   uint64
}

func newBoard(t *testing.T, voters ...string) *board {
	b := &board{t: t, clock: &fakeClock{}, cfg: lease.Default(), holders: map[string]*lease.Holder{}}
	for _, v := range append(slices.Clone(voters), "observer") {
		b.holders[v] = lease.NewHolder(v, "boot-"+v, b.clock)
	}
	b.clock.now = 10 * second
	b.table = lease.NewTable(b.cfg, b.clock, 2, b.clock.now, voters)
	return b
}

// renew runs one exchange without delay.
func (b *board) renew(node string, applied uint64) lease.Grant {
	b.t.Helper()
	h := b.holders[node]
	g, err := b.table.Renew(h.Renew(fixed(2), fixed(applied)), fixed(b.floor))
	if err != nil {
		b.t.Fatal(err)
	}
	_ = h.Install(g, fixed(applied)) // an empty grant is an error and wanted here
	return g
}

// settle gives every named node a full lease.
func (b *board) settle(applied uint64, nodes ...string) {
	b.t.Helper()
	for range 2 {
		for _, n := range nodes {
			b.renew(n, applied)
		}
	}
	for _, n := range nodes {
		if g := b.renew(n, applied); g.Duration != b.cfg.D {
			b.t.Fatalf("%s got %s after two rounds", n, g.Duration)
		}
	}
}

func TestFirstGrantsAreEmpty(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	for _, n := range []string{"n1", "n2", "n3"} {
		if g := b.renew(n, 0); !g.Zero() {
			t.Errorf("%s got %s before anybody echoed", n, g.Duration)
		}
	}
	if g := b.renew("n1", 0); !g.Zero() {
		t.Errorf("one echo of three voters granted %s", g.Duration)
	}
	if g := b.renew("n2", 0); g.Duration != b.cfg.D {
		t.Errorf("two echoes of three voters granted %s", g.Duration)
	}
}

func TestMajorityOfVoters(t *testing.T) {
	for size, majority := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3} {
		var voters []string
		for i := range size {
			voters = append(voters, fmt.Sprint("n", i))
		}
		b := newBoard(t, voters...)
		for _, v := range voters {
			b.renew(v, 0)
		}
		for i, v := range voters {
			if granted, want := !b.renew(v, 0).Zero(), i+1 >= majority; granted != want {
				t.Errorf("%d voters, %d echoes: granted %v", size, i+1, granted)
			}
		}
	}
}

// TestPausedLeaderGrantsNothing: a leader that slept has only old evidence.
func TestPausedLeaderGrantsNothing(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.settle(0, "n1", "n2", "n3")
	b.clock.now += b.cfg.D
	if g := b.renew("n1", 0); !g.Zero() {
		t.Errorf("it granted itself %s", g.Duration)
	}
	if b.holders["n1"].Lease().Valid() {
		t.Error("it holds a lease")
	}
	b.renew("n1", 0)
	if g := b.renew("n1", 0); !g.Zero() {
		t.Errorf("its own echo alone granted %s", g.Duration)
	}
}

// TestGrantLastsFromTheAnchor: the later a grant after the majority's evidence, the shorter.
func TestGrantLastsFromTheAnchor(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.settle(0, "n1", "n2", "n3")
	b.clock.now += second
	if g := b.renew("n1", 0); g.Duration != b.cfg.D-second {
		t.Errorf("got %s, one second after the evidence", g.Duration)
	}
}

func TestAnchorIsTheMajoritysNotTheLatest(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.settle(0, "n1", "n2", "n3")
	b.clock.now += second
	b.renew("n1", 0)
	b.clock.now += second / 2
	// n1's proof is now of one second later; those of n2 and n3 are old, and a majority needs one of them.
	if g := b.renew("n1", 0); g.Duration != b.cfg.D-second*3/2 {
		t.Errorf("got %s", g.Duration)
	}
}

func TestEvidenceMustBeOfThisTable(t *testing.T) {
	for name, change := range map[string]func(*lease.Renew){
		"another term":    func(r *lease.Renew) { r.Echo.Term = 1 },
		"unknown grant":   func(r *lease.Renew) { r.Echo.GrantSeq += 100 },
		"another process": func(r *lease.Renew) { r.Boot = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, "n1")
			b.renew("n1", 0)
			r := b.holders["n1"].Renew(fixed(2), fixed(0))
			change(&r)
			if g, err := b.table.Renew(r, fixed(0)); err != nil || !g.Zero() {
				t.Errorf("granted %s, %v", g.Duration, err)
			}
		})
	}
}

func TestNonvotersDoNotCountButAreServed(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.renew("n1", 0)
	b.renew("observer", 0)
	b.renew("n1", 0)
	if g := b.renew("observer", 0); !g.Zero() {
		t.Errorf("a non-voter's echo made a majority: %s", g.Duration)
	}
	b.settle(0, "n1", "n2", "n3")
	if g := b.renew("observer", 0); g.Duration != b.cfg.D {
		t.Errorf("a non-voter got %s", g.Duration)
	}
}

func TestSetVotersMovesTheMajority(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.settle(0, "n1", "n2")
	b.table.SetVoters([]string{"n1", "n2", "n3", "n4"})
	if g := b.renew("n1", 0); !g.Zero() {
		t.Errorf("two of four voters granted %s", g.Duration)
	}
}

func TestHigherTermDeposes(t *testing.T) {
	b := newBoard(t, "n1", "n2", "n3")
	b.settle(0, "n1", "n2", "n3")
	r := b.holders["n2"].Renew(fixed(3), fixed(0))
	if _, err := b.table.Renew(r, fixed(0)); !errors.Is(err, lease.ErrDeposed) {
		t.Errorf("renewal of a higher term: %v", err)
	}
}

func TestGrantCarriesTheFloor(t *testing.T) {
	b := newBoard(t, "n1")
	b.settle(4, "n1")
	b.floor = 9
	g := b.renew("n1", 4)
	if g.Floor != 9 {
		t.Errorf("floor %d", g.Floor)
	}
}

var all = []string{"n1", "n2", "n3"}

func TestAckedAtOnceWhenAllHaveApplied(t *testing.T) {
	b := newBoard(t, all...)
	b.settle(7, all...)
	if a := b.table.Acked(7, all); !a.Done || len(a.Expired) != 0 {
		t.Errorf("%+v", a)
	}
	if a := b.table.Acked(8, all); a.Done || !slices.Equal(a.Pending, all) {
		t.Errorf("index 8: %+v", a)
	}
}

func TestAckWaitsForTheLease(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Minute // the election is long ago
	b.settle(7, all...)
	b.renew("n1", 8)
	b.renew("n2", 8)
	wait := b.cfg.W(b.cfg.D)
	a := b.table.Acked(8, all)
	if a.Done || !slices.Equal(a.Pending, []string{"n3"}) || a.Next != wait+1 {
		t.Fatalf("%+v", a)
	}
	b.clock.now += wait
	if b.table.Acked(8, all).Done {
		t.Error("done at the bound itself")
	}
	b.clock.now++
	if a := b.table.Acked(8, all); !a.Done || !slices.Equal(a.Expired, []string{"n3"}) {
		t.Errorf("after the bound: %+v", a)
	}
}

// TestAckWaitsForDriftToo: D is over, W(D) is not: the holder's clock may be slow.
func TestAckWaitsForDriftToo(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Minute
	b.settle(7, all...)
	b.clock.now += b.cfg.D + 1
	if b.table.Acked(8, all).Done {
		t.Error("done after D")
	}
}

// TestNewLeaderWaitsForTheUnreachable: an earlier leader may have granted until just before the election.
func TestNewLeaderWaitsForTheUnreachable(t *testing.T) {
	b := newBoard(t, all...)
	b.renew("n1", 8)
	b.renew("n2", 8)
	a := b.table.Acked(8, all)
	if a.Done || !slices.Equal(a.Pending, []string{"n3"}) || a.Next != b.cfg.W(b.cfg.D)+1 {
		t.Fatalf("%+v", a)
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	if a := b.table.Acked(8, all); !a.Done || !slices.Equal(a.Expired, []string{"n3"}) {
		t.Errorf("%+v", a)
	}
}

// TestNewLeaderWaitsForWhatTheRegisteredHaveLeft: reporting to the new leader does not end the old leader's lease, but bounds it.
func TestNewLeaderWaitsForWhatTheRegisteredHaveLeft(t *testing.T) {
	b := newBoard(t, all...)
	b.settle(7, all...) // by the leader of term 2
	b.clock.now += second
	b.table = lease.NewTable(b.cfg, b.clock, 3, b.clock.now, all)
	for _, n := range all {
		r := b.holders[n].Renew(fixed(3), fixed(7))
		if r.Remaining[lease.Serving] != b.cfg.D-second {
			t.Fatalf("%s has %s left", n, r.Remaining[lease.Serving])
		}
		if _, err := b.table.Renew(r, fixed(0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.table.Renew(b.holders["n1"].Renew(fixed(3), fixed(8)), fixed(0)); err != nil {
		t.Fatal(err)
	}
	wait := b.cfg.W(b.cfg.D - second)
	if a := b.table.Acked(8, []string{"n1", "n3"}); a.Done || !slices.Equal(a.Pending, []string{"n2", "n3"}) || a.Next != wait+1 {
		t.Fatalf("%+v", a)
	}
	b.clock.now += wait
	if b.table.Acked(8, all).Done {
		t.Error("done at the bound")
	}
	b.clock.now++
	if a := b.table.Acked(8, all); !a.Done || !slices.Equal(a.Expired, []string{"n2", "n3"}) {
		t.Errorf("after the bound: %+v", a)
	}
}

// TestWhatIsLeftIsFinalOnlyInTheLeadersTerm: a node that has not reached the term may still install older grants.
func TestWhatIsLeftIsFinalOnlyInTheLeadersTerm(t *testing.T) {
	b := newBoard(t, all...)
	if _, err := b.table.Renew(b.holders["n3"].Renew(fixed(1), fixed(7)), fixed(0)); err != nil {
		t.Fatal(err)
	}
	if a := b.table.Acked(8, []string{"n3"}); a.Done || a.Next != b.cfg.W(b.cfg.D)+1 {
		t.Errorf("%+v", a)
	}
}

// TestAProcessIsNotTakenForTheOnlyOne: another on a copy of its storage may hold a lease of the leader before this one, until so long after a leader
// had the state in which it serves alone that none can. How long it has run says nothing: both may have.
func TestAProcessIsNotTakenForTheOnlyOne(t *testing.T) {
	w := lease.Default().W(lease.Default().D)
	for name, c := range map[string]struct {
		boot  string // of the incumbent, by the state of the leader, since index 5
		since uint64 // by its own state
		floor uint64 // of the leader before
		ago   time.Duration
		drop  bool
		wait  time.Duration
	}{
		"served for a moment":            {boot: "young", since: 5, floor: 5, wait: w},
		"served a while":                 {boot: "young", since: 5, floor: 6, ago: 3 * second, wait: lease.Default().W(w - 3*second)},
		"served long":                    {boot: "young", since: 5, floor: 5, ago: 4 * second},
		"no leader was known to know":    {boot: "young", since: 5, floor: 4, ago: time.Hour, wait: w},
		"it does not know":               {boot: "young", floor: 5, ago: time.Hour, wait: w},
		"a clock was wrong meanwhile":    {boot: "young", since: 5, floor: 5, ago: time.Hour, drop: true, wait: w},
		"another served meanwhile":       {boot: "young", since: 3, floor: 5, ago: time.Hour, wait: w},
		"another serves":                 {boot: "old", since: 5, floor: 5, ago: time.Hour, wait: w},
		"nobody ever served":             {since: 5, floor: 5, ago: time.Hour},
		"nobody ever served, just begun": {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, all...)
			h := lease.NewHolder("n3", "young", b.clock).With(b.cfg, 2, nil).Incumbent(func() uint64 { return c.since })
			before := lease.NewTable(b.cfg, b.clock, 1, b.clock.now, all)
			g, err := before.Renew(h.Renew(fixed(1), fixed(8)), fixed(c.floor))
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Install(g, fixed(8)); !errors.Is(err, lease.ErrNoEvidence) {
				t.Fatal(err)
			}
			if c.drop {
				h.Drop()
			}
			b.clock.now += c.ago
			b.table = lease.NewTable(b.cfg, b.clock, 2, b.clock.now, all)
			b.table.Incumbents(func(string) (string, uint64) { return c.boot, 5 })
			if _, err := b.table.Renew(h.Renew(fixed(2), fixed(8)), fixed(0)); err != nil {
				t.Fatal(err)
			}
			a := b.table.Acked(8, []string{"n3"})
			if c.wait == 0 {
				if !a.Done || len(a.Expired) != 0 {
					t.Errorf("%+v", a)
				}
				return
			}
			if a.Done || a.Next != c.wait+1 {
				t.Errorf("%+v, want to wait %s", a, c.wait)
			}
		})
	}
}

// TestAnIncumbentThatHasNotRenewedIsWaitedFor: the state had it serve meanwhile, and it may have a lease of an earlier term.
func TestAnIncumbentThatHasNotRenewedIsWaitedFor(t *testing.T) {
	b := newBoard(t, all...)
	incumbent := ""
	b.table.Incumbents(func(node string) (string, uint64) {
		if node == "n3" {
			return incumbent, 5
		}
		return "", 0
	})
	b.settle(8, all...)
	if a := b.table.Acked(8, all); !a.Done {
		t.Errorf("nobody ever served: %+v", a)
	}
	incumbent = "boot-n3"
	if a := b.table.Acked(8, []string{"n3"}); !a.Done {
		t.Errorf("it has renewed: %+v", a)
	}
	incumbent = "another"
	if a := b.table.Acked(8, []string{"n3"}); a.Done || a.Next != b.cfg.W(b.cfg.D)+1 {
		t.Errorf("it has not: %+v", a)
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	if a := b.table.Acked(8, []string{"n3"}); !a.Done {
		t.Errorf("W after the election: %+v", a)
	}
}

// TestLatest: what the state may have serve is the process that renewed last, and no other.
func TestLatest(t *testing.T) {
	b := newBoard(t, all...)
	ask := func(boot string) string {
		latest, err := b.table.Latest("n3", boot)
		return fmt.Sprint(latest, " ", err)
	}
	older := lease.NewHolder("n3", "older", b.clock).With(b.cfg, 4, nil)
	younger := lease.NewHolder("n3", "younger", b.clock).With(b.cfg, 5, nil)
	if got := ask("older"); got != "false <nil>" {
		t.Errorf("of a node that has not renewed: %s", got)
	}
	for i, h := range []*lease.Holder{older, younger} {
		if _, err := b.table.Renew(h.Renew(fixed(1), fixed(0)), fixed(0)); err != nil { // of an older term, in which it may hold something
			t.Fatal(err)
		}
		if b.table.Refused("n3", "older") {
			t.Error("nobody was refused")
		}
		want := []string{"true <nil>, false <nil>", "false " + lease.ErrOlderTwin.Error() + ", true <nil>"}[i]
		if got := ask("older") + ", " + ask("younger"); got != want {
			t.Errorf("after %d renewals: %s, want %s", i+1, got, want)
		}
	}
	if _, err := b.table.Renew(older.Renew(fixed(1), fixed(0)), fixed(0)); !errors.Is(err, lease.ErrOlderTwin) || !b.table.Refused("n3", "older") {
		t.Errorf("beside the younger: %v", err)
	}
}

// TestTheOlderTwinGetsNothing: of two processes on copies of one storage.
func TestTheOlderTwinGetsNothing(t *testing.T) {
	b := newBoard(t, all...)
	older := lease.NewHolder("n3", "older", b.clock).With(b.cfg, 4, nil)
	younger := lease.NewHolder("n3", "younger", b.clock).With(b.cfg, 5, nil)
	equal := lease.NewHolder("n3", "equal", b.clock).With(b.cfg, 5, nil)
	for _, c := range []struct {
		who  *lease.Holder
		want error
	}{{older, nil}, {younger, nil}, {older, lease.ErrOlderTwin}, {equal, lease.ErrOlderTwin}, {younger, nil}} {
		if _, err := b.table.Renew(c.who.Renew(fixed(2), fixed(0)), fixed(0)); !errors.Is(err, c.want) {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	for _, c := range []struct {
		who  *lease.Holder
		want error
	}{{younger, nil}, {older, lease.ErrOlderTwin}} { // it was silent, and is back
		if _, err := b.table.Renew(c.who.Renew(fixed(2), fixed(0)), fixed(0)); !errors.Is(err, c.want) {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1 // the younger is not heard any more
	if _, err := b.table.Renew(older.Renew(fixed(2), fixed(0)), fixed(0)); err != nil {
		t.Errorf("it has outlived the younger: %v", err)
	}
	if _, err := b.table.Renew(younger.Renew(fixed(2), fixed(0)), fixed(0)); err != nil {
		t.Errorf("the younger is back: %v", err)
	}
	if _, err := b.table.Renew(older.Renew(fixed(2), fixed(0)), fixed(0)); !errors.Is(err, lease.ErrOlderTwin) {
		t.Errorf("beside the younger: %v", err)
	}
}

// TestAvailableLeases: a longer lease has an entry of its own, is given on request only, and is waited for where it matters.
func TestAvailableLeases(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Hour
	b.settle(7, all...)
	b.holders["n3"].Want()
	if g := b.renew("n3", 7); g.Available != 0 {
		t.Fatalf("granted %s although the state knows of nothing to use it for", g.Available)
	}
	b.table.AllowAvailable()
	if g := b.renew("n2", 7); g.Available != 0 {
		t.Errorf("n2 did not ask and got %s", g.Available)
	}
	if g := b.renew("n3", 7); g.Available != b.cfg.Available {
		t.Fatalf("granted %s", g.Available)
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	if l := b.holders["n3"].Available(); !l.Valid() || b.holders["n3"].Lease().Valid() {
		t.Error("the longer lease should outlive the shorter")
	}
	b.renew("n1", 8)
	b.renew("n2", 8)
	if a := b.table.Acked(8, all); !a.Done || !slices.Equal(a.Expired, []string{"n3"}) {
		t.Errorf("under serving leases: %+v", a)
	}
	if a := b.table.AckedFor(lease.Available, 8, all); a.Done || !slices.Equal(a.Pending, []string{"n3"}) {
		t.Errorf("under available leases: %+v", a)
	}
	b.clock.now += b.cfg.W(b.cfg.Available)
	if a := b.table.AckedFor(lease.Available, 8, all); !a.Done || b.holders["n3"].Available().Valid() {
		t.Errorf("after its end: %+v", a)
	}
	r := b.holders["n3"].Renew(fixed(2), fixed(8))
	if r.Available {
		t.Error("it goes on asking for what nobody uses")
	}
}

// TestADistrustedClockProvesNothing: the leader's clock stood still, so its evidence is older than it looks.
func TestADistrustedClockProvesNothing(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Hour
	b.settle(7, all...)
	b.table.Distrust()
	if g, err := b.table.Renew(b.holders["n2"].Renew(fixed(2), fixed(7)), fixed(0)); err != nil || !g.Zero() {
		t.Errorf("granted %s, %v", g.Duration, err)
	}
	if a := b.table.Acked(8, all); a.Done || len(a.Pending) != 3 {
		t.Errorf("%+v", a)
	}
}

func TestLeaseOfAnIndexAppliedLaterReleases(t *testing.T) {
	b := newBoard(t, all...)
	b.settle(7, all...)
	for _, n := range all {
		b.renew(n, 8)
	}
	if a := b.table.Acked(8, all); !a.Done {
		t.Errorf("%+v", a)
	}
}

// TestDelayedReportOfAnEarlierProcess: a restarted node has forgotten what its earlier process had applied.
func TestDelayedReportOfAnEarlierProcess(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Minute
	b.settle(7, all...)
	old := b.holders["n3"].Renew(fixed(2), fixed(8)) // sent, and held up on the way
	b.holders["n3"] = lease.NewHolder("n3", "second boot", b.clock)
	b.renew("n3", 7)
	if g := b.renew("n3", 7); g.Zero() {
		t.Fatal("the second process got no lease")
	}
	if _, err := b.table.Renew(old, fixed(0)); err != nil {
		t.Fatal(err)
	}
	b.renew("n1", 8)
	b.renew("n2", 8)
	if a := b.table.Acked(8, all); !slices.Equal(a.Pending, []string{"n3"}) {
		t.Errorf("the earlier process vouched for the later: %+v", a)
	}
}

func TestEarlierProcessIsWaitedFor(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Minute
	b.settle(7, all...)
	b.holders["n3"] = lease.NewHolder("n3", "second boot", b.clock)
	for _, n := range all {
		b.renew(n, 8)
	}
	if a := b.table.Acked(8, all); !slices.Equal(a.Pending, []string{"n3"}) {
		t.Errorf("the earlier process still has a lease: %+v", a)
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	if a := b.table.Acked(8, all); !a.Done || len(a.Expired) != 0 {
		t.Errorf("%+v", a)
	}
}

func TestLeaseOutsideTheServingSetIsWaitedFor(t *testing.T) {
	b := newBoard(t, all...)
	b.clock.now += time.Minute
	b.settle(7, all...)
	b.renew("n1", 8)
	b.renew("n2", 8)
	if a := b.table.Acked(8, []string{"n1", "n2"}); a.Done || !slices.Equal(a.Pending, []string{"n3"}) {
		t.Errorf("n3 has left with a lease in hand: %+v", a)
	}
}

func TestDrained(t *testing.T) {
	b := newBoard(t, all...)
	if b.table.Drained("n3") {
		t.Error("drained before earlier leases have run out")
	}
	b.settle(7, all...)
	b.clock.now += b.cfg.W(b.cfg.D)
	if b.table.Drained("n3") {
		t.Error("drained at the bound")
	}
	b.clock.now++
	if !b.table.Drained("n3") || !b.table.Drained("stranger") {
		t.Error("not drained after every lease has run out")
	}
}

func TestReported(t *testing.T) {
	b := newBoard(t, all...)
	if _, known := b.table.Reported("n2"); known {
		t.Error("known before it reported")
	}
	b.renew("n2", 7)
	b.renew("n2", 5) // overtaken on the way
	b.clock.now += second
	if got, known := b.table.Reported("n2"); got != (lease.Report{Applied: 7, Age: second}) || !known {
		t.Errorf("%+v, %v", got, known)
	}
	if b.table.Term() != 2 {
		t.Errorf("term %d", b.table.Term())
	}
}

func TestRestartsAreBounded(t *testing.T) {
	b := newBoard(t, all...)
	b.settle(0, all...)
	var err error
	for i := 0; i < 20 && err == nil; i++ {
		h := lease.NewHolder("n3", fmt.Sprint("life ", i), b.clock)
		_, err = b.table.Renew(h.Renew(fixed(2), fixed(0)), fixed(0))
	}
	if !errors.Is(err, lease.ErrTooManyBoots) {
		t.Errorf("20 restarts within a lease: %v", err)
	}
	b.clock.now += b.cfg.W(b.cfg.D) + 1
	b.settle(0, "n1", "n2")
	h := lease.NewHolder("n3", "last", b.clock)
	if _, err := b.table.Renew(h.Renew(fixed(2), fixed(0)), fixed(0)); err != nil {
		t.Errorf("after the leases have run out: %v", err)
	}
}
