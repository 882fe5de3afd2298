package lease

import (
	"fmt"
	"maps"
	"time"
)

const (
	// maxJump of another process's clock against this one's. Below it are delays of messages.
	maxJump = time.Second
	// maxPeers bounds the remembered processes: a cluster has a few, and each restart adds one for a while.
	maxPeers = 256
)

// ErrOneClock is an ErrClock that rests on the clock of one process, which has jumped before, lately, when no other did: it is the other's
// that is wrong, most likely.
var ErrOneClock = fmt.Errorf("%w: the same one jumps again, and no other", ErrClock)

// Reading of a process's lease clock: for how long it has run.
type Reading struct {
	Boot   string // random id of the process
	Uptime time.Duration
}

// Peers compares other processes' clocks with this one's: a guest that is frozen together with all its clocks can learn of it from others
// only. It knows a process by its boot id, whoever leads, and by what others that heard it say, so that the first word of a leader that
// this process has never heard is evidence. What others say counts by its difference from what they said before; their origins mean
// nothing, and wall clocks, which somebody may set, are not looked at. It is not safe for concurrent use.
type Peers struct {
	cfg   Config
	boot  string
	clock Clock
	begun time.Duration
	paces map[string]*pace
}

// NewPeers returns the Peers of the process boot, which has heard nobody.
func NewPeers(cfg Config, boot string, clock Clock) *Peers {
	return &Peers{cfg: cfg, boot: boot, clock: clock, begun: clock.Now(), paces: make(map[string]*pace)}
}

// Heard takes what a process says of its own clock. ErrClock: this clock stood still, or that one jumped.
func (p *Peers) Heard(r Reading) error {
	now := p.clock.Now()
	their := p.pace(r, now)
	if their == nil {
		return nil
	}
	ahead := r.Uptime - now
	their.heard = now
	if !their.early(ahead, now, p.cfg) {
		their.follow(ahead, now, p.cfg)
		return nil
	}
	last := their.jumped
	*their = pace{ahead: ahead, at: now, best: ahead, since: now, heard: now, jumped: now} // what the next words are compared with
	if last != 0 && now-last <= p.cfg.W(p.cfg.D) && !p.jumpedSince(r.Boot, last) {
		return ErrOneClock
	}
	return fmt.Errorf("%w: another node's went on without this one", ErrClock)
}

// jumpedSince reports whether another process accuses this clock, too.
func (p *Peers) jumpedSince(boot string, last time.Duration) bool {
	for id, other := range p.paces {
		if id != boot && other.jumped >= last {
			return true
		}
	}
	return false
}

// Told takes what a process says of others' clocks: what they will be compared with when they speak. It accuses nobody, else one wrong clock
// would cost all nodes their leases; and it takes no evidence away, because a pace follows what is early only as fast as rates may.
func (p *Peers) Told(others []Reading) {
	now := p.clock.Now()
	for _, r := range others {
		if their := p.pace(r, now); their != nil {
			their.follow(r.Uptime-now, now, p.cfg)
		}
	}
}

// Own is this process's own reading.
func (p *Peers) Own() Reading { return Reading{Boot: p.boot, Uptime: max(1, p.clock.Now()-p.begun)} }

// Others are the readings of those that this process has heard itself within two periods, continued by its own clock until now.
func (p *Peers) Others() []Reading {
	now := p.clock.Now()
	var all []Reading
	for id, their := range p.paces {
		if their.heard != 0 && now-their.heard <= 2*p.cfg.Period() {
			all = append(all, Reading{Boot: id, Uptime: their.ahead + now})
		}
	}
	return all
}

// pace finds or makes that of another process. A node of an older release says nothing: that is no reading.
func (p *Peers) pace(r Reading, now time.Duration) *pace {
	if r.Boot == "" || r.Boot == p.boot || r.Uptime <= 0 {
		return nil
	}
	their := p.paces[r.Boot]
	if their == nil {
		maps.DeleteFunc(p.paces, func(_ string, old *pace) bool { return now-old.at > maxDuration }) // rates explain minutes by then
		if len(p.paces) >= maxPeers {
			return nil
		}
		their = &pace{ahead: r.Uptime - now, at: now, best: r.Uptime - now, since: now}
		p.paces[r.Boot] = their
	}
	return their
}

// pace of another process's clock beside this one. A delay makes the other's readings look late and never early, so one that is early,
// by more than rates can explain, shows that this clock stood still.
type pace struct {
	ahead, at     time.Duration // by how much the other is ahead, as far as rates explain it, and when
	best, since   time.Duration // the most that it was ahead since
	heard, jumped time.Duration // when it last spoke itself, and when it last jumped; 0: never
}

// early reports whether a reading is ahead by more than rates and delays explain.
func (p *pace) early(ahead, now time.Duration, cfg Config) bool {
	// Two periods more, because what was told of it was heard so long before, at most, and continued by the teller's clock.
	return ahead > p.ahead+apart(now-p.at+2*cfg.Period(), cfg.Rho)+maxJump
}

// follow takes a reading in.
func (p *pace) follow(ahead, now time.Duration, cfg Config) {
	drift := apart(now-p.at, cfg.Rho)
	// Not all that it is ahead by, else what accumulates would not be seen; and nothing less, because one that is late says nothing.
	p.ahead, p.at, p.best = min(max(ahead, p.ahead), p.ahead+drift), now, max(p.best, ahead)
	if now-p.since > cfg.W(cfg.D) { // no delay lasts so long: the other fell back, and this is its new pace
		p.ahead, p.best, p.since = min(p.ahead, p.best), ahead, now
	}
}
