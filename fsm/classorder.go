package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// control is one control of a class: how it reads, and whether it is lower in another class.
type control struct {
	name  string
	value func(Class) string
	lower func(is, was Class) bool
}

// controls are all of them, in the order in which they are told. A class is raised freely and lowered only with approval, so the order
// of each control's values is part of what the class is. Where values cannot be compared (other groups of people), both count as lower.
var controls = []control{
	{"hardware_only", func(c Class) string { return fmt.Sprint(c.HardwareOnly) }, func(is, was Class) bool { return was.HardwareOnly && !is.HardwareOnly }},
	{"algorithms", func(c Class) string { return strings.Join(c.Algorithms, ",") }, func(is, was Class) bool { return !within(is.Algorithms, was.Algorithms) }},
	{"export", func(c Class) string { return fmt.Sprint(c.Export) }, func(is, was Class) bool { return is.Export && !was.Export }},
	{"originator_period", func(c Class) string { return c.OriginatorPeriod.String() }, func(is, was Class) bool { return longer(is.OriginatorPeriod, was.OriginatorPeriod) }},
	{"recipient_period", func(c Class) string { return c.RecipientPeriod.String() }, func(is, was Class) bool { return longer(is.RecipientPeriod, was.RecipientPeriod) }},
	{"rotate_every", func(c Class) string { return c.RotateEvery.String() }, func(is, was Class) bool { return longer(is.RotateEvery, was.RotateEvery) }},
	{"rotate_uses", func(c Class) string { return fmt.Sprint(c.RotateUses) }, func(is, was Class) bool { return longer(is.RotateUses, was.RotateUses) }},
	{"budget", func(c Class) string { return c.Budget.String() }, func(is, was Class) bool { return is.Budget.lower(was.Budget) }},
	{"min_destroy_wait", func(c Class) string { return c.MinDestroyWait.String() }, func(is, was Class) bool { return is.MinDestroyWait < was.MinDestroyWait }},
	{"approvals", func(c Class) string { return approvalsText(c.Approvals) }, lowerApprovals},
	{"mfa", func(c Class) string { return fmt.Sprint(c.MFA) }, func(is, was Class) bool { return was.MFA && !is.MFA }},
	{"lease", func(c Class) string { return string(c.Lease) }, func(is, was Class) bool { return leaseRank(is.Lease) < leaseRank(was.Lease) }},
	{"usage_log", func(c Class) string { return string(c.UsageLog) }, func(is, was Class) bool { return was.UsageLog == UsageDurable && is.UsageLog != UsageDurable }},
	{"exact", func(c Class) string { return fmt.Sprint(c.Exact) }, func(is, was Class) bool { return was.Exact && !is.Exact }},
	{"decrypt_while_suspended", func(c Class) string { return fmt.Sprint(c.DecryptWhileSuspended) }, func(is, was Class) bool { return is.DecryptWhileSuspended && !was.DecryptWhileSuspended }},
}

// Lowered lists the controls that are lower in is than in was.
func Lowered(is, was Class) []string {
	return named(func(c control) bool { return c.lower(is, was) })
}

// Raised lists the controls that are other in is than in was, and not lower.
func Raised(is, was Class) []string {
	return named(func(c control) bool { return c.value(is) != c.value(was) && !c.lower(is, was) })
}

func named(match func(control) bool) []string {
	var names []string
	for _, c := range controls {
		if match(c) {
			names = append(names, c.name)
		}
	}
	return names
}

// told is what the log keeps of a class: the controls that differ from another's.
func (c Class) told(other Class) string {
	var parts []string
	for _, k := range controls {
		if v := k.value(c); v != k.value(other) {
			parts = append(parts, k.name+"="+v)
		}
	}
	return strings.Join(parts, " ")
}

// longer: zero stands for ever.
func longer[N time.Duration | uint64](is, was N) bool { return was != 0 && (is == 0 || is > was) }

// within reports whether one list of what is allowed is inside another; the empty list is everything.
func within(inner, outer []string) bool {
	if len(outer) == 0 {
		return true
	}
	return len(inner) > 0 && !slices.ContainsFunc(inner, func(s string) bool { return !slices.Contains(outer, s) })
}

// String is none, or for example 1000/24h0m0s.
func (b Budget) String() string {
	if b == (Budget{}) {
		return "none"
	}
	return fmt.Sprintf("%d operations,%d bytes/%s", b.Operations, b.Bytes, b.Period)
}

// lower: more in a period, or the same in a shorter one.
func (b Budget) lower(was Budget) bool {
	if was == (Budget{}) {
		return false
	}
	return longer(b.Operations, was.Operations) || longer(b.Bytes, was.Bytes) || b.Period < was.Period
}

func approvalsText(all []Approval) string {
	var parts []string
	for _, a := range all {
		part := fmt.Sprintf("%s:%d", a.Operation, a.Quorum)
		if len(a.Groups) > 0 {
			part += ":" + strings.Join(a.Groups, "+")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

func lowerApprovals(is, was Class) bool {
	return slices.ContainsFunc(was.Approvals, func(a Approval) bool {
		now := is.Approval(a.Operation)
		return now.Quorum < a.Quorum || !within(now.Groups, a.Groups)
	})
}

func leaseRank(m LeaseMode) int {
	switch m {
	case LeaseStrict:
		return 2
	case LeaseLeased:
		return 1
	default:
		return 0
	}
}
