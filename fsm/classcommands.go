package fsm

import (
	"slices"
	"strings"
	"time"
)

// CreateClass makes a custom class.
type CreateClass struct{ Class Class }

// UpdateClass replaces the controls of a custom class and so of all its keys. Lowering any of them needs approval.
type UpdateClass struct {
	Class    Class
	Revision uint64 // of the class as its author read it; 0: any
}

// DeleteClass removes a custom class of which there is no key.
type DeleteClass struct{ Name string }

// SetKeyClass moves a key to another class. Lowering any control needs approval.
type SetKeyClass struct {
	Name   KeyName
	Class  string
	Reason string
}

func classSubject(name string) string { return "class/" + name }

func (x *execution) createClass(c CreateClass) error {
	if err := ValidClass(c.Class); err != nil {
		return err
	}
	if x.ClassRecord(c.Class.Name) != nil {
		return refuse(CodeExists, "class %s exists", c.Class.Name)
	}
	if x.classes.Len() >= MaxClasses {
		return refuse(CodeLimit, "there are %d classes, which is the limit", MaxClasses)
	}
	class := c.Class.normal()
	class.CreatedAt, class.Revision = x.now, x.index
	x.classes.Set(class.Name, &class)
	x.emit(Event{Action: "class.create", Subject: classSubject(class.Name), Detail: class.told(Class{})})
	return nil
}

// updateClass is a restriction if it raises anything: nodes that have not applied it go by the old controls.
func (x *execution) updateClass(c UpdateClass) error {
	if err := ValidClass(c.Class); err != nil {
		return err
	}
	was, err := x.changeableClass(c.Class.Name)
	if err != nil {
		return err
	}
	if c.Revision != 0 && c.Revision != was.Revision {
		return refuse(CodeVersionConflict, "class %s has changed at index %d since revision %d was read: read it again", was.Name, was.Revision, c.Revision)
	}
	is := c.Class.normal()
	is.CreatedAt, is.Revision = was.CreatedAt, x.index
	raised := Raised(is, was)
	if err := x.checkClassChange(is, was, func(yield func(*Key) bool) { x.keysOf(is.Name, yield) }); err != nil {
		return err
	}
	if len(raised) > 0 {
		if err := x.roomForBarrier(); err != nil {
			return err
		}
		x.restrict(classSubject(is.Name))
		x.noteLeaving(is, was)
	}
	x.putClass(is, was)
	x.emit(Event{Action: "class.update", Subject: classSubject(is.Name), Detail: is.told(was)})
	return nil
}

func (x *execution) changeableClass(name string) (Class, error) {
	c, ok := x.Class(name)
	switch {
	case !ok:
		return Class{}, refuse(CodeNotFound, "there is no class %q", clip(name))
	case c.BuiltIn():
		return Class{}, invalid("class %s is built in and does not change: make one of your own (conclave class create)", name)
	}
	return c, nil
}

// checkClassChange: what is lower needs approval; what would break stands in the way, and is named.
func (x *execution) checkClassChange(is, was Class, keys func(func(*Key) bool)) error {
	if lowered := Lowered(is, was); len(lowered) > 0 {
		return refuse(CodeNeedsApproval, "%s would be lower than in class %s: that needs approval, which this release cannot collect", strings.Join(lowered, ", "), was.Name)
	}
	if err := was.permits("update"); err != nil {
		return err
	}
	const shown = 3
	var breaks []ClassEffect
	n := 0
	keys(func(k *Key) bool {
		for _, e := range x.breaks(is, k) {
			if n++; len(breaks) < shown {
				breaks = append(breaks, e)
			}
		}
		return true
	})
	if n == 0 {
		return nil
	}
	var words []string
	for _, e := range breaks {
		words = append(words, clip(string(e.Key))+": "+e.Why)
	}
	if n > shown {
		words = append(words, "…")
	}
	return refuse(CodeConflict, "%d versions of keys stand against class %s (%s): rotate them away, or destroy them, or choose another class", n, is.Name, strings.Join(words, "; "))
}

// noteLeaving remembers when keys ceased to be used under the longer lease: until that is in force everywhere, a node that does not
// know may go on for as long as that lease lasts.
func (x *execution) noteLeaving(is, was Class) {
	if was.Lease == LeaseAvailable && is.Lease != LeaseAvailable {
		x.leftAvailable = x.index
	}
}

// putClass stores a class and rebuilds the due dates of its keys if it has a period that it had not: else dates follow the class by
// themselves (see schedule).
func (x *execution) putClass(is, was Class) {
	grown := is.RotateEvery != 0 && was.RotateEvery == 0 || is.OriginatorPeriod != 0 && was.OriginatorPeriod == 0 ||
		is.RecipientPeriod != 0 && was.RecipientPeriod == 0
	x.classes.Set(is.Name, &is)
	if grown {
		x.keysOf(is.Name, func(k *Key) bool { x.plan(k); return true })
	}
}

func (x *execution) deleteClass(c DeleteClass) error {
	class, err := x.changeableClass(c.Name)
	if err != nil {
		return err
	}
	if n := x.KeysOf(c.Name); n > 0 {
		return refuse(CodeConflict, "%d keys are of class %s: give them another one first (conclave key set-class); destroyed keys count, because their rules stay", n, c.Name)
	}
	if err := class.permits("update"); err != nil {
		return err
	}
	x.classes.Delete(c.Name)
	x.emit(Event{Action: "class.delete", Subject: classSubject(c.Name)})
	return nil
}

// setKeyClass is always a restriction: a node that has not applied it goes by the old controls.
func (x *execution) setKeyClass(c SetKeyClass) error {
	k, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	is, err := x.knownClass(c.Class)
	if err != nil {
		return err
	}
	was, _ := x.Class(k.Class)
	if is.Name == was.Name {
		return refuse(CodeExists, "key %s is of class %s already", k.Name, is.Name)
	}
	if err := x.checkClassChange(is, was, func(yield func(*Key) bool) { yield(&k) }); err != nil {
		return err
	}
	if err := x.roomForBarrier(); err != nil {
		return err
	}
	x.restrictKey(&k)
	x.noteLeaving(is, was)
	x.voidUses(&k)
	k.Class = is.Name
	x.setKey(k)
	x.result.KeyID = k.ID
	x.emit(Event{
		Action: "key.set-class", Subject: keySubject(k.Name), SubjectID: string(k.ID), Reason: c.Reason,
		Detail: strings.TrimSpace("from=" + was.Name + " class=" + is.Name + " " + is.told(was)),
	})
	return nil
}

// keysOf walks the keys of a class. It costs a look at the whole catalog, which a change of a class may.
func (s *State) keysOf(class string, yield func(*Key) bool) {
	if s.KeysOf(class) == 0 {
		return
	}
	s.keys.Scan(func(_ KeyName, k *Key) bool { return k.Class != class || yield(k) })
}

// ClassEffect is what a change of class means for a version of a key.
type ClassEffect struct {
	Key     KeyName
	Version Version
	Control string
	Why     string
}

// breaks lists what of a key a class forbids for good. Versions without material are past it.
func (s *State) breaks(c Class, k *Key) []ClassEffect {
	var all []ClassEffect
	add := func(v Version, control, why string) {
		all = append(all, ClassEffect{Key: k.Name, Version: v, Control: control, Why: why})
	}
	for _, v := range k.Versions {
		if v.State >= StateDestroying {
			continue
		}
		if !c.allows(k.Algorithm) {
			add(v.Version, "algorithms", k.Algorithm+" is not allowed")
		}
		if v.Exportable && !c.Export {
			add(v.Version, "export", "its material is exportable")
		}
		if c.HardwareOnly && v.MadeInSoftware && !s.cluster.Dev {
			add(v.Version, "hardware_only", "its material was made in a token without a hardware boundary")
		}
		if v.State == StateDestroyScheduled && s.FeatureLevel() >= levelOfRigour && v.DestroyAt.Sub(v.ChangedAt) < c.MinDestroyWait {
			add(v.Version, "min_destroy_wait", "it is to be destroyed at "+stamp(v.DestroyAt)+", sooner after the order than the class allows: cancel that first (conclave key cancel-destroy)")
		}
	}
	if u := s.UseRecord(k.ID); u != nil && s.FeatureLevel() >= levelOfBudgets && k.hasMaterial() && !u.Limit.within(c.Budget) {
		add(0, "budget", "its own budget, "+u.Limit.String()+", is more than the class allows: lower it first (conclave key budget)")
	}
	if len(all) == 0 && c.HardwareOnly && !s.cluster.Dev && k.hasMaterial() {
		for _, n := range s.nodes.Values() {
			if !n.Device.HardwareSafe {
				add(0, "hardware_only", "node "+string(n.ID)+" has no hardware boundary")
				break
			}
		}
	}
	return all
}

// hasMaterial reports whether any version can still be used for anything secret.
func (k Key) hasMaterial() bool {
	return slices.ContainsFunc(k.Versions, func(v KeyVersion) bool { return v.State < StateDestroying })
}

// follows lists what the scheduler would do to a key under a class at once, at a time.
func (s *State) follows(c Class, k *Key, now time.Time) []ClassEffect {
	var all []ClassEffect
	for _, e := range k.duesIn(&c) {
		at := fromMillis(e.at).Add(c.period(e.kind))
		if e.class == "" || at.After(now) {
			continue
		}
		all = append(all, ClassEffect{Key: k.Name, Version: e.version, Control: e.kind.control(), Why: e.kind.String() + " was due at " + stamp(at)})
	}
	return all
}

// ClassCheck is the verdict on a change of class before it is made.
type ClassCheck struct {
	Raised, Lowered []string
	Breaks, Follows []ClassEffect
	More            bool // a list is longer than limit
}

// CheckClass says what replacing a class by is, or moving the named key to it, would do at a time; at most limit effects of each sort.
func (s *State) CheckClass(is, was Class, key KeyName, now time.Time, limit int) ClassCheck {
	is = is.normal()
	check := ClassCheck{Raised: Raised(is, was), Lowered: Lowered(is, was)}
	take := func(list []ClassEffect, more []ClassEffect) []ClassEffect {
		if room := limit - len(list); len(more) > room {
			check.More, more = true, more[:room]
		}
		return append(list, more...)
	}
	look := func(k *Key) bool {
		check.Breaks, check.Follows = take(check.Breaks, s.breaks(is, k)), take(check.Follows, s.follows(is, k, now))
		return true
	}
	if k := s.KeyRecord(key); k != nil {
		look(k)
	} else {
		s.keysOf(is.Name, look)
	}
	return check
}
