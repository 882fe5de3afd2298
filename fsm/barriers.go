package fsm

import (
	"fmt"
	"strings"
	"time"
)

// PendingBarrier is a restriction that is committed but not yet known to be in force on every node.
type PendingBarrier struct {
	Index   uint64 // of the restricting entry
	Subject string // what it restricts, as in Event.Subject
	At      time.Time
}

// PendingBarriers lists them by index.
func (s *State) PendingBarriers() []PendingBarrier { return s.barriers.Values() }

// BarrierDone reports whether the restriction at an index is in force everywhere: true for every index up to Applied that is
// not pending, so also for entries that restricted nothing.
func (s *State) BarrierDone(index uint64) bool {
	_, pending := s.barriers.Get(index)
	return !pending && index <= s.applied
}

// RestrictedKey is the subject of the pending restriction at index if that is about one key; empty if it is about something else, or
// is not pending.
func (s *State) RestrictedKey(index uint64) string {
	b, _ := s.barriers.Get(index)
	if _, isKey := cutKey(b.Subject); isKey {
		return b.Subject
	}
	return ""
}

// SubjectKey is the key that a subject names.
func SubjectKey(subject string) (KeyName, bool) { return cutKey(subject) }

// LeaseOf is the mode of the keys that the pending restriction at index is about; LeaseAvailable, whose leases are the longest, if it
// is about no key in particular, or is not pending. It is also that while a node may exist that has not heard that keys left such a
// class: it would go on using them under the longer lease, whatever their class is here.
func (s *State) LeaseOf(index uint64) LeaseMode {
	if s.leaving() {
		return LeaseAvailable
	}
	b, _ := s.barriers.Get(index)
	name, isKey := cutKey(b.Subject)
	if k := s.KeyRecord(name); isKey && k != nil {
		if c := s.ClassRecord(k.Class); c != nil {
			return c.Lease
		}
	}
	return LeaseAvailable
}

// leaving reports whether a restriction may be pending that took keys out of LeaseAvailable. The latest such may be in force, by a fence, before an
// earlier one is, so whatever is pending since before it counts.
func (s *State) leaving() bool {
	index, _, pending := s.barriers.Min()
	return pending && index <= s.leftAvailable
}

// roomForBarrier bounds the table. A barrier ends within the longest lease as long as there is a leader, so a full table
// means that thousands of restrictions a second are being made.
func (x *execution) roomForBarrier() error {
	if x.barriers.Len() >= MaxBarriers {
		return refuse(CodeLimit, "%d restrictions are waiting to be in force everywhere: wait for them", MaxBarriers)
	}
	return nil
}

// restrict opens the barrier of this entry.
func (x *execution) restrict(subject string) {
	x.restriction = x.index
	x.barriers.Set(x.index, PendingBarrier{Index: x.index, Subject: subject, At: x.now})
	x.result.Barrier = x.index
}

// restrictKey opens the barrier of this entry for a key, which the caller stores.
func (x *execution) restrictKey(k *Key) {
	x.restrict(keySubject(k.Name))
	k.Barrier = Barrier{State: BarrierPending, Index: x.index}
	k.Revision = x.index
}

// completeBarrier is idempotent, because a new leader repeats what the old one may have proposed.
func (x *execution) completeBarrier(c CompleteBarrier) error {
	if len(c.Waited) > MaxNodes {
		return invalid("a barrier waits for at most %d nodes, not %d", MaxNodes, len(c.Waited))
	}
	for _, id := range c.Waited {
		if err := ValidNodeID(string(id)); err != nil {
			return err
		}
	}
	if c.Restriction == 0 || c.Restriction > x.restriction {
		return refuse(CodeNotFound, "no restriction at index %d: the last one is at %d", c.Restriction, x.restriction)
	}
	b, ok := x.barriers.Get(c.Restriction)
	if !ok {
		return nil
	}
	x.barriers.Delete(c.Restriction)
	id := x.settleKey(b, c.Waited)
	x.emit(Event{
		Action: "barrier.done", Subject: b.Subject, SubjectID: string(id), From: BarrierPending.String(), To: BarrierDone.String(),
		Detail: fmt.Sprintf("restriction=%d waited=%s", c.Restriction, strings.Join(texts[string](c.Waited), ",")),
	})
	x.settleLapse(b)
	x.settleNode(b)
	return nil
}

// settleKey marks the key's barrier done, unless a later restriction has taken its place.
func (x *execution) settleKey(b PendingBarrier, waited []NodeID) KeyID {
	name, isKey := cutKey(b.Subject)
	if !isKey {
		return ""
	}
	k, ok := x.Key(name)
	if !ok {
		panic(fmt.Sprintf("fsm: index %d: the barrier of %d names the key %q, which is not there", x.index, b.Index, name))
	}
	if k.Barrier.Index == b.Index {
		k.Barrier = Barrier{State: BarrierDone, Index: b.Index, Waited: waited}
		k.Revision = x.index
		x.setKey(k)
	}
	return k.ID
}
