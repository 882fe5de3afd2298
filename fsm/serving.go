package fsm

import "fmt"

// Standing is a member's part in serving keys.
type Standing uint8

const (
	StandingServing  Standing = iota // it may use keys
	StandingDraining                 // it was ordered to stop, and may not have heard of it
	StandingDrained                  // it uses no key, until it is undrained
	StandingRemoving                 // it leaves the cluster once it is known to use no key
)

var standingNames = [...]string{
	StandingServing: "serving", StandingDraining: "draining", StandingDrained: "drained", StandingRemoving: "removing",
}

// String is the standing as users and events write it.
func (s Standing) String() string {
	if int(s) < len(standingNames) {
		return standingNames[s]
	}
	return fmt.Sprintf("standing %d", uint8(s))
}

// Standing of a member as this state knows it.
func (s *State) Standing(n Node) Standing {
	_, pending := s.barriers.Get(n.DrainedAt)
	switch {
	case n.RemovedAt != 0:
		return StandingRemoving
	case n.DrainedAt == 0:
		return StandingServing
	case pending:
		return StandingDraining
	default:
		return StandingDrained
	}
}

// DrainedAt is the index of the order by which a member uses no key; 0 if it may. It is asked for every use.
func (s *State) DrainedAt(id NodeID) uint64 {
	if s.drained == 0 {
		return 0
	}
	n, found := s.nodes.Get(id)
	if !found {
		return 0
	}
	return n.DrainedAt
}

// Incumbent is the process that serves as a node, the last that reported an unseal, and the index of that report; an empty boot id if
// none has since the node became a member, or it is none. What any other process of that name holds of leases counts for nothing, since nobody waits for
// it: it may run on a copy of the node's data, or on what it had as an earlier member.
func (s *State) Incumbent(id NodeID) (boot string, since uint64) {
	n, found := s.nodes.Get(id)
	if !found {
		return "", 0
	}
	return n.UnsealedBoot, n.UnsealedAt
}

// Serves reports whether a process is its node's incumbent, and the node was not ordered to drain. It is asked for every use.
func (s *State) Serves(id NodeID, boot string) bool {
	n, found := s.nodes.Get(id)
	return found && n.UnsealedBoot == boot && n.DrainedAt == 0
}

// LastIncumbent is the latest index at which a present member's incumbent became it.
func (s *State) LastIncumbent() (last uint64) {
	for _, n := range s.nodes.Values() {
		last = max(last, n.UnsealedAt)
	}
	return last
}

func (s *State) countDrained(n Node) {
	if n.DrainedAt != 0 {
		s.drained++
	}
}

// member finds the node that an order is about.
func (x *execution) member(id NodeID) (Node, error) {
	n, known := x.Node(id)
	switch {
	case !known:
		return n, refuse(CodeNotFound, "there is no node %q", clip(string(id)))
	case n.RemovedAt != 0:
		return n, refuse(CodeConflict, "node %s is being removed since index %d, and that is not undone: admit it anew when it is gone", id, n.RemovedAt)
	}
	return n, nil
}

func (x *execution) drainNode(c DrainNode) error {
	n, err := x.member(c.Node)
	if err != nil {
		return err
	}
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	if n.DrainedAt != 0 {
		return refuse(CodeConflict, "node %s is %s since index %d", n.ID, x.Standing(n), n.DrainedAt)
	}
	if err := x.mayDrain(n); err != nil {
		return err
	}
	n.DrainedAt = x.index
	x.order(n, "node.drain", StandingServing, StandingDraining, c.Reason)
	x.drained++
	return nil
}

// order stores a node with an order that opens a barrier.
func (x *execution) order(n Node, action string, from, to Standing, reason string) {
	x.nodes.Set(n.ID, &n)
	x.restrict(nodeSubject(n.ID))
	x.emit(Event{Action: action, Subject: nodeSubject(n.ID), From: from.String(), To: to.String(), Reason: reason})
}

// mayDrain: a cluster whose last node serves no more is one whose keys are all out of use, and that has an order of its own.
func (x *execution) mayDrain(n Node) error {
	if n.DrainedAt == 0 && x.nodes.Len()-x.drained <= 1 {
		return refuse(CodeConflict, "node %s is the last one that serves: undrain or admit another first, or seal the cluster (conclave seal)", n.ID)
	}
	return x.roomForBarrier()
}

// undrainNode waits for the drain's barrier: an acknowledgement that says "it signs nothing any more" must not come after it does.
func (x *execution) undrainNode(c UndrainNode) error {
	n, err := x.member(c.Node)
	if err != nil {
		return err
	}
	switch x.Standing(n) {
	case StandingServing:
		return refuse(CodeConflict, "node %s is serving: there is nothing to undo", n.ID)
	case StandingDraining:
		return refuse(CodeConflict, "node %s is still draining: wait until the drain is acknowledged (conclave node list)", n.ID)
	}
	if err := x.canServeAll(n); err != nil { // keys may have been made since that it cannot use
		return err
	}
	n.DrainedAt = 0
	x.nodes.Set(n.ID, &n)
	x.drained--
	x.emit(Event{Action: "node.undrain", Subject: nodeSubject(n.ID), From: StandingDrained.String(), To: StandingServing.String()})
	return nil
}

// removeNode also takes back the tokens with which the node could come again: whoever removes it decides anew.
func (x *execution) removeNode(c RemoveNode) error {
	n, err := x.member(c.Node)
	if err != nil {
		return err
	}
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	if err := x.mayDrain(n); err != nil {
		return err
	}
	if err := x.owesReceipt(n); err != nil {
		return err
	}
	from := x.Standing(n)
	if n.DrainedAt == 0 {
		n.DrainedAt = x.index
		x.drained++
	}
	n.RemovedAt = x.index
	x.order(n, "node.remove", from, StandingRemoving, c.Reason)
	for _, t := range x.tokens.Values() {
		if t.Node == n.ID {
			x.deleteToken(t.ID)
		}
	}
	return nil
}

// owesReceipt: a destruction ends with every node's receipt. Who removes one that owes it names an exception to that, which is the
// quorum's to do.
func (x *execution) owesReceipt(n Node) error {
	owed := x.AwaitingErasure(n.ID, 1)
	if len(owed) == 0 {
		return nil
	}
	k, _ := x.KeyByID(owed[0].Key)
	return refuse(CodeNeedsApproval, "key %s version %d is being destroyed and node %s may still have it: "+
		"to remove the node before its receipt needs approval", k.Name, owed[0].Version, n.ID)
}

// settleNode takes a node out that was to be removed: it uses no key any more, wherever it is.
func (x *execution) settleNode(b PendingBarrier) {
	id, isNode := cutNode(b.Subject)
	n, known := x.Node(id)
	if !isNode || !known || n.RemovedAt != b.Index {
		return
	}
	x.nodes.Delete(id)
	x.drained--
	x.emit(Event{Action: "node.removed", Subject: b.Subject, From: StandingRemoving.String()})
	x.settleDestructions()
	if open, ok := x.OpenCeremony(PurposeUnseal); ok && len(open.Unsealed) > 0 {
		x.endUnseal(open) // it may have been the last one that was waited for
		x.result.Ceremony = ""
	}
}
