package lease

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrConfig reports a Config that cannot keep its promise.
var ErrConfig = errors.New("lease: bad configuration")

// Limits of a Config.
const (
	// minRho: chrony's default maxslewrate lets CLOCK_MONOTONIC run 8.3 % off, so a smaller margin would be a false promise.
	minRho = 0.084
	maxRho = 0.5
	// maxDuration bounds how long a restriction may wait for an unreachable node.
	maxDuration = 10 * time.Minute
)

// Config of leases; equal on every node of a cluster.
type Config struct {
	// D is the longest lease. It bounds how long a node goes on without the leader, and W(D) how long a restriction waits.
	D time.Duration
	// Available is the longest lease of the kind Available, at least D; zero: there are none.
	Available time.Duration
	// Rho is the fraction by which any node's clock rate may differ from real time's.
	Rho float64
}

// Default is D = 3 s, a minute for Available, and ρ = 10 %.
func Default() Config { return Config{D: 3 * time.Second, Available: time.Minute, Rho: 0.10} }

// Validate returns an error that is ErrConfig unless every field is within its limits.
func (c Config) Validate() error {
	if c.D <= 0 || c.D > maxDuration {
		return fmt.Errorf("%w: duration %s is not within (0, %s]", ErrConfig, c.D, maxDuration)
	}
	if c.Available != 0 && (c.Available < c.D || c.Available > maxDuration) {
		return fmt.Errorf("%w: duration of available leases %s is neither 0 nor within [%s, %s]", ErrConfig, c.Available, c.D, maxDuration)
	}
	if !(c.Rho >= minRho && c.Rho <= maxRho) { // so written that NaN fails
		return fmt.Errorf("%w: clock margin %g is not within [%g, %g]", ErrConfig, c.Rho, minRho, maxRho)
	}
	return nil
}

// Longest is how long a lease of a kind may last.
func (c Config) Longest(k Kind) time.Duration {
	if k == Available {
		return c.Available
	}
	return c.D
}

// W is how long the granter must wait on its own clock to be sure that d has passed on any holder's: d(1+ρ)/(1−ρ), because the
// holder's clock may be the slowest allowed and the granter's the fastest.
func (c Config) W(d time.Duration) time.Duration {
	return time.Duration(math.Ceil(float64(d) * (1 + c.Rho) / (1 - c.Rho)))
}

// Period is the time between renewals: D/8, so that several may be lost before a lease runs out.
func (c Config) Period() time.Duration { return c.D / 8 }

// Hurry is the time to the next renewal after a second refusal in a row. It is short because a node without a lease serves
// nobody, and not zero because a leader without a quorum answers at once, for as long as it has none.
func (c Config) Hurry() time.Duration { return c.D / 32 }
