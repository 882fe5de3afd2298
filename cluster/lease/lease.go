package lease

import "time"

// Lease is a right to use keys that ends by itself. The zero Lease is never valid. A Lease is a value: load it first, then load
// the state that the decision rests on, and call Valid or ValidSurely last. Then the lease was valid at the moment of the load,
// even across a pause between any two of these steps.
type Lease struct{ terms *terms }

// terms of a lease; never changed once made.
type terms struct {
	clock, sure        Clock
	expiry, sureExpiry time.Duration
	term               uint64
}

// Valid reads the clock now.
func (l Lease) Valid() bool { return l.terms != nil && l.terms.clock.Now() < l.terms.expiry }

// ValidSurely reads the clock that goes on while the machine sleeps, where the holder was given one, and the other clock where
// it was not. It costs a system call.
func (l Lease) ValidSurely() bool {
	if l.terms == nil || l.terms.sure == nil {
		return l.Valid()
	}
	return l.terms.sure.Now() < l.terms.sureExpiry
}

// Remaining is what is left of the lease now; zero if it is not valid.
func (l Lease) Remaining() time.Duration {
	if l.terms == nil {
		return 0
	}
	return max(0, l.terms.expiry-l.terms.clock.Now())
}

// Term of the leader that granted it; zero for the zero Lease.
func (l Lease) Term() uint64 {
	if l.terms == nil {
		return 0
	}
	return l.terms.term
}
