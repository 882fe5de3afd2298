package fsm

import "time"

// Uses is what a state knows of the uses of a key, for people.
type Uses struct {
	Limit UseLimit // in force; zero: none
	// Spent is what is known to be spent in the present window, and Reserved what nodes have in hand, which counts as spent until they
	// say otherwise.
	Spent, Reserved Amount
	Holders         []UseHolder
	// Since and Renewed are the present window's beginning and end; zero if the limit has no period.
	Since, Renewed time.Time
	// KnownSince is since when uses are recorded. Before it nobody knows.
	KnownSince time.Time
	Versions   []VersionUses // those that were used
}

// UseHolder is a node with what it has in hand.
type UseHolder struct {
	Node NodeID
	Amount
}

// VersionUses is what is known of the uses of a version.
type VersionUses struct {
	Version Version
	// LastUsed is the log's time of the latest report of a use; zero: none since KnownSince. The use itself was up to a few seconds
	// before, and there may have been more in the quarter of an hour after.
	LastUsed time.Time
	// Encryptions counts against Bound, for AES-GCM; both zero for other algorithms.
	Encryptions, Bound uint64
}

// Uses describes the uses of a key at the log's time.
func (s *State) Uses(k Key) Uses {
	u := s.useOf(&k)
	v := Uses{Limit: s.UseLimit(&k), KnownSince: s.ledger.since}
	if k.CreatedAt.After(v.KnownSince) && !v.KnownSince.IsZero() {
		v.KnownSince = k.CreatedAt
	}
	if !v.Limit.None() {
		v.Spent = u.Limited.Spent
		for _, b := range u.Limited.Blocks {
			v.Reserved = v.Reserved.plus(b.Left())
			v.Holders = append(v.Holders, UseHolder{b.Node, b.Left()})
		}
		if v.Limit.Per != 0 {
			v.Since, v.Renewed = fromMillis(v.Limit.window(s.now)), v.Limit.renewal(s.now)
		}
	}
	for _, used := range u.Versions {
		vu := VersionUses{Version: used.Version, LastUsed: fromMillis(used.LastUsed)}
		if BoundsInvocations(k.Algorithm) {
			vu.Encryptions, vu.Bound = used.Protected.Total().Operations, gcmLimit
		}
		v.Versions = append(v.Versions, vu)
	}
	return v
}

// HoldsReserve reports whether a node has a block of a limit that it may spend. It looks at every key that was used.
func (s *State) HoldsReserve(node NodeID) bool {
	holds := false
	s.uses.Scan(func(_ KeyID, u *Use) bool {
		for _, b := range u.Limited.Blocks {
			holds = holds || b.Node == node && s.ended(b) == 0
		}
		return !holds
	})
	return holds
}
