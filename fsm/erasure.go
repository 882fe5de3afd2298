package fsm

import (
	"slices"
	"strings"
	"time"
)

// Destruction is how far the erasure of a version has come.
type Destruction struct {
	BegunAt  time.Time
	DoneAt   time.Time // zero while receipts are missing
	Receipts []Receipt // in the order in which they came
}

// Receipt is a node's word that it erased a version.
type Receipt struct {
	Node    NodeID
	Boot    string // its process
	Erasure Erasure
	Index   uint64
	At      time.Time
}

// Erasure says what a node erased.
type Erasure string

// ErasureState: the wrapped key is not in the replicated state any more, and the node's HSM has no working copy of it. It says nothing
// of what older snapshots and log entries on its disk hold: they are sealed, and are not rewritten by it.
const ErasureState Erasure = "state"

// erasures are the kinds that this release knows.
var erasures = []Erasure{ErasureState}

// RecordErasure is a node's receipt for versions that are being destroyed.
type RecordErasure struct {
	Node    NodeID
	Boot    string
	Erasure Erasure
	Erased  []ErasedVersion // at most MaxErased
}

// ErasedVersion names a version by the key's id, which is never reused.
type ErasedVersion struct {
	Key     KeyID
	Version Version
}

// MaxErased bounds one receipt: what it causes is two events for each.
const MaxErased = 256

// destroying returns v without its material. The public half stays: it harms nobody, and signatures can still be verified.
func (v KeyVersion) destroying(now time.Time) KeyVersion {
	v.State, v.Blob, v.MAC = StateDestroying, nil, nil
	v.Before, v.DestroyAt = StateUnknown, time.Time{}
	v.Destruction = &Destruction{BegunAt: now}
	return v
}

func (v KeyVersion) destruction() Destruction {
	if v.Destruction == nil {
		return Destruction{BegunAt: v.ChangedAt}
	}
	return *v.Destruction
}

// recordErasure takes a node's receipts. One that is here already, or for what is not being destroyed any more, is passed over: nodes
// that hear no answer report again.
func (x *execution) recordErasure(c RecordErasure) error {
	if err := x.checkErasure(c); err != nil {
		return err
	}
	for _, e := range c.Erased {
		k, ok := x.KeyByID(e.Key)
		if !ok {
			continue
		}
		if v, ok := k.Version(e.Version); ok && v.State == StateDestroying && !v.erasedBy(c.Node) {
			x.addReceipt(k, v, c)
		}
	}
	return nil
}

func (x *execution) checkErasure(c RecordErasure) error {
	if _, member := x.Node(c.Node); !member {
		return refuse(CodeNotFound, "node %q is no member", clip(string(c.Node)))
	}
	if err := validText("the boot id", c.Boot, maxShort); err != nil {
		return err
	}
	switch {
	case len(c.Boot) > maxBoot && x.FeatureLevel() >= levelOfRigour:
		return invalid("the boot id has %d bytes, at most %d", len(c.Boot), maxBoot)
	case !slices.Contains(erasures, c.Erasure):
		return invalid("%q is no kind of erasure", clip(string(c.Erasure)))
	case len(c.Erased) == 0 || len(c.Erased) > MaxErased:
		return invalid("a receipt is for 1 to %d versions, this one for %d", MaxErased, len(c.Erased))
	}
	return nil
}

func (v KeyVersion) erasedBy(n NodeID) bool {
	return v.Destruction != nil && slices.ContainsFunc(v.Destruction.Receipts, func(r Receipt) bool { return r.Node == n })
}

func (x *execution) addReceipt(k Key, v KeyVersion, c RecordErasure) {
	d := v.destruction()
	d.Receipts = append(slices.Clip(d.Receipts), Receipt{Node: c.Node, Boot: c.Boot, Erasure: c.Erasure, Index: x.index, At: x.now})
	v.Destruction = &d
	x.putVersion(&k, v)
	x.emit(Event{
		Action: "key.erased", Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: v.Version, From: v.State.String(), To: v.State.String(),
		Detail: "node=" + string(c.Node) + " erasure=" + string(c.Erasure),
	})
	x.settleDestruction(k, v)
}

// settleDestruction ends a destruction when every member has given its receipt.
func (x *execution) settleDestruction(k Key, v KeyVersion) {
	if slices.ContainsFunc(x.nodes.Keys(), func(n NodeID) bool { return !v.erasedBy(n) }) {
		return
	}
	d := v.destruction()
	d.DoneAt = x.now
	v.Destruction, v.State, v.ChangedAt, v.ChangedIndex = &d, StateDestroyed, x.now, x.index
	x.putVersion(&k, v)
	x.emit(Event{
		Action: "key.destroyed", Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: v.Version,
		From: StateDestroying.String(), To: StateDestroyed.String(), Detail: "receipts=" + d.nodes(),
	})
}

func (d Destruction) nodes() string {
	var names []string
	for _, r := range d.Receipts {
		names = append(names, string(r.Node))
	}
	return strings.Join(names, ",")
}

// putVersion replaces a version and stores the key.
func (x *execution) putVersion(k *Key, v KeyVersion) {
	k.Versions = slices.Clone(k.Versions)
	k.Versions[v.Version-1] = v
	k.Revision = x.index
	x.setKey(*k)
}

// settleDestructions ends the destructions that wait for nobody any more, after a node has left. It owed nothing when it was ordered to
// leave; what was begun since, it cannot be asked for.
func (x *execution) settleDestructions() {
	for _, e := range x.awaiting(func(KeyVersion) bool { return true }, 0) {
		k, _ := x.KeyByID(e.Key)
		v, _ := k.Version(e.Version)
		x.settleDestruction(k, v)
	}
}

// AwaitingErasure lists versions being destroyed for which a node's receipt is missing, the oldest first; at most limit.
func (s *State) AwaitingErasure(n NodeID, limit int) []ErasedVersion {
	return s.awaiting(func(v KeyVersion) bool { return !v.erasedBy(n) }, limit)
}

func (s *State) awaiting(match func(KeyVersion) bool, limit int) []ErasedVersion {
	var all []ErasedVersion
	s.walk(lane{kind: awaitsReceipts}, func(d Due) bool {
		k := s.KeyRecord(KeyName(d.Subject))
		if v, ok := k.Version(d.Version); ok && match(v) {
			all = append(all, ErasedVersion{Key: k.ID, Version: v.Version})
		}
		return limit <= 0 || len(all) < limit
	})
	return all
}
