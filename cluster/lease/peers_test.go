package lease_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// party is processes that hear each other. Real time passes for all of them; a clock that is frozen stands still.
type party struct {
	cfg    lease.Config
	clocks map[string]*fakeClock
	rates  map[string]float64
	peers  map[string]*lease.Peers
}

func newParty(names ...string) *party {
	p := &party{cfg: lease.Default(), clocks: map[string]*fakeClock{}, rates: map[string]float64{}, peers: map[string]*lease.Peers{}}
	for i, name := range names {
		p.clocks[name], p.rates[name] = &fakeClock{now: time.Duration(i) * time.Hour}, 1
		p.peers[name] = lease.NewPeers(p.cfg, name, p.clocks[name])
	}
	p.pass(time.Minute)
	return p
}

func (p *party) pass(d time.Duration) {
	for name, c := range p.clocks {
		c.now += time.Duration(float64(d) * p.rates[name])
	}
}

func (p *party) freeze(name string, d time.Duration) {
	now := p.clocks[name].now
	p.pass(d)
	p.clocks[name].now = now
}

// renew is a renewal of one process with another and its answer.
func (p *party) renew(holder, leader string) (atLeader, atHolder error) {
	atLeader = p.peers[leader].Heard(p.peers[holder].Own())
	p.peers[holder].Told(p.peers[leader].Others())
	return atLeader, p.peers[holder].Heard(p.peers[leader].Own())
}

// lead lets the others renew with a leader for a while.
func (p *party) lead(leader string, d time.Duration) (err error) {
	for end := d; end > 0; end -= p.cfg.Period() {
		for name := range p.peers {
			if name != leader {
				a, b := p.renew(name, leader)
				err = errors.Join(err, a, b)
			}
		}
		p.pass(p.cfg.Period())
	}
	return err
}

// TestAFreezeShowsUnderAnotherLeader: the first word of the new leader is enough, be the frozen one the old leader, which knows the
// new one's clock from its renewals, or a follower, which has never spoken with it.
func TestAFreezeShowsUnderAnotherLeader(t *testing.T) {
	for _, frozen := range []string{"n1", "n3"} {
		p := newParty("n1", "n2", "n3")
		if err := p.lead("n1", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		p.freeze(frozen, 10*time.Second)
		if _, err := p.renew(frozen, "n2"); !errors.Is(err, lease.ErrClock) {
			t.Errorf("%s, frozen while the leader changed, by the answer of the new one: %v", frozen, err)
		}
		if a, b := p.renew(frozen, "n2"); a != nil || b != nil {
			t.Errorf("the second exchange after it: %v, %v", a, b)
		}
	}
}

// TestAFreezeShowsByARenewal: a leader that was frozen learns of it from the renewals that it gets, whatever their term.
func TestAFreezeShowsByARenewal(t *testing.T) {
	p := newParty("n1", "n2", "n3")
	_ = p.lead("n1", 10*time.Second)
	p.freeze("n1", 5*time.Second)
	if err, _ := p.renew("n2", "n1"); !errors.Is(err, lease.ErrClock) || errors.Is(err, lease.ErrOneClock) {
		t.Errorf("%v", err)
	}
}

// TestHearsayHidesNothing: what another says of a clock accuses nobody, and leaves the evidence to that clock's own word.
func TestHearsayHidesNothing(t *testing.T) {
	p := newParty("n1", "n2", "n3")
	_ = p.lead("n1", 10*time.Second)
	p.freeze("n3", 5*time.Second)
	p.peers["n3"].Told([]lease.Reading{p.peers["n2"].Own()})
	if _, err := p.renew("n3", "n2"); !errors.Is(err, lease.ErrClock) {
		t.Errorf("%v", err)
	}
}

// TestRatesAndDelaysAreNoEvidence: clocks anywhere within the margin, leaders that change, and words that arrive late.
func TestRatesAndDelaysAreNoEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newParty("n1", "n2", "n3")
		for _, name := range []string{"n1", "n2", "n3"} {
			p.rates[name] = rapid.SampledFrom([]float64{0.9, 1, 1.1}).Draw(t, name)
		}
		for range rapid.IntRange(1, 300).Draw(t, "exchanges") {
			leader := rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "leader")
			own, others := p.peers[leader].Own(), p.peers[leader].Others()
			p.pass(time.Duration(rapid.IntRange(0, 400).Draw(t, "delay")) * time.Millisecond)
			p.peers["n3"].Told(others)
			if err := p.peers["n3"].Heard(own); err != nil {
				t.Fatal(err)
			}
			if err, _ := p.renew("n2", "n1"); err != nil {
				t.Fatal(err)
			}
			p.pass(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Millisecond)
		}
	})
}

// TestWhatIsToldIsNotExact: a slow teller has continued a fast clock for two periods, when that process speaks itself.
func TestWhatIsToldIsNotExact(t *testing.T) {
	p := newParty("n1", "n2", "n3")
	p.cfg.D = time.Minute
	for name, clock := range p.clocks {
		p.peers[name] = lease.NewPeers(p.cfg, name, clock)
	}
	p.rates["n1"], p.rates["n2"] = 0.9, 1.1
	p.pass(time.Minute)
	_, _ = p.renew("n2", "n1")
	p.pass(2 * p.cfg.Period())
	_, _ = p.renew("n3", "n1")
	if _, err := p.renew("n3", "n2"); err != nil {
		t.Error(err)
	}
}

// TestAPauseIsNoEvidence: a process that was stopped finds old words first, then new ones; its clock went on.
func TestAPauseIsNoEvidence(t *testing.T) {
	for pause := time.Second; pause < time.Minute; pause += time.Second {
		p := newParty("n1", "n2")
		_ = p.lead("n1", 10*time.Second)
		queued := p.peers["n1"].Own()
		p.pass(pause)
		if err := p.peers["n2"].Heard(queued); err != nil {
			t.Errorf("what it finds after %s: %v", pause, err)
		}
		p.pass(10 * time.Millisecond)
		if _, err := p.renew("n2", "n1"); err != nil {
			t.Errorf("the first word after %s: %v", pause, err)
		}
	}
}

// TestSmallFreezesAddUp: each is below what one message shows.
func TestSmallFreezesAddUp(t *testing.T) {
	p := newParty("n1", "n2")
	_ = p.lead("n1", 10*time.Second)
	for range 4 {
		p.freeze("n2", 600*time.Millisecond)
		p.pass(p.cfg.Period())
		if _, err := p.renew("n2", "n1"); err != nil {
			return
		}
	}
	t.Error("2.4 s in 1.5 s were not seen")
}

// TestAClockThatFellBackIsFollowed: it was the other node that slept, an hour. For a while it proves nothing; then it does again.
func TestAClockThatFellBackIsFollowed(t *testing.T) {
	p := newParty("n1", "n2")
	_ = p.lead("n1", 10*time.Second)
	p.freeze("n1", time.Hour)
	if _, err := p.renew("n2", "n1"); err != nil {
		t.Errorf("a clock that is late accuses: %v", err)
	}
	_ = p.lead("n1", 2*p.cfg.W(p.cfg.D)+time.Second)
	p.freeze("n2", 3*time.Second)
	if _, err := p.renew("n2", "n1"); !errors.Is(err, lease.ErrClock) {
		t.Errorf("its new pace is not followed: %v", err)
	}
}

// TestOneWrongClock jumps with each renewal, here to a leader: the others lose nothing by it, and the leader hears that it is one only. When
// it is steady again, or when another confirms it, it counts.
func TestOneWrongClock(t *testing.T) {
	p := newParty("n1", "n2", "n3")
	_ = p.lead("n1", 10*time.Second)
	jump := func(name string) error {
		p.pass(p.cfg.Period())
		p.clocks[name].now += 10 * time.Second
		atLeader, _ := p.renew(name, "n1")
		return atLeader
	}
	if err := jump("n2"); !errors.Is(err, lease.ErrClock) || errors.Is(err, lease.ErrOneClock) {
		t.Errorf("the first time: %v", err)
	}
	for range 20 {
		if err := jump("n2"); !errors.Is(err, lease.ErrOneClock) || !errors.Is(err, lease.ErrClock) {
			t.Errorf("again: %v", err)
		}
		if _, err := p.renew("n3", "n1"); err != nil {
			t.Errorf("another node is told of it: %v", err)
		}
	}
	p.freeze("n1", 10*time.Second)
	if err, _ := p.renew("n3", "n1"); !errors.Is(err, lease.ErrClock) || errors.Is(err, lease.ErrOneClock) {
		t.Errorf("another: %v", err)
	}
	p.pass(time.Millisecond)
	if err, _ := p.renew("n2", "n1"); !errors.Is(err, lease.ErrClock) || errors.Is(err, lease.ErrOneClock) {
		t.Errorf("with another: %v", err)
	}
	if err := p.lead("n1", 2*p.cfg.W(p.cfg.D)); err != nil {
		t.Errorf("steady: %v", err)
	}
	if err := jump("n2"); !errors.Is(err, lease.ErrClock) || errors.Is(err, lease.ErrOneClock) {
		t.Errorf("once more, long after: %v", err)
	}
}

// TestNoReadingIsNoEvidence: a node of an older release says less, and a process's own clock says nothing of itself.
func TestNoReadingIsNoEvidence(t *testing.T) {
	p := newParty("n1", "n2")
	for _, r := range []lease.Reading{{}, {Uptime: time.Hour}, {Boot: "n2"}, {Boot: "n1", Uptime: time.Minute}, {Boot: "n1", Uptime: time.Hour}} {
		if err := p.peers["n1"].Heard(r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if others := p.peers["n1"].Others(); len(others) != 0 {
		t.Errorf("remembered %+v", others)
	}
}

func TestPeersAreFew(t *testing.T) {
	p := newParty("n1")
	for i := range 10_000 {
		_ = p.peers["n1"].Heard(lease.Reading{Boot: fmt.Sprint("boot ", i), Uptime: time.Second})
	}
	few := len(p.peers["n1"].Others())
	if few > 1000 {
		t.Errorf("%d processes are remembered", few)
	}
	p.pass(time.Hour)
	_ = p.peers["n1"].Heard(lease.Reading{Boot: "late", Uptime: time.Second})
	if others := p.peers["n1"].Others(); len(others) != 1 || others[0] != (lease.Reading{Boot: "late", Uptime: time.Second}) {
		t.Errorf("an hour later: %+v", others)
	}
}

func BenchmarkPeers(b *testing.B) {
	p := newParty("n1", "n2", "n3", "n4", "n5")
	_ = p.lead("n1", time.Second)
	b.Run("heard", func(b *testing.B) {
		r := p.peers["n2"].Own()
		b.ReportAllocs()
		for b.Loop() {
			_ = p.peers["n1"].Heard(r)
		}
	})
	b.Run("others", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.peers["n1"].Others()
		}
	})
}
