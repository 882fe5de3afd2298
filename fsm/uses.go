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
	Versions []VersionUse // ascending, those that were used
}

// VersionUse is what is known of the uses of a version.
type VersionUse struct {
	Version  Version
	LastUsed int64 // log time of the latest entry that speaks of a use, Unix milliseconds; 0: none does
	// Protected counts encryptions against the bound of AES-GCM; empty for other algorithms.
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

// useOf is the record of a key as it is now: in a new window nothing is spent, and what may still be spent of blocks counts in it too,
// because nobody knows yet when that was or will be.
func (s *State) useOf(k *Key) Use {
	var u Use
	if old := s.UseRecord(k.ID); old != nil {
		u = *old
	}
	limit := s.limitIn(k, u.Limit)
	if start := limit.window(s.now); start > u.Window {
		u.Window = start
		u.Limited.Spent = Amount{}
		u.Limited.Blocks = slices.DeleteFunc(slices.Clone(u.Limited.Blocks), func(b UseBlock) bool { return !s.spendable(b) })
	}
	return u
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
	if a.Total().Operations >= gcmWorn {
		return true
	}
	k := s.KeyRecordByID(id)
	if k == nil {
		return false
	}
	c := s.ClassRecord(k.Class)
	return c != nil && c.RotateUses > 0 && a.Spent.Operations >= c.RotateUses
}

// Worn lists the keys whose primary version nears the bound of AES-GCM or was used as often as its class allows, by id: their leader
// rotates them.
func (s *State) Worn() []Key {
	var all []Key
	s.worn.Scan(func(id KeyID, v Version) bool {
		if k, found := s.KeyByID(id); found && k.Primary == v && k.PrimaryVersion().State == StateActive {
			all = append(all, k)
		}
		return true
	})
	return all
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
