package fsm

import (
	"cmp"
	"slices"
	"time"
)

// Limits of classes.
const (
	MaxClasses     = 256 // custom ones: the scheduler looks at each once a second
	MaxDescription = 512 // bytes
	MaxPeriod      = 100 * 365 * day
	// MinPeriod of rotations and cryptoperiods: below it the log would hold little else, and MaxVersions would be used up.
	MinPeriod   = time.Hour
	maxQuorum   = 16 // as many people as a roster has
	maxGroups   = 16
	maxApproval = 16
)

// normal puts lists into order, so that equal classes look equal.
func (c Class) normal() Class {
	c.Algorithms = slices.Compact(slices.Sorted(slices.Values(c.Algorithms)))
	c.Approvals = slices.SortedFunc(slices.Values(c.Approvals), func(a, b Approval) int { return cmp.Compare(a.Operation, b.Operation) })
	for i, a := range c.Approvals {
		c.Approvals[i].Groups = slices.Compact(slices.Sorted(slices.Values(a.Groups)))
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = nil
	}
	return c
}

// ValidClass accepts a custom class as a whole.
func ValidClass(c Class) error {
	if !isDNSLabel(c.Name) {
		return invalid("class name %q: 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'", clip(c.Name))
	}
	if err := validText("the description", c.Description, MaxDescription); err != nil {
		return err
	}
	for _, check := range []func(Class) error{validAlgorithms, validPeriods, validBudget, validApprovals, validModes} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func validAlgorithms(c Class) error {
	if len(c.Algorithms) > maxAlgorithms {
		return invalid("a class allows at most %d algorithms by name, this one %d", maxAlgorithms, len(c.Algorithms))
	}
	for _, a := range c.Algorithms {
		if !isName(a, maxShort) {
			return invalid("algorithm %q is no algorithm's name", clip(a))
		}
	}
	return nil
}

func validPeriods(c Class) error {
	for _, p := range []struct {
		what string
		d    time.Duration
	}{{"originator period", c.OriginatorPeriod}, {"recipient period", c.RecipientPeriod}, {"rotation period", c.RotateEvery}} {
		if p.d != 0 && (p.d < MinPeriod || p.d > MaxPeriod || p.d%time.Millisecond != 0) {
			return invalid("the %s is %s: it is whole milliseconds between %s and 100 years, or 0 for none", p.what, p.d, MinPeriod)
		}
	}
	switch {
	case c.RecipientPeriod != 0 && (c.OriginatorPeriod == 0 || c.OriginatorPeriod > c.RecipientPeriod):
		return invalid("the recipient period (%s) begins with activation like the originator period (%s), so it is not the shorter one, and does not stand alone", c.RecipientPeriod, c.OriginatorPeriod)
	case c.MinDestroyWait < day || c.MinDestroyWait > MaxDestroyWait || c.MinDestroyWait%time.Millisecond != 0:
		return invalid("the wait before a destruction is %s: it is between 24h, so that somebody can notice, and %s", c.MinDestroyWait, MaxDestroyWait)
	}
	return nil
}

func validBudget(c Class) error {
	b := c.Budget
	limited := b.Operations != 0 || b.Bytes != 0
	switch {
	case limited != (b.Period != 0):
		return invalid("a budget has a period and a number of operations or bytes, or none of them")
	case limited && (b.Period < MinPeriod || b.Period > MaxPeriod || b.Period%time.Millisecond != 0):
		return invalid("the budget's period is %s: it is between %s and 100 years", b.Period, MinPeriod)
	}
	return nil
}

func validApprovals(c Class) error {
	if len(c.Approvals) > maxApproval {
		return invalid("a class names at most %d operations that need approval", maxApproval)
	}
	seen := map[string]bool{}
	for _, a := range c.Approvals {
		switch {
		case !slices.Contains(ApprovalOperations(), a.Operation):
			return invalid("%q needs no approval in any class; what may: %v", clip(a.Operation), ApprovalOperations())
		case seen[a.Operation]:
			return invalid("the approval of %s is given twice", a.Operation)
		case a.Quorum < 1 || a.Quorum > maxQuorum:
			return invalid("%d people approve %s: 1 to %d can", a.Quorum, a.Operation, maxQuorum)
		case len(a.Groups) > maxGroups:
			return invalid("%s names %d groups, at most %d", a.Operation, len(a.Groups), maxGroups)
		}
		seen[a.Operation] = true
		for _, g := range a.Groups {
			if err := ValidPersonName(g); err != nil {
				return err
			}
		}
	}
	return nil
}

func validModes(c Class) error {
	switch c.Lease {
	case LeaseStrict, LeaseLeased:
		if c.LeaseDuration != 0 {
			return invalid("lease mode %s has no duration of its own", c.Lease)
		}
	case LeaseAvailable:
		if c.LeaseDuration != AvailableLease {
			return invalid("lease mode %s lasts %s in every class, not %s", c.Lease, AvailableLease, c.LeaseDuration)
		}
	default:
		return invalid("lease mode %q: %s, %s or %s", clip(string(c.Lease)), LeaseStrict, LeaseLeased, LeaseAvailable)
	}
	if c.UsageLog != UsageDurable && c.UsageLog != UsageBuffered {
		return invalid("usage log %q: %s or %s", clip(string(c.UsageLog)), UsageDurable, UsageBuffered)
	}
	return nil
}
