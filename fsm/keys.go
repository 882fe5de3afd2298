package fsm

import (
	"slices"
	"strings"
	"time"
	"unique"
)

func keySubject(name KeyName) string { return "key/" + string(name) }

func cutKey(subject string) (KeyName, bool) {
	name, ok := strings.CutPrefix(subject, "key/")
	return KeyName(name), ok
}

// createKey makes a key whose first version is active, because the entry is committed by a majority when it is applied.
func (x *execution) createKey(c CreateKey) error { return x.makeKey(c, nil) }

// makeKey makes a key; from is the import that its material came by, nil if a token of the cluster made it.
func (x *execution) makeKey(c CreateKey, from *ImportKey) error {
	if c.Class == "" {
		c.Class = ClassStandard
	}
	if err := x.checkNewKey(c); err != nil {
		return err
	}
	k := Key{
		ID: c.ID, Name: c.Name, Algorithm: shared(c.Algorithm), Class: x.ClassRecord(c.Class).Name, Owner: Actor(shared(string(x.entry.Actor))),
		Labels: sortedLabels(c.Labels), CreatedAt: x.now, Metadata: newMetadata(c.Description, c.Purpose, c.Links),
	}
	x.names.Set(k.ID, k.Name)
	x.addKey(k, c, from)
	return nil
}

// addKey stores a checked key with its first version, which is pre-active until a date of activation if one was given.
func (x *execution) addKey(k Key, c CreateKey, from *ImportKey) {
	action, detail := "key.create", "algorithm="+k.Algorithm+" class="+k.Class
	if !c.DeactivateAt.IsZero() {
		detail += " deactivate_at=" + stamp(c.DeactivateAt)
	}
	if from != nil {
		action = "key.import"
		detail += " import_key=" + from.ImportKey
	}
	x.addVersion(k, c.Material, c.ActivateAt, action, detail)
	if !c.DeactivateAt.IsZero() || from != nil {
		k, _ := x.Key(k.Name)
		v := k.Versions[0]
		v.Imported = from != nil
		if !c.DeactivateAt.IsZero() {
			v.Dates = v.Dates.with(func(d *Dates) { d.DeactivateAt = c.DeactivateAt })
		}
		x.putVersion(&k, v)
	}
}

// shared keeps one copy of a text that many keys have.
func shared(s string) string { return unique.Make(s).Value() }

func (x *execution) checkNewDates(c CreateKey) error {
	for _, d := range []struct {
		what string
		at   time.Time
	}{{"the activation", c.ActivateAt}, {"the deactivation", c.DeactivateAt}} {
		if d.at.IsZero() {
			continue
		}
		if err := x.checkAhead(d.what, d.at); err != nil {
			return err
		}
	}
	return ordered(&Dates{ActivateAt: c.ActivateAt, DeactivateAt: c.DeactivateAt})
}

// demand refuses an operation on keys of a class that needs what this release cannot collect.
func (x *execution) demand(class, operation string) error {
	c, err := x.knownClass(class)
	if err != nil {
		return err
	}
	return c.permits(operation)
}

func (x *execution) checkNewKey(c CreateKey) error {
	if err := validUUID("key id", string(c.ID)); err != nil {
		return err
	}
	if err := ValidKeyName(string(c.Name)); err != nil {
		return err
	}
	if err := validLabels(c.Labels); err != nil {
		return err
	}
	if err := validMetadata(Metadata{Description: c.Description, Purpose: c.Purpose, Links: c.Links}); err != nil {
		return err
	}
	if err := x.checkNewDates(c); err != nil {
		return err
	}
	if err := x.demand(c.Class, "create"); err != nil {
		return err
	}
	if _, taken := x.keys.Get(c.Name); taken {
		return refuse(CodeExists, "key %s exists or existed: names are never reused", c.Name)
	}
	if _, taken := x.names.Get(c.ID); taken {
		return refuse(CodeExists, "key id %s is taken: ids are never reused", c.ID)
	}
	if x.keys.Len() >= MaxKeys {
		return refuse(CodeLimit, "the catalog holds %d keys, which is its limit", MaxKeys)
	}
	return x.checkMaterial(c.Algorithm, c.Class, c.Material)
}

func validLabels(labels []Label) error {
	if len(labels) > MaxLabels {
		return invalid("a key has at most %d labels, this one %d", MaxLabels, len(labels))
	}
	seen := make(map[string]bool, len(labels))
	for _, l := range labels {
		if err := ValidLabel(l); err != nil {
			return err
		}
		if seen[l.Name] {
			return invalid("label %s is given twice", l.Name)
		}
		seen[l.Name] = true
	}
	return nil
}

// checkMaterial checks a new version: its form, the class's rules, the master generation, and that it can be used everywhere.
func (x *execution) checkMaterial(algorithm, class string, m Material) error {
	c, err := x.knownClass(class)
	if err != nil {
		return err
	}
	if err := validMaterial(algorithm, m); err != nil {
		return err
	}
	switch {
	case !c.allows(algorithm):
		return invalid("class %s does not allow %s; it allows %s", c.Name, clip(algorithm), strings.Join(c.Algorithms, ", "))
	case m.Exportable && !c.Export:
		return invalid("class %s never exports, and the material is exportable", c.Name)
	case x.cluster.MasterGeneration == 0:
		return refuse(CodeConflict, "no master is in force: hold the genesis ceremony first (conclave ceremony genesis)")
	case m.Generation != x.cluster.MasterGeneration:
		return refuse(CodeConflict, "wrapped under master generation %d, generation %d is in force: try again", m.Generation, x.cluster.MasterGeneration)
	case c.HardwareOnly && !m.HardwareSafe && !x.cluster.Dev:
		return refuse(CodeUnsupported, "class %s is for hardware only, and the material was made in a token without a hardware boundary", c.Name)
	}
	return x.usableEverywhere(algorithm, c)
}

func validMaterial(algorithm string, m Material) error {
	if !isName(algorithm, maxShort) {
		return invalid("algorithm %q is no algorithm's name", clip(algorithm))
	}
	if err := validSize("the public key", m.PublicKey, 0, maxPublicKey); err != nil {
		return err
	}
	if err := validSize("the wrapped key", m.Blob, 1, maxBlob); err != nil {
		return err
	}
	return validSize("the binding MAC", m.MAC, macSize, macSize)
}

// usableEverywhere: a key is only made if any node can serve it, because clients may call any node.
func (x *execution) usableEverywhere(algorithm string, c Class) (err error) {
	x.nodes.Scan(func(_ NodeID, n *Node) bool {
		err = x.usableOn(n, algorithm, c)
		return err == nil
	})
	return err
}

func (x *execution) usableOn(n *Node, algorithm string, c Class) error {
	if n.DrainedAt != 0 {
		return nil // it is asked for no key; undraining asks whether it can serve
	}
	if !slices.Contains(n.Device.Algorithms, algorithm) {
		return refuse(CodeUnsupported, "node %s (%s) cannot use %s%s; choose an algorithm that every node has",
			n.ID, n.Device.HSM, clip(algorithm), n.Device.lack(algorithm))
	}
	if c.HardwareOnly && !n.Device.HardwareSafe && !x.cluster.Dev {
		return refuse(CodeUnsupported, "class %s is for hardware only, and node %s (%s) has no hardware boundary", c.Name, n.ID, n.Device.HSM)
	}
	return nil
}

// rotateKey adds a version and makes it primary. The older ones keep their states: only the primary makes new protection.
func (x *execution) rotateKey(c RotateKey) error {
	k, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	if k.ID != c.ID {
		return refuse(CodeNotFound, "key %s has another id than %s", k.Name, clip(string(c.ID)))
	}
	switch p := k.PrimaryVersion(); p.State {
	case StatePreActive, StateActive, StateSuspended, StateDeactivated, StateCompromised:
	default:
		return refuse(CodeState, "key %s is %s and cannot be rotated: %s", k.Name, p.State, remedy(p.State))
	}
	if last := k.Versions[len(k.Versions)-1].Version; c.Version != last+1 {
		return refuse(CodeVersionConflict, "key %s has version %d, so the next is %d and not %d: read it again", k.Name, last, last+1, c.Version)
	}
	if len(k.Versions) >= MaxVersions {
		return refuse(CodeLimit, "key %s has %d versions, which is the limit: create another key", k.Name, MaxVersions)
	}
	if err := x.demand(k.Class, "rotate"); err != nil {
		return err
	}
	if !c.ActivateAt.IsZero() {
		if err := x.checkAhead("the activation", c.ActivateAt); err != nil {
			return err
		}
	}
	if err := x.checkRotation(k, c.Material); err != nil {
		return err
	}
	x.addVersion(k, c.Material, c.ActivateAt, "key.rotate", "")
	return nil
}

// checkRotation checks a further version's material. Exportability is decided when a key is made, and lost for good: no rotation brings it. Whoever
// made the material read an older state, so it is made again.
func (x *execution) checkRotation(k Key, m Material) error {
	if err := x.checkMaterial(k.Algorithm, k.Class, m); err != nil {
		return err
	}
	if m.Exportable && x.FeatureLevel() >= levelOfExports && !x.Exports(&k) {
		return refuse(CodeVersionConflict, "key %s is not exportable, and the material is: read it again", k.Name)
	}
	return nil
}

// addVersion stores k with one more version, created by this entry, and activated by it unless a date for that is given. A version that
// is not active yet becomes primary when it is; the first one is from the beginning, because a key has one.
func (x *execution) addVersion(k Key, m Material, activateAt time.Time, action, detail string) {
	v := KeyVersion{
		Version: Version(len(k.Versions) + 1), State: StateActive,
		CreatedAt: x.now, ActivatedAt: x.now, ChangedAt: x.now, ChangedIndex: x.index,
		Generation: m.Generation, Exportable: m.Exportable, MadeInSoftware: !m.HardwareSafe, PublicKey: m.PublicKey, Blob: m.Blob, MAC: m.MAC,
	}
	waits := !activateAt.IsZero()
	if waits {
		v.State, v.ActivatedAt, v.Dates = StatePreActive, time.Time{}, &Dates{ActivateAt: activateAt}
		detail = strings.TrimSpace(detail + " activate_at=" + stamp(activateAt))
	}
	if !waits || k.Primary == 0 {
		k.Primary = v.Version
	}
	k.Versions, k.Revision = append(slices.Clip(k.Versions), v), x.index
	x.setKey(k)
	x.result.KeyID, x.result.Version = k.ID, v.Version

	e := Event{Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: v.Version}
	e.Action, e.To, e.Detail = action, StatePreActive.String(), detail
	x.emit(e)
	if waits {
		return
	}
	e.Action, e.From, e.To, e.Detail = "key.activate", StatePreActive.String(), StateActive.String(), ""
	x.emit(e)
}

func (x *execution) findKey(name KeyName) (Key, error) {
	k, ok := x.Key(name)
	if !ok {
		return Key{}, refuse(CodeNotFound, "no key %q", clip(string(name)))
	}
	return k, nil
}

// changeKey moves one version, or every version that the action fits, through NIST's states.
func (x *execution) changeKey(c ChangeKey) error {
	k, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	c, err = x.checkChange(c, k)
	if err != nil {
		return err
	}
	if err := x.demandChange(c, k); err != nil {
		return err
	}
	fit, err := fitting(k, c, x.FeatureLevel())
	if err != nil {
		return err
	}
	if c.Restricting() {
		if err := x.roomForBarrier(); err != nil {
			return err
		}
		x.restrictKey(&k)
	}
	x.applyChange(k, c, fit)
	return nil
}

func (x *execution) applyChange(k Key, c ChangeKey, fit []Version) {
	k.Versions = slices.Clone(k.Versions)
	for i, v := range k.Versions {
		if !slices.Contains(fit, v.Version) {
			continue
		}
		to, _ := targetOf(c, v, x.FeatureLevel())
		k.Versions[i] = changed(v, c, to, x.index, x.now)
		if c.Action == ActionActivate && v.Version > k.Primary {
			k.Primary = v.Version
		}
		x.emit(Event{
			Action: "key." + string(c.Action), Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: v.Version,
			From: v.State.String(), To: to.String(), Reason: c.Reason, Detail: changeDetail(c, k.Versions[i]),
		})
	}
	k.Revision = x.index
	x.setKey(k)
	x.result.KeyID, x.result.Version = k.ID, fit[len(fit)-1]
}

// changeDetail puts the dates that the state keeps into the log too, where they stay when the state moves on.
func changeDetail(c ChangeKey, v KeyVersion) string {
	switch {
	case v.State == StateDestroyScheduled && c.meaning() == ActionCompromise:
		return "occurred_at=" + stamp(v.OccurredAt)
	case v.State == StateDestroyScheduled:
		return "destroy_at=" + stamp(v.DestroyAt)
	case v.State == StateCompromised && c.Action != ActionCancelDestroy, v.State == StateDestroyedCompromised:
		return "occurred_at=" + stamp(v.OccurredAt)
	default:
		return ""
	}
}
