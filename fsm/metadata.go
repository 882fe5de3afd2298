package fsm

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Metadata is what users say of a key beside its labels; most keys have none.
type Metadata struct {
	Description string
	Purpose     string
	Links       []Link // sorted
}

// Link ties a key to another object.
type Link struct {
	Kind   LinkKind
	Target string
}

// LinkKind says what a link means.
type LinkKind string

const (
	LinkReplaces    LinkKind = "replaces"     // the target is a key's name
	LinkDerivedFrom LinkKind = "derived-from" // the target is a key's name
	LinkCertificate LinkKind = "certificate"  // the target names a certificate: a serial number, a URL, a subject
)

// Limits of metadata.
const (
	MaxPurpose = 128 // bytes
	MaxLinks   = 16
	maxTarget  = 512 // bytes: a key's name, or a URL
)

// Dates are the planned and passed dates of a version that most do not have.
type Dates struct {
	ActivateAt        time.Time // of a pre-active one
	DeactivateAt      time.Time // of one that is or will be active
	ProcessingEndedAt time.Time // the recipient period of its class is over
	ExportedAt        time.Time // its material left the cluster, last
}

// with returns a changed copy: states share what is pointed to.
func (d *Dates) with(change func(*Dates)) *Dates {
	var c Dates
	if d != nil {
		c = *d
	}
	change(&c)
	return &c
}

// without is with, and nil when nothing is left.
func (d *Dates) without(change func(*Dates)) *Dates {
	if c := d.with(change); *c != (Dates{}) {
		return c
	}
	return nil
}

func (v KeyVersion) processingEnded() bool {
	return v.Dates != nil && !v.Dates.ProcessingEndedAt.IsZero()
}

// UpdateKey changes what users say of a key. Nil and empty lists leave alone what they are about.
type UpdateKey struct {
	Name         KeyName
	Revision     uint64 // of the key as its author read it; 0: any
	SetLabels    []Label
	RemoveLabels []string
	Description  *string
	Purpose      *string
	Owner        *Actor
	AddLinks     []Link
	RemoveLinks  []Link
	Version      Version // of the dates; 0: the primary one
	ActivateAt   *time.Time
	DeactivateAt *time.Time // the zero time: as the class says
	// NeverExportable forbids every export from now on, for good.
	NeverExportable bool
}

func validMetadata(m Metadata) error {
	if err := validText("the description", m.Description, MaxDescription); err != nil {
		return err
	}
	if err := validText("the purpose", m.Purpose, MaxPurpose); err != nil {
		return err
	}
	if len(m.Links) > MaxLinks {
		return invalid("a key has at most %d links, this one %d", MaxLinks, len(m.Links))
	}
	for _, l := range m.Links {
		if err := validLink(l); err != nil {
			return err
		}
	}
	return nil
}

func validLink(l Link) error {
	switch l.Kind {
	case LinkReplaces, LinkDerivedFrom:
		return ValidKeyName(l.Target)
	case LinkCertificate:
		if l.Target == "" {
			return invalid("a link to a certificate names it")
		}
		return validText("the link's target", l.Target, maxTarget)
	default:
		return invalid("link %q: %s, %s or %s", clip(string(l.Kind)), LinkReplaces, LinkDerivedFrom, LinkCertificate)
	}
}

func compareLinks(a, b Link) int {
	return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Target, b.Target))
}

// newMetadata is nil when there is nothing to keep.
func newMetadata(description, purpose string, links []Link) *Metadata {
	if description == "" && purpose == "" && len(links) == 0 {
		return nil
	}
	return &Metadata{Description: description, Purpose: purpose, Links: slices.Compact(slices.SortedFunc(slices.Values(links), compareLinks))}
}

// Meta is the key's metadata, zero if it has none.
func (k Key) Meta() Metadata {
	if k.Metadata == nil {
		return Metadata{}
	}
	return *k.Metadata
}

// updateKey is a restriction if it takes users, or the right to export, away.
func (x *execution) updateKey(c UpdateKey) error {
	old, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	if err := x.demand(old.Class, "update"); err != nil {
		return err
	}
	if c.Revision != 0 && c.Revision != old.Revision {
		return refuse(CodeVersionConflict, "key %s has changed at index %d since revision %d was read: read it again", old.Name, old.Revision, c.Revision)
	}
	k, told, err := x.updated(old, c)
	if err != nil {
		return err
	}
	if len(told) == 0 {
		return invalid("the update of key %s changes nothing", old.Name)
	}
	if k.NeverExportable != old.NeverExportable || slices.ContainsFunc(old.Users(), func(u string) bool { return !k.MayUse(u) }) {
		if err := x.roomForBarrier(); err != nil {
			return err
		}
		x.restrictKey(&k)
	}
	k.Revision = x.index
	x.setKey(k)
	x.result.KeyID = k.ID
	x.emit(Event{Action: "key.update", Subject: keySubject(k.Name), SubjectID: string(k.ID), Detail: strings.Join(told, " ")})
	return nil
}

// updated returns the key as it will be, and in words what is other about it.
func (x *execution) updated(k Key, c UpdateKey) (Key, []string, error) {
	var told []string
	labels, err := changedLabels(k.Labels, c)
	if err != nil {
		return k, nil, err
	}
	if !slices.Equal(labels, k.Labels) {
		k.Labels, told = labels, append(told, "labels")
	}
	if c.Owner != nil && *c.Owner != k.Owner {
		if err := validActor(*c.Owner); err != nil {
			return k, nil, err
		}
		told = append(told, "owner="+string(*c.Owner))
		k.Owner = *c.Owner
	}
	meta := changedMetadata(k.Meta(), c)
	if err := validMetadata(meta); err != nil {
		return k, nil, err
	}
	before := k.Meta()
	if meta.Description != before.Description {
		told = append(told, "description")
	}
	if meta.Purpose != before.Purpose {
		told = append(told, "purpose")
	}
	if !slices.Equal(meta.Links, before.Links) {
		told = append(told, "links")
	}
	k.Metadata = newMetadata(meta.Description, meta.Purpose, meta.Links)
	if c.NeverExportable && !k.NeverExportable {
		k.NeverExportable, told = true, append(told, "never_exportable")
	}
	k, dates, err := x.redated(k, c)
	return k, append(told, dates...), err
}

// validActor accepts an owner: a name in some role, as certificates have it.
func validActor(a Actor) error {
	if err := validText("the owner", string(a), maxActor); err != nil {
		return err
	}
	if !strings.HasPrefix(string(a), "spiffe://") {
		return invalid("an owner is named like spiffe://CLUSTER/user/NAME, not %q", clip(string(a)))
	}
	return nil
}

func changedLabels(have []Label, c UpdateKey) ([]Label, error) {
	labels := slices.DeleteFunc(slices.Clone(have), func(l Label) bool {
		return slices.Contains(c.RemoveLabels, l.Name) || slices.ContainsFunc(c.SetLabels, func(s Label) bool { return s.Name == l.Name })
	})
	for _, name := range c.RemoveLabels {
		if !slices.ContainsFunc(have, func(l Label) bool { return l.Name == name }) {
			return nil, refuse(CodeNotFound, "the key has no label %q", clip(name))
		}
	}
	labels = sortedLabels(append(labels, c.SetLabels...))
	return labels, validLabels(labels)
}

func sortedLabels(labels []Label) []Label {
	if len(labels) == 0 {
		return nil
	}
	return slices.SortedFunc(slices.Values(labels), func(a, b Label) int { return cmp.Compare(a.Name, b.Name) })
}

func changedMetadata(m Metadata, c UpdateKey) Metadata {
	if c.Description != nil {
		m.Description = *c.Description
	}
	if c.Purpose != nil {
		m.Purpose = *c.Purpose
	}
	m.Links = slices.DeleteFunc(slices.Clone(m.Links), func(l Link) bool { return slices.Contains(c.RemoveLinks, l) })
	m.Links = slices.Compact(slices.SortedFunc(slices.Values(append(m.Links, c.AddLinks...)), compareLinks))
	if len(m.Links) == 0 {
		m.Links = nil
	}
	return m
}

// redated changes planned dates. Dates that have passed are facts.
func (x *execution) redated(k Key, c UpdateKey) (Key, []string, error) {
	if c.ActivateAt == nil && c.DeactivateAt == nil {
		if c.Version != 0 {
			return k, nil, invalid("a version is named for its dates, and no date is given")
		}
		return k, nil, nil
	}
	if err := x.demandDates(k.Class, c); err != nil {
		return k, nil, err
	}
	if c.Version == 0 {
		c.Version = k.Primary
	}
	v, ok := k.Version(c.Version)
	if !ok {
		return k, nil, refuse(CodeNotFound, "key %s has no version %d", k.Name, c.Version)
	}
	var told []string
	if c.ActivateAt != nil {
		if v.State != StatePreActive {
			return k, nil, refuse(CodeState, "key %s version %d is %s: only what is pre-active has a date of activation ahead", k.Name, v.Version, v.State)
		}
		if err := x.checkAhead("the activation", *c.ActivateAt); err != nil {
			return k, nil, err
		}
		v.Dates = v.Dates.with(func(d *Dates) { d.ActivateAt = *c.ActivateAt })
		told = append(told, "activate_at="+stamp(*c.ActivateAt))
	}
	if c.DeactivateAt != nil {
		if v.State != StatePreActive && v.State != StateActive && v.State != StateSuspended {
			return k, nil, refuse(CodeState, "key %s version %d is %s: it has no date of deactivation ahead", k.Name, v.Version, v.State)
		}
		if !c.DeactivateAt.IsZero() {
			if err := x.checkAhead("the deactivation", *c.DeactivateAt); err != nil {
				return k, nil, err
			}
		}
		v.Dates = v.Dates.without(func(d *Dates) { d.DeactivateAt = *c.DeactivateAt })
		told = append(told, "deactivate_at="+stampOrNone(*c.DeactivateAt))
	}
	if err := ordered(v.Dates); err != nil {
		return k, nil, err
	}
	k.Versions = slices.Clone(k.Versions)
	k.Versions[v.Version-1] = v
	return k, told, nil
}

// demandDates: who may not do it today without others does not plan it for tomorrow without them.
func (x *execution) demandDates(class string, c UpdateKey) error {
	if x.FeatureLevel() < levelOfRigour {
		return nil
	}
	if c.ActivateAt != nil {
		if err := x.demand(class, string(ActionActivate)); err != nil {
			return err
		}
	}
	if c.DeactivateAt != nil && !c.DeactivateAt.IsZero() {
		return x.demand(class, string(ActionDeactivate))
	}
	return nil
}

// checkAhead: a date is planned for the future of this log, and not beyond what anybody plans.
func (x *execution) checkAhead(what string, at time.Time) error {
	if !at.After(x.now) || at.After(x.now.Add(MaxPeriod)) {
		return invalid("%s at %s does not lie within 100 years after the log's time, %s", what, stamp(at), stamp(x.now))
	}
	return nil
}

// ordered: what is deactivated before it is active would never be anything.
func ordered(d *Dates) error {
	if d != nil && !d.ActivateAt.IsZero() && !d.DeactivateAt.IsZero() && !d.DeactivateAt.After(d.ActivateAt) {
		return invalid("the deactivation (%s) comes after the activation (%s)", stamp(d.DeactivateAt), stamp(d.ActivateAt))
	}
	return nil
}

func stampOrNone(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return stamp(t)
}
