package fsm

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// DueKind is what becomes due. Numbers are in the log: append only. Of two that are due at once the lower goes first: a rotation before
// the deactivation that it is there to precede.
type DueKind uint8

const (
	DueRotate        DueKind = 1 // a key's primary version has served for its class's rotation period
	DueActivate      DueKind = 2 // a pre-active version's date
	DueDeactivate    DueKind = 3 // a version's date, or the end of its class's originator period
	DueProcessingEnd DueKind = 4 // the end of its class's recipient period
	DueDestroy       DueKind = 5 // a scheduled destruction
	DueToken         DueKind = 6 // a join token expires
	DueCeremony      DueKind = 7 // an open ceremony expires
	DueUses          DueKind = 8 // a key's primary version was used as often as its class, or AES-GCM, allows: a rotation, too

	awaitsReceipts DueKind = 100 // never due: versions whose erasure nodes have still to report
)

var dueNames = map[DueKind]string{
	DueRotate: "rotate", DueActivate: "activate", DueDeactivate: "deactivate", DueProcessingEnd: "end-processing", DueDestroy: "destroy",
	DueToken: "expire-token", DueCeremony: "expire-ceremony", DueUses: "rotate",
}

// String is the kind in a word.
func (k DueKind) String() string { return dueNames[k] }

// control of a class that makes it due.
func (k DueKind) control() string {
	return map[DueKind]string{DueRotate: "rotate_every", DueUses: "rotate_uses", DueDeactivate: "originator_period", DueProcessingEnd: "recipient_period"}[k]
}

// Due is something that the leader's scheduler must have carried out. Together with the revision of its object it can be carried out
// once: what it refers to is gone when it is done.
type Due struct {
	Kind     DueKind
	Subject  string  // the key's name, the token's or the ceremony's id
	Version  Version // of the key
	At       time.Time
	Revision uint64 // of the object; 0 for what has none
}

// dueEntry is a date in the index. Dates that follow from a class are kept as the moment from which its period counts, so that the
// period of a class can change without touching its keys: class names whose period is to be added; "" for dates of their own.
type dueEntry struct {
	class   string
	kind    DueKind
	at      int64 // Unix milliseconds
	subject string
	version Version
}

// compare is no cmp.Or: that compares the texts even when the first field has decided, and the index compares some twenty times a key.
func (e dueEntry) compare(o dueEntry) int {
	if c := strings.Compare(e.class, o.class); c != 0 {
		return c
	}
	if c := cmp.Compare(e.kind, o.kind); c != 0 {
		return c
	}
	if c := cmp.Compare(e.at, o.at); c != 0 {
		return c
	}
	if c := strings.Compare(e.subject, o.subject); c != 0 {
		return c
	}
	return cmp.Compare(e.version, o.version)
}

func newSchedule() *btree.BTreeG[dueEntry] {
	return btree.NewBTreeGOptions(func(a, b dueEntry) bool { return a.compare(b) < 0 }, btree.Options{NoLocks: true})
}

// period that the class adds to the moment of an entry of a kind; zero: the class has none.
func (c *Class) period(k DueKind) time.Duration {
	switch k {
	case DueRotate:
		return c.RotateEvery
	case DueDeactivate:
		return c.OriginatorPeriod
	case DueProcessingEnd:
		return c.RecipientPeriod
	default:
		return 0
	}
}

// duesIn lists the dates of a key if it were of a class: a function of the two, so the index needs no place in a snapshot.
func (k *Key) duesIn(c *Class) []dueEntry { return k.appendDuesIn(nil, c) }

func (k *Key) appendDuesIn(all []dueEntry, c *Class) []dueEntry {
	own := func(v *KeyVersion, kind DueKind, at time.Time) {
		all = append(all, dueEntry{kind: kind, at: at.UnixMilli(), subject: string(k.Name), version: v.Version})
	}
	byClass := func(v *KeyVersion, kind DueKind) {
		if c.period(kind) != 0 && !v.ActivatedAt.IsZero() {
			all = append(all, dueEntry{class: c.Name, kind: kind, at: v.ActivatedAt.UnixMilli(), subject: string(k.Name), version: v.Version})
		}
	}
	for i := range k.Versions {
		v := &k.Versions[i]
		switch v.State {
		case StatePreActive:
			if v.Dates != nil && !v.Dates.ActivateAt.IsZero() {
				own(v, DueActivate, v.Dates.ActivateAt)
			}
		case StateActive, StateSuspended:
			if v.Dates != nil && !v.Dates.DeactivateAt.IsZero() {
				own(v, DueDeactivate, v.Dates.DeactivateAt)
			}
			byClass(v, DueDeactivate)
			if v.State == StateActive && v.Version == k.Primary && !k.successorWaits() {
				byClass(v, DueRotate)
			}
		case StateDeactivated:
			if !v.processingEnded() {
				byClass(v, DueProcessingEnd)
			}
		case StateDestroyScheduled:
			own(v, DueDestroy, v.DestroyAt)
		case StateDestroying:
			own(v, awaitsReceipts, v.ChangedAt)
		}
	}
	return all
}

// successorWaits: a version that somebody made to follow on a date of its own is the rotation.
func (k *Key) successorWaits() bool {
	return slices.ContainsFunc(k.Versions, func(v KeyVersion) bool { return v.Version > k.Primary && v.State == StatePreActive })
}

// dues lists the dates of a key under the class that it has.
func (s *State) dues(k *Key) []dueEntry { return s.appendDues(nil, k) }

func (s *State) appendDues(all []dueEntry, k *Key) []dueEntry {
	if c := s.ClassRecord(k.Class); c != nil {
		return k.appendDuesIn(all, c)
	}
	return k.appendDuesIn(all, new(Class))
}

// setKey stores a key. It is the only way to: the indexes of names and dates and the number of keys per class follow from it.
func (s *State) setKey(k Key) {
	old, replaced := s.keys.Set(k.Name, &k)
	s.byName.set(&k)
	if !replaced {
		s.plan(&k)
		s.countKey(k.Class, 1)
		return
	}
	if before, now := s.dues(old), s.dues(&k); !slices.Equal(before, now) {
		for _, e := range before {
			s.schedule.Delete(e)
		}
		for _, e := range now {
			s.schedule.Set(e)
		}
	}
	if old.Class != k.Class {
		s.countKey(old.Class, -1)
		s.countKey(k.Class, 1)
	}
}

// plan puts the dates of a key into the index.
func (s *State) plan(k *Key) {
	var room [4]dueEntry
	for _, e := range s.appendDues(room[:0], k) {
		s.schedule.Set(e)
	}
}

func (s *State) countKey(class string, by int) {
	s.perClass.Set(class, s.KeysOf(class)+by)
}

func tokenDue(t JoinToken) dueEntry {
	return dueEntry{kind: DueToken, at: t.ExpiresAt.UnixMilli(), subject: t.ID}
}

func (s *State) setToken(t JoinToken) {
	s.tokens.Set(t.ID, &t)
	s.schedule.Set(tokenDue(t))
}

func (s *State) deleteToken(id string) {
	if t, ok := s.JoinToken(id); ok {
		s.tokens.Delete(id)
		s.schedule.Delete(tokenDue(t))
	}
}

// lane is a run of entries of one class and kind, and what is added to their moments.
type lane struct {
	class  string
	kind   DueKind
	period time.Duration
}

// lanes are few, however many keys there are: so many kinds for each class.
func (s *State) lanes() []lane {
	var all []lane
	for _, k := range []DueKind{DueActivate, DueDeactivate, DueDestroy, DueToken} {
		all = append(all, lane{kind: k})
	}
	add := func(c *Class) bool {
		for _, k := range []DueKind{DueRotate, DueDeactivate, DueProcessingEnd} {
			if p := c.period(k); p != 0 {
				all = append(all, lane{c.Name, k, p})
			}
		}
		return true
	}
	for _, c := range builtIn {
		add(c)
	}
	s.classes.Scan(func(_ string, c *Class) bool { return add(c) })
	return all
}

// walk goes through a lane in the order of dates.
func (s *State) walk(l lane, yield func(Due) bool) {
	s.schedule.Ascend(dueEntry{class: l.class, kind: l.kind}, func(e dueEntry) bool {
		if e.class != l.class || e.kind != l.kind {
			return false
		}
		return yield(Due{Kind: e.kind, Subject: e.subject, Version: e.version, At: fromMillis(e.at).Add(l.period), Revision: s.revision(e)})
	})
}

func (s *State) revision(e dueEntry) uint64 {
	if e.kind == DueToken {
		return 0
	}
	if k := s.KeyRecord(KeyName(e.subject)); k != nil {
		return k.Revision
	}
	return 0
}

// Due lists what is due at a time, earliest first: at most limit for each lane of dates, and nothing that skip (nil: nothing) holds for.
// Its cost follows what is due, not what the catalog holds.
func (s *State) Due(at time.Time, limit int, skip func(Due) bool) []Due {
	var all []Due
	for _, l := range s.lanes() {
		n := 0
		s.walk(l, func(d Due) bool {
			if d.At.After(at) {
				return false
			}
			if skip == nil || !skip(d) {
				all = append(all, d)
				n++
			}
			return n < limit
		})
	}
	n := 0
	s.walkWorn(func(d Due) bool {
		if skip == nil || !skip(d) {
			all = append(all, d)
			n++
		}
		return n < limit
	})
	for _, c := range s.ceremonies {
		if d := (Due{Kind: DueCeremony, Subject: string(c.ID), At: c.ExpiresAt}); c.open() && c.expired(at) && (skip == nil || !skip(d)) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Due) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Subject, b.Subject), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// NextDue is the earliest date of all; false if nothing will ever be due by itself.
func (s *State) NextDue() (time.Time, bool) {
	var next time.Time
	note := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, l := range s.lanes() {
		s.walk(l, func(d Due) bool { note(d.At); return false })
	}
	s.walkWorn(func(d Due) bool { note(d.At); return false })
	for _, c := range s.ceremonies {
		if c.open() {
			note(c.ExpiresAt)
		}
	}
	return next, !next.IsZero()
}
