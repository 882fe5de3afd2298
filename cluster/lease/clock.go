package lease

import (
	"errors"
	"fmt"
	"time"
)

// Clock tells the time since an arbitrary origin. It must be monotonic and must not stop; its rate may differ from real
// time's by the fraction Config.Rho at most.
type Clock interface {
	Now() time.Duration
}

type monotonic struct{ origin time.Time }

// Monotonic returns Go's monotonic clock (CLOCK_MONOTONIC: slewed by NTP, never stepped, stops while the machine sleeps).
func Monotonic() Clock { return monotonic{origin: time.Now()} }

func (m monotonic) Now() time.Duration { return time.Since(m.origin) }

// ErrClock: this machine's clocks do not agree with each other, or with another node's. One of them stood still or jumped.
var ErrClock = errors.New("lease: clocks disagree")

// maxDisagreement between the clocks of one machine, beyond what rates explain.
const maxDisagreement = 100 * time.Millisecond

// Watch compares the clocks of one machine with each other, look by look.
type Watch struct {
	rho        float64
	last       Readings
	begun      bool
	boot, wall time.Duration // how far these have come ahead of monotonic, beyond what rates explain
}

// NewWatch returns a watch that has seen nothing.
func NewWatch(cfg Config) *Watch { return &Watch{rho: cfg.Rho} }

// Readings of the clocks at one moment, each since its own origin.
type Readings struct{ Monotonic, Boot, Wall time.Duration }

// Look takes new readings. ErrClock: one clock has gone on without another, at once or little by little. Who is right cannot be known.
func (w *Watch) Look(r Readings) error {
	last, begun := w.last, w.begun
	w.last, w.begun = r, true
	if !begun {
		return nil
	}
	mono, boot, wall := r.Monotonic-last.Monotonic, r.Boot-last.Boot, r.Wall-last.Wall
	// What rates explain is forgotten, the rest is kept: many small disagreements are one large one.
	allowed := apart(mono, w.rho)
	w.boot, w.wall = beyond(w.boot+boot-mono, allowed), beyond(w.wall+wall-mono, allowed)
	if max(w.boot, w.wall, 0)-min(w.boot, w.wall, 0) <= maxDisagreement {
		return nil
	}
	w.boot, w.wall = 0, 0
	return fmt.Errorf("%w: monotonic went on by %s, boot time by %s, wall time by %s", ErrClock, mono, boot, wall)
}

// apart is how far the fastest clock comes ahead of the slowest while that counts d.
func apart(d time.Duration, rho float64) time.Duration {
	return time.Duration(float64(d) * 2 * rho / (1 - rho))
}

// beyond is what is left of a difference when allowed is taken off, whatever its sign.
func beyond(difference, allowed time.Duration) time.Duration {
	if difference < 0 {
		return min(0, difference+allowed)
	}
	return max(0, difference-allowed)
}
