package fsm

import (
	"cmp"
	"slices"
)

// beginLedger notes when the first entry about uses came.
func (x *execution) beginLedger() {
	if x.ledger.since.IsZero() {
		x.ledger.since = x.now
	}
}

// setBudget changes the limit. What nodes have in reserve of a limit that is no longer allowed becomes void by this entry; when its
// barrier is done no node can be spending it.
func (x *execution) setBudget(c SetBudget) error {
	k, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	if err := x.demand(k.Class, "update"); err != nil {
		return err
	}
	if err := c.Limit.Validate(); err != nil {
		return err
	}
	if err := x.checkOwnBudget(&k, c.Limit); err != nil {
		return err
	}
	old := x.UseLimit(&k)
	u := x.withLimit(&k, x.useOf(&k), c.Limit)
	limit := x.limitIn(&k, c.Limit)
	if !limit.permits(old) {
		if err := x.roomForBarrier(); err != nil {
			return err
		}
		x.restrictKey(&k)
		u.Limited = u.Limited.voided(x.index)
	}
	if limit.None() {
		u.Limited = UseAccount{} // what was spent of no limit is not known
	}
	u.Window = limit.window(x.now)
	x.beginLedger()
	k.Revision = x.index
	x.setKey(k)
	x.setUse(k.ID, u)
	x.result.KeyID = k.ID
	x.emit(Event{
		Action: "key.budget", Subject: keySubject(k.Name), SubjectID: string(k.ID), From: old.String(), To: limit.String(),
	})
	return nil
}

// withLimit is u under another limit of the key's own. What the present window of the class's budget has seen goes with it.
func (x *execution) withLimit(k *Key, u Use, limit UseLimit) Use {
	had, has := !u.Limit.None(), !limit.None()
	u.Limit = limit
	switch {
	case x.FeatureLevel() < levelOfRigour || x.classLimit(k).None():
		u.Class = Spending{}
	case has && !had:
		u.Class = Spending{Window: u.Window, Spent: u.Limited.Spent}
	case had && !has:
		u.Window, u.Limited.Spent, u.Class = u.Class.Window, u.Class.Spent, Spending{}
	}
	return u
}

// checkOwnBudget: what a class forces on its keys, one of them does not lift by itself.
func (x *execution) checkOwnBudget(k *Key, own UseLimit) error {
	c := x.ClassRecord(k.Class)
	if c == nil || x.FeatureLevel() < levelOfBudgets || own.within(c.Budget) {
		return nil
	}
	return refuse(CodeNeedsApproval, "a budget of %s is more than class %s allows its keys (%s): that needs approval, which this release cannot collect", own, c.Name, c.Budget)
}

// voidUses ends what nodes have in reserve of the limit of a key that moves to another class. The move is a restriction.
func (x *execution) voidUses(k *Key) {
	if x.UseRecord(k.ID) != nil {
		u := x.useOf(k)
		u.Limited = u.Limited.voided(x.index)
		x.setUse(k.ID, u)
	}
}

func (a UseAccount) voided(index uint64) UseAccount {
	a.Blocks = slices.Clone(a.Blocks)
	for i := range a.Blocks {
		if a.Blocks[i].Void == 0 {
			a.Blocks[i].Void = index
		}
	}
	return a
}

// userOf finds the member whose present process speaks.
func (x *execution) userOf(id NodeID, boot string) (*Node, error) {
	n, member := x.nodes.Get(id)
	if !member {
		return nil, refuse(CodeNotFound, "there is no node %q", clip(string(id)))
	}
	if boot == "" || n.UnsealedBoot != boot {
		return nil, refuse(CodeConflict, "node %s has not been unsealed in the process %q, so that holds no reserve", n.ID, clip(boot))
	}
	return n, nil
}

// usedKey finds the key, and the version if one is named.
func (x *execution) usedKey(id KeyID, v Version) (*Key, error) {
	name, found := x.names.Get(id)
	if !found {
		return nil, refuse(CodeNotFound, "no key has the id %q", clip(string(id)))
	}
	k := x.KeyRecord(name)
	if _, has := k.Version(v); v != 0 && !has {
		return nil, refuse(CodeNotFound, "key %s has no version %d", name, v)
	}
	if v != 0 && !BoundsInvocations(k.Algorithm) {
		return nil, invalid("keys for %s have no bound of their own", k.Algorithm)
	}
	return k, nil
}

// returnUse closes blocks. What is not known any more was closed before.
func (x *execution) returnUse(c ReturnUse) error {
	n, err := x.userOf(c.Node, c.Boot)
	if err != nil {
		return err
	}
	if len(c.Blocks) > maxUseItems {
		return invalid("an entry returns at most %d blocks, not %d", maxUseItems, len(c.Blocks))
	}
	for _, b := range c.Blocks {
		if !b.Used.within(MaxUses) {
			return invalid("an amount of %d operations and %d bytes is beyond any budget", b.Used.Operations, b.Used.Bytes)
		}
	}
	x.beginLedger()
	for _, b := range c.Blocks {
		x.returnBlock(n, b)
	}
	return nil
}

func (x *execution) returnBlock(n *Node, b UsedBlock) {
	k, err := x.usedKey(b.Key, b.Version)
	if err != nil {
		return
	}
	u := x.useOf(k)
	a := u.account(b.Version)
	i := a.find(n.ID, n.UnsealedBoot)
	switch {
	case i >= 0 && a.Blocks[i].Opened == b.Opened:
		a = a.settled(i, b.Used).closed(i)
	case i < 0 && b.Opened == 0 && b.Version != 0: // credit: what a repetition adds twice is little, and on the safe side
		a.Spent.Operations += min(b.Used.Operations, GCMCredit)
	default:
		return
	}
	u = x.charged(k, u, b.Version, a)
	if b.Version != 0 && b.Used != (Amount{}) {
		u = u.withVersion(b.Version, func(v *VersionUse) { v.LastUsed = toMillis(x.now) })
	}
	x.setUse(k.ID, u)
}

// recordUse notes the log's time. Without versions it only says that uses are recorded from now on.
func (x *execution) recordUse(c RecordUse) error {
	if _, member := x.nodes.Get(c.Node); !member {
		return refuse(CodeNotFound, "there is no node %q", clip(string(c.Node)))
	}
	if len(c.Versions) > maxUseItems {
		return invalid("an entry records the use of at most %d versions, not %d", maxUseItems, len(c.Versions))
	}
	for _, used := range c.Versions {
		if k, found := x.KeyByID(used.Key); found && !used.counts(k.Algorithm) {
			return invalid("%d uses of key %s version %d: those of keys for %s are not reported in that way, or not so many", used.Operations, k.Name, used.Version, k.Algorithm)
		}
	}
	x.beginLedger()
	for _, used := range c.Versions {
		k, found := x.KeyByID(used.Key)
		if _, has := k.Version(used.Version); !found || !has {
			continue
		}
		u := x.useOf(&k)
		x.setUse(k.ID, u.withVersion(used.Version, func(v *VersionUse) {
			v.LastUsed = toMillis(x.now)
			v.Protected.Spent.Operations = min(v.Protected.Spent.Operations+used.Operations, MaxUses)
		}))
	}
	return nil
}

// lapseUse ends what a node has in reserve.
func (x *execution) lapseUse(c LapseUse) error {
	n, member := x.nodes.Get(c.Node)
	if !member {
		return refuse(CodeNotFound, "there is no node %q", clip(string(c.Node)))
	}
	if err := x.roomForBarrier(); err != nil {
		return err
	}
	x.restrict(nodeSubject(n.ID))
	x.beginLedger()
	lapses := slices.DeleteFunc(slices.Clone(x.ledger.lapses), func(l useLapse) bool { return l.node == n.ID })
	lapses = append(lapses, useLapse{node: n.ID, index: x.index})
	slices.SortFunc(lapses, func(a, b useLapse) int { return cmp.Compare(a.node, b.node) })
	x.ledger.lapses = lapses
	x.emit(Event{Action: "node.lapse-use", Subject: nodeSubject(n.ID), Reason: "nobody hears from it"})
	return nil
}

// settleLapse notes when a lapse was in force everywhere.
func (x *execution) settleLapse(b PendingBarrier) {
	i := slices.IndexFunc(x.ledger.lapses, func(l useLapse) bool { return l.index == b.Index })
	if i < 0 || x.FeatureLevel() < levelOfRigour {
		return
	}
	x.ledger.lapses = slices.Clone(x.ledger.lapses)
	x.ledger.lapses[i].done = toMillis(x.now)
}
