package fsm

import (
	"cmp"
	"slices"
	"time"
)

// Use is what is known of the uses of one key. There is none for a key that has no budget and was not used.
type Use struct {
	Limit    UseLimit     // the key's own; zero: none
	Window   int64        // beginning of the window that Limited counts in, Unix milliseconds
	Limited  UseAccount   // against the limit in force
	Class    Spending     // against the class's budget, while the key has a limit of its own; its blocks are those of Limited
	Versions []VersionUse // ascending, those that were used
}

// Spending is what was spent in a window.
type Spending struct {
	Window int64 // its beginning, Unix milliseconds
	Spent  Amount
}

// VersionUse is what is known of the uses of a version.
type VersionUse struct {
	Version  Version
	LastUsed int64 // log time of the latest entry that speaks of a use, Unix milliseconds; 0: none does
	// Protected counts encryptions against the bound of AES-GCM. Of other algorithms it has only what was spent, of all uses that count, and
	// only under a class that rotates by them.
	Protected UseAccount
}

// useLedger is what is known of uses in general. Slices are replaced whole.
type useLedger struct {
	since  time.Time // when the first entry about uses came; before it nobody recorded any
	lapses []useLapse
}

// useLapse says that blocks which a node opened before an index ended there.
type useLapse struct {
	node  NodeID
	index uint64
	done  int64 // when that was in force everywhere, Unix milliseconds; 0: not yet
}

// UseRecord is the record of a key's uses, nil if there is none. It must not be modified.
func (s *State) UseRecord(id KeyID) *Use { u, _ := s.uses.Get(id); return u }

// UsesSince is since when uses are recorded; zero: not yet.
func (s *State) UsesSince() time.Time { return s.ledger.since }

// Version finds what is known of a version.
func (u *Use) Version(v Version) (VersionUse, bool) {
	if u == nil {
		return VersionUse{}, false
	}
	i, found := u.find(v)
	if !found {
		return VersionUse{}, false
	}
	return u.Versions[i], true
}

func (u *Use) find(v Version) (int, bool) {
	return slices.BinarySearchFunc(u.Versions, v, func(have VersionUse, want Version) int { return cmp.Compare(have.Version, want) })
}

// account of a version's bound, or (0) of the key's limit.
func (u *Use) account(v Version) UseAccount {
	if v == 0 {
		return u.Limited
	}
	vu, _ := u.Version(v)
	return vu.Protected
}

// withAccount returns u with another account. The versions' slice is copied: the old record is in published states.
func (u Use) withAccount(v Version, a UseAccount) Use {
	if v == 0 {
		u.Limited = a
		return u
	}
	return u.withVersion(v, func(vu *VersionUse) { vu.Protected = a })
}

func (u Use) withVersion(v Version, change func(*VersionUse)) Use {
	u.Versions = slices.Clone(u.Versions)
	i, found := u.find(v)
	if !found {
		u.Versions = slices.Insert(u.Versions, i, VersionUse{Version: v})
	}
	change(&u.Versions[i])
	return u
}

// UsableBlock is the block of a process, if it may be spent under this state.
func (s *State) UsableBlock(id KeyID, v Version, node NodeID, boot string) (UseBlock, bool) {
	b, found := s.HeldBlock(id, v, node, boot)
	return b, found && s.usable(s.KeyRecordByID(id), v, b)
}

// usable: nothing has ended the block. A change of the key's class does, whatever it changed, because the limit may be the class's.
func (s *State) usable(k *Key, v Version, b UseBlock) bool {
	if c := s.ClassRecord(k.Class); v == 0 && c != nil && c.Revision > b.Opened {
		return false
	}
	return s.ended(b) == 0
}

// ended is the index of the restriction that ended a block; 0: none did.
func (s *State) ended(b UseBlock) uint64 {
	if i := s.lapseOf(b.Node); b.Void == 0 && b.Opened < i {
		return i
	}
	return b.Void
}

func (s *State) lapseOf(node NodeID) uint64 {
	for _, l := range s.ledger.lapses {
		if l.node == node {
			return l.index
		}
	}
	return 0
}

// spendable reports whether a process may still be spending a block: it is not of an earlier process of its node, and a restriction
// that ended it, if one did, is not known to be in force everywhere.
func (s *State) spendable(b UseBlock) bool {
	n, member := s.nodes.Get(b.Node)
	ended := s.ended(b)
	return member && n.UnsealedBoot == b.Boot && (ended == 0 || !s.BarrierDone(ended))
}

// useOf is the record of a key as it is now: in a new window nothing is spent, but all that is in hand counts in it too, because nobody knows yet
// when that was or will be spent.
func (s *State) useOf(k *Key) Use {
	var u Use
	if old := s.UseRecord(k.ID); old != nil {
		u = *old
	}
	if class := s.classLimit(k); !class.None() && s.twofold(&u) {
		if start := class.window(s.now); start > u.Class.Window {
			u.Class = Spending{Window: start}
		}
	}
	limit := s.limitIn(k, u.Limit)
	if start := limit.window(s.now); start > u.Window {
		u.Window = start
		s.roll(k, &u)
	}
	return u
}

// roll begins a window. Blocks that nobody can be spending any more are dropped; what was left of them may have been spent in this window,
// because it can have begun before they ended, so it counts in it as spent, unless it is known that it cannot.
func (s *State) roll(k *Key, u *Use) {
	var lost Amount
	u.Limited.Spent = Amount{}
	u.Limited.Blocks = slices.DeleteFunc(slices.Clone(u.Limited.Blocks), func(b UseBlock) bool {
		if s.spendable(b) {
			return false
		}
		if !s.lapsedBefore(b, u.Window) {
			lost = lost.plus(b.Left())
		}
		return true
	})
	if s.FeatureLevel() >= levelOfRigour {
		a := u.Limited
		a.Spent = lost
		*u = s.charged(k, *u, 0, a)
	}
}

// lapsedBefore reports that a block was ended by a lapse that was in force everywhere before a time.
func (s *State) lapsedBefore(b UseBlock, at int64) bool {
	return slices.ContainsFunc(s.ledger.lapses, func(l useLapse) bool {
		return l.node == b.Node && b.Opened < l.index && l.done != 0 && l.done < at
	})
}

// classLimit is the budget that a key's class gives it.
func (s *State) classLimit(k *Key) UseLimit { return s.limitIn(k, UseLimit{}) }

// twofold: beside the key's own limit its class's is counted, so that setting, changing or ending the own one forgets nothing that the
// class's window has seen.
func (s *State) twofold(u *Use) bool { return s.FeatureLevel() >= levelOfRigour && !u.Limit.None() }

// charged is u with another account of what was spent: of a version, or (0) of the limits.
func (s *State) charged(k *Key, u Use, v Version, a UseAccount) Use {
	if v == 0 && s.twofold(&u) && !s.classLimit(k).None() {
		u.Class.Spent = u.Class.Spent.plus(a.Spent.minus(u.Limited.Spent))
	}
	return u.withAccount(v, a)
}

// standing is a limit and what was spent of it, blocks in hand not counted.
type standing struct {
	limit UseLimit
	spent Amount
}

// standings are all limits that a reservation has to fit into.
func (s *State) standings(k *Key, u *Use, v Version) []standing {
	if v != 0 {
		return []standing{{UseLimit{Amount: Amount{Operations: gcmLimit}}, u.account(v).Spent}}
	}
	all := []standing{{s.limitIn(k, u.Limit), u.Limited.Spent}}
	if class := s.classLimit(k); !class.None() && s.twofold(u) {
		all = append(all, standing{class, u.Class.Spent})
	}
	return all
}

// setUse stores the record of a key, and remembers the key if its newest used version is worn.
func (s *State) setUse(id KeyID, u Use) {
	s.uses.Set(id, &u)
	s.noteWear(id, &u)
}

func (s *State) noteWear(id KeyID, u *Use) {
	if len(u.Versions) > 0 {
		if last := u.Versions[len(u.Versions)-1]; s.wears(id, last.Protected) {
			s.worn.Set(id, last.Version)
			return
		}
	}
	s.worn.Delete(id)
}

// wears: so much is reserved that the bound is near, or so much was done that the key's class has it rotated. A class that changes
// counts from the next report on.
func (s *State) wears(id KeyID, a UseAccount) bool {
	k := s.KeyRecordByID(id)
	if k == nil {
		return false
	}
	if BoundsInvocations(k.Algorithm) && a.Total().Operations >= gcmWorn {
		return true
	}
	c := s.ClassRecord(k.Class)
	return c != nil && c.RotateUses > 0 && a.Spent.Operations >= c.RotateUses
}

// wornDue is the rotation of a key that is due because its primary version nears the bound of AES-GCM or was used as often as its class allows.
// Its date is that of the version's activation, so it is the same however often it is looked for.
func (s *State) wornDue(id KeyID) (Due, bool) {
	v, worn := s.worn.Get(id)
	k, found := s.KeyByID(id)
	if !worn || !found || k.Primary != v || k.PrimaryVersion().State != StateActive || k.successorWaits() || s.FeatureLevel() < levelOfRigour {
		return Due{}, false
	}
	return Due{Kind: DueUses, Subject: string(k.Name), Version: v, At: k.PrimaryVersion().ActivatedAt, Revision: k.Revision}, true
}

// walkWorn goes through the rotations by uses that are due, by the keys' ids.
func (s *State) walkWorn(yield func(Due) bool) {
	s.worn.Scan(func(id KeyID, _ Version) bool {
		d, due := s.wornDue(id)
		return !due || yield(d)
	})
}

// HeldBlock is the block of a process, whether it may be spent or not.
func (s *State) HeldBlock(id KeyID, v Version, node NodeID, boot string) (UseBlock, bool) {
	u := s.UseRecord(id)
	if u == nil {
		return UseBlock{}, false
	}
	return u.account(v).Block(node, boot)
}

// CreditsInvocations reports whether a version is so far from its bound that a process may begin before its first block is committed.
func (s *State) CreditsInvocations(id KeyID, v Version) bool {
	u := s.UseRecord(id)
	return u == nil || u.account(v).Total().Operations < gcmLimit/2
}
