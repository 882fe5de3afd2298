package fsm

import (
	"fmt"
	"slices"
	"time"
)

// ExecuteDue carries out what has become due. The leader's scheduler proposes it; a second leader may propose the same again, and is
// refused, because the object has another revision by then or the date is gone. So everything due is done exactly once.
type ExecuteDue struct {
	Due
	Material Material // of a rotation
}

// executeDue refuses whatever is not due in exactly this form by this log's clock.
func (x *execution) executeDue(c ExecuteDue) error {
	if c.At.After(x.now) {
		return refuse(CodeConflict, "%s of %s is due at %s, and the log's time is %s", c.Kind, clip(c.Subject), stamp(c.At), stamp(x.now))
	}
	switch c.Kind {
	case DueToken:
		return x.expireToken(c.Due)
	case DueCeremony:
		return x.expireCeremony(c.Due)
	case DueRotate, DueUses, DueActivate, DueDeactivate, DueProcessingEnd, DueDestroy:
		return x.executeKeyDue(c)
	default:
		return invalid("nothing of kind %d becomes due", c.Kind)
	}
}

func notDue(d Due) error {
	return refuse(CodeVersionConflict, "%s of %s, version %d, is not due at %s in revision %d: it was done or changed", d.Kind, clip(d.Subject), d.Version, stamp(d.At), d.Revision)
}

func (x *execution) executeKeyDue(c ExecuteDue) error {
	k, err := x.findKey(KeyName(c.Subject))
	if err != nil {
		return err
	}
	switch {
	case k.Revision != c.Revision || !x.planned(k, c.Due):
		return notDue(c.Due)
	case c.Kind == DueRotate:
		return x.rotateAsDue(k, c, "due_at="+stamp(c.At))
	case c.Kind == DueUses:
		v, _ := x.UseRecord(k.ID).Version(c.Version)
		return x.rotateAsDue(k, c, fmt.Sprintf("uses=%d", v.Protected.Total().Operations))
	}
	if c.Restricting() {
		if err := x.roomForBarrier(); err != nil {
			return err
		}
		x.restrictKey(&k)
	}
	i := int(c.Version) - 1
	k.Versions = slices.Clone(k.Versions)
	from := k.Versions[i]
	k.Versions[i] = from.afterDate(c.Kind, x.index, x.now)
	if c.Kind == DueActivate && c.Version > k.Primary {
		k.Primary = c.Version
	}
	k.Revision = x.index
	x.setKey(k)
	x.result.KeyID, x.result.Version = k.ID, c.Version
	x.emit(Event{
		Action: dueActions[c.Kind], Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: c.Version,
		From: from.State.String(), To: k.Versions[i].State.String(), Detail: "due_at=" + stamp(c.At),
	})
	return nil
}

var dueActions = map[DueKind]string{
	DueActivate: "key.activate", DueDeactivate: "key.deactivate", DueProcessingEnd: "key.end-processing", DueDestroy: "key.destroying",
}

// planned reports whether the index has the date, be it the version's own or its class's, or the version's uses make it due.
func (x *execution) planned(k Key, d Due) bool {
	if d.Kind == DueUses {
		due, _ := x.wornDue(k.ID)
		return due.Version == d.Version && due.At.Equal(d.At)
	}
	e := dueEntry{kind: d.Kind, at: d.At.UnixMilli(), subject: d.Subject, version: d.Version}
	if _, own := x.schedule.Get(e); own {
		return true
	}
	class, _ := x.Class(k.Class)
	period := class.period(d.Kind)
	e.class, e.at = class.Name, d.At.Add(-period).UnixMilli()
	_, byClass := x.schedule.Get(e)
	return period != 0 && byClass
}

// rotateAsDue is a rotation whose material the leader, or a node that it asked, made. The class wants it, so nobody need approve it.
func (x *execution) rotateAsDue(k Key, c ExecuteDue, detail string) error {
	if len(k.Versions) >= MaxVersions {
		return refuse(CodeLimit, "key %s has %d versions, which is the limit: create another key", k.Name, MaxVersions)
	}
	if err := x.checkRotation(k, c.Material); err != nil {
		return err
	}
	x.addVersion(k, c.Material, time.Time{}, "key.rotate", detail)
	return nil
}

// afterDate returns v when a date of it has come.
func (v KeyVersion) afterDate(kind DueKind, index uint64, now time.Time) KeyVersion {
	v.ChangedAt, v.ChangedIndex = now, index
	switch kind {
	case DueActivate:
		v.State, v.ActivatedAt = StateActive, now
		v.Dates = v.Dates.without(func(d *Dates) { d.ActivateAt = time.Time{} })
	case DueDeactivate:
		v.State, v.Reason = StateDeactivated, "end of the period"
		v.Dates = v.Dates.without(func(d *Dates) { d.DeactivateAt = time.Time{} })
	case DueProcessingEnd:
		v.Dates = v.Dates.with(func(d *Dates) { d.ProcessingEndedAt = now })
	case DueDestroy:
		v = v.destroying(now)
	}
	return v
}

// expireToken forgets a token. That one which was used is forgotten is no event: its admission was.
func (x *execution) expireToken(d Due) error {
	t, ok := x.JoinToken(d.Subject)
	if !ok || !t.ExpiresAt.Equal(d.At) {
		return notDue(d)
	}
	x.deleteToken(t.ID)
	if t.UsedBy == nil {
		x.emit(Event{Action: "node.token-expire", Subject: nodeSubject(t.Node), SubjectID: t.ID, Detail: "due_at=" + stamp(d.At)})
	}
	return nil
}

func (x *execution) expireCeremony(d Due) error {
	c, ok := x.Ceremony(CeremonyID(d.Subject))
	if !ok || !c.open() || !c.ExpiresAt.Equal(d.At) || !c.expired(x.now) {
		return notDue(d)
	}
	x.abort(c, "expired at "+stamp(c.ExpiresAt))
	return nil
}
