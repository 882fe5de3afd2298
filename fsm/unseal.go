package fsm

import (
	"bytes"
	"fmt"
	"slices"
)

// UnsealRequestMessage is what a custodian signs to start an unseal ceremony; nonce is the request's.
func UnsealRequestMessage(clusterID string, who CustodianName, nonce []byte) []byte {
	return domain("unseal request").text(clusterID).text(string(who)).bytes(nonce)
}

// startUnseal opens the ceremony for a custodian of the roster in force, or returns the open one: custodians come in any
// order and need not know who was first.
func (x *execution) startUnseal(c StartUnseal) error {
	roster, ok := x.Roster()
	if !ok {
		return refuse(CodeCeremony, "no roster is in force: hold the genesis ceremony first (conclave ceremony genesis)")
	}
	if err := validSize("the request's nonce", c.Nonce, nonceSize, nonceSize); err != nil {
		return err
	}
	message := UnsealRequestMessage(x.cluster.ID, c.Custodian, c.Nonce)
	if err := checkSignature(roster, c.Custodian, message, c.Signature); err != nil {
		return err
	}
	if open, ok := x.OpenCeremony(PurposeUnseal); ok {
		x.result.Ceremony = open.ID
		return nil
	}
	if err := x.freshNonce(c.Nonce); err != nil {
		return err
	}
	started, err := x.newCeremony(c.ID, PurposeUnseal, c.Nonce, c.TTL)
	if err != nil {
		return err
	}
	started.Phase = PhaseShares
	x.begin(started, "custodian="+string(c.Custodian))
	return nil
}

// freshNonce: an old signed request, overheard, opens no ceremony while the one it opened is remembered.
func (x *execution) freshNonce(nonce []byte) error {
	if slices.ContainsFunc(x.ceremonies, func(c Ceremony) bool { return bytes.Equal(c.Nonce, nonce) }) {
		return refuse(CodeDenied, "the request was used before: sign a new one")
	}
	return nil
}

// recordShareVerdict is a node's finding. A refused share is a successful entry, because the log must name its custodian.
// The ceremony keeps the last finding of each node on each custodian, so that wrong shares cannot fill it; the log has all.
func (x *execution) recordShareVerdict(c RecordShareVerdict) error {
	open, err := x.inPhase(c.Ceremony, PurposeUnseal, PhaseShares)
	if err != nil {
		return err
	}
	if err := x.checkVerdict(c); err != nil {
		return err
	}
	verdict := ShareVerdict{Custodian: c.Custodian, Node: c.Node, Accepted: c.Accepted, Reason: c.Reason, At: x.now, Index: x.index}
	open.Verdicts = slices.DeleteFunc(slices.Clone(open.Verdicts), func(v ShareVerdict) bool {
		return v.Custodian == c.Custodian && v.Node == c.Node
	})
	open.Verdicts = append(open.Verdicts, verdict)
	x.putCeremony(open)
	x.result.Ceremony = open.ID
	action := "share.refuse"
	if c.Accepted {
		action = "share.accept"
	}
	x.emit(Event{
		Action: action, Subject: custodianSubject(c.Custodian), SubjectID: string(open.ID), Reason: c.Reason, Detail: "node=" + string(c.Node),
	})
	return nil
}

func (x *execution) checkVerdict(c RecordShareVerdict) error {
	roster, _ := x.Roster()
	if indexOfCustodian(roster.Custodians, c.Custodian) < 0 {
		return refuse(CodeNotFound, "no custodian %q in roster version %d", clip(string(c.Custodian)), roster.Version)
	}
	if _, ok := x.nodes.Get(c.Node); !ok {
		return refuse(CodeNotFound, "no node %q", clip(string(c.Node)))
	}
	return ValidReason(c.Reason)
}

// recordNodeUnsealed: the node decided on the state at Seen. If a seal order came after, the node must seal again.
func (x *execution) recordNodeUnsealed(c RecordNodeUnsealed) error {
	n, err := x.checkUnsealed(c)
	if err != nil {
		return err
	}
	n.UnsealedBoot, n.UnsealedAt = c.Boot, x.index
	x.nodes.Set(n.ID, &n)
	x.emit(Event{
		Action: "node.unseal", Subject: nodeSubject(n.ID), SubjectID: c.Boot,
		Detail: fmt.Sprintf("generation=%d ceremony=%s", c.Generation, c.Ceremony),
	})
	x.countUnsealed(n.ID)
	x.result.Ceremony = c.Ceremony
	return nil
}

func (x *execution) checkUnsealed(c RecordNodeUnsealed) (Node, error) {
	n, ok := x.Node(c.Node)
	if !ok {
		return Node{}, refuse(CodeNotFound, "no node %q", clip(string(c.Node)))
	}
	if err := validBoot(c.Boot); err != nil {
		return Node{}, err
	}
	if _, ok := x.Ceremony(c.Ceremony); c.Ceremony != "" && !ok {
		return Node{}, refuse(CodeNotFound, "no ceremony %q", clip(string(c.Ceremony)))
	}
	switch {
	case c.Seen >= x.index:
		return Node{}, invalid("node %s cannot have seen index %d, which is not before %d", n.ID, c.Seen, x.index)
	case c.Seen < x.cluster.SealedAt:
		return Node{}, refuse(CodeConflict, "a seal order at index %d came after index %d, on which node %s decided: it must seal", x.cluster.SealedAt, c.Seen, n.ID)
	case c.Generation == 0 || c.Generation != x.cluster.MasterGeneration:
		return Node{}, refuse(CodeConflict, "node %s opened master generation %d, in force is %d", n.ID, c.Generation, x.cluster.MasterGeneration)
	}
	return n, nil
}

// countUnsealed ends the open unseal ceremony when every node of the roster that is a member has reported since its start,
// by whatever way it was unsealed.
func (x *execution) countUnsealed(id NodeID) {
	open, ok := x.OpenCeremony(PurposeUnseal)
	if !ok {
		return
	}
	if !slices.Contains(open.Unsealed, id) {
		open.Unsealed = append(slices.Clip(open.Unsealed), id)
		x.putCeremony(open)
	}
	x.endUnseal(open)
}

func (x *execution) endUnseal(open Ceremony) {
	roster, _ := x.Roster()
	for _, rn := range roster.Nodes {
		if n, member := x.Node(rn.ID); member && (n.UnsealedAt <= open.StartedIndex || x.sealedSince(open, n)) {
			return
		}
	}
	x.note(open, "", "done", "", PhaseDone)
}

// sealedSince reports that a node has judged a share after it had reported: only a sealed one does, so it has begun anew and waits for more.
func (x *execution) sealedSince(open Ceremony, n Node) bool {
	return x.FeatureLevel() >= levelOfRigour && slices.ContainsFunc(open.Verdicts, func(v ShareVerdict) bool { return v.Node == n.ID && v.Index > n.UnsealedAt })
}

// sealCluster is one officer's order. It also aborts an open unseal ceremony: shares that came before the order must not
// undo it after.
func (x *execution) sealCluster(c SealCluster) error {
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	if err := x.roomForBarrier(); err != nil {
		return err
	}
	x.cluster.SealedAt = x.index
	x.restrict(clusterSubject)
	x.emit(Event{Action: "cluster.seal", Subject: clusterSubject, SubjectID: x.cluster.ID, Reason: c.Reason})
	for _, open := range x.ceremonies {
		if open.Purpose == PurposeUnseal && open.open() {
			x.abort(open, "the cluster was ordered to seal")
		}
	}
	x.result.Ceremony = "" // the order is about the cluster, whatever it ended
	return nil
}
