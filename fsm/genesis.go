package fsm

import (
	"bytes"
	"fmt"
	"slices"
)

// CommitmentMessage is what a custodian signs when it commits to its entropy.
func CommitmentMessage(c CeremonyID, nonce []byte, who CustodianName, commitment []byte) []byte {
	return domain("entropy commitment").text(string(c)).bytes(nonce).text(string(who)).bytes(commitment)
}

// AcknowledgementMessage is what a custodian signs when its share verified and is stored.
func AcknowledgementMessage(c CeremonyID, who CustodianName, transcript [32]byte) []byte {
	return domain("share acknowledgement").text(string(c)).text(string(who)).bytes(transcript[:])
}

// startGenesis opens the ceremony: the roster, and the dealing node's commitment to its HSM's random before any custodian
// shows anything.
func (x *execution) startGenesis(c StartGenesis) error {
	if err := x.checkGenesis(c); err != nil {
		return err
	}
	started, err := x.newCeremony(c.ID, PurposeGenesis, c.Nonce, c.TTL)
	if err != nil {
		return err
	}
	started.Phase, started.Roster = PhaseCommit, c.Roster
	started.Dealer, started.DealerBoot, started.DealerCommitment = c.Dealer, c.DealerBoot, c.DealerCommitment
	x.begin(started, fmt.Sprintf("dealer=%s threshold=%d custodians=%d", c.Dealer, c.Roster.Threshold, len(c.Roster.Custodians)))
	return nil
}

func (x *execution) checkGenesis(c StartGenesis) error {
	if x.master != nil {
		return refuse(CodeExists, "master generation %d is in force: genesis happens once", x.master.Generation)
	}
	if err := x.checkFirstRoster(c.Roster); err != nil {
		return err
	}
	if _, ok := x.nodes.Get(c.Dealer); !ok {
		return refuse(CodeNotFound, "the dealing node %q is no member", clip(string(c.Dealer)))
	}
	if err := validBoot(c.DealerBoot); err != nil {
		return err
	}
	return validSize("the dealing node's commitment", c.DealerCommitment, hashSize, hashSize)
}

func validBoot(boot string) error {
	if !isName(boot, maxShort) {
		return invalid("boot id %q is no boot id", clip(boot))
	}
	return nil
}

func (x *execution) checkFirstRoster(r Roster) error {
	if err := validRoster(r); err != nil {
		return err
	}
	switch {
	case r.Version != 1 || r.Previous != [32]byte{} || len(r.Signatures) > 0:
		return invalid("the genesis roster is version 1, follows none and carries no signatures yet")
	case r.ClusterID != x.cluster.ID:
		return invalid("the roster is of cluster %q, not %s", clip(r.ClusterID), x.cluster.ID)
	case r.Threshold < 2 && !x.cluster.Dev:
		// With a threshold of 1 every share is the secret itself: no knowledge is split.
		return invalid("a threshold of %d splits no knowledge: at least 2", r.Threshold)
	case len(r.Nodes) != x.nodes.Len():
		return refuse(CodeConflict, "the roster has %d nodes and the cluster %d: read the nodes again", len(r.Nodes), x.nodes.Len())
	}
	return x.membersOnly(r)
}

// commitEntropy takes a custodian's commitment and its signature over the roster. The phase ends with the last one.
func (x *execution) commitEntropy(c CommitEntropy) error {
	open, err := x.inPhase(c.Ceremony, PurposeGenesis, PhaseCommit)
	if err != nil {
		return err
	}
	if err := validSize("the commitment", c.Commitment, hashSize, hashSize); err != nil {
		return err
	}
	message := CommitmentMessage(open.ID, open.Nonce, c.Custodian, c.Commitment)
	if err := checkSignature(open.Roster, c.Custodian, message, c.Signature); err != nil {
		return err
	}
	if err := checkSignature(open.Roster, c.Custodian, RosterMessage(RosterHash(open.Roster)), c.RosterSignature); err != nil {
		return err
	}
	if i := open.commitmentOf(c.Custodian); i >= 0 {
		return x.sameCommitment(open, open.Commitments[i], c)
	}
	x.addCommitment(open, c)
	return nil
}

// sameCommitment: one who lost the answer may commit again to the same; nobody changes what others may have seen.
func (x *execution) sameCommitment(open Ceremony, have EntropyCommitment, c CommitEntropy) error {
	if !bytes.Equal(have.Commitment, c.Commitment) {
		return refuse(CodeConflict, "custodian %s has committed to another value", c.Custodian)
	}
	x.result.Ceremony = open.ID
	return nil
}

func (x *execution) addCommitment(open Ceremony, c CommitEntropy) {
	open.Commitments = append(slices.Clip(open.Commitments), EntropyCommitment{
		Custodian: c.Custodian, Commitment: c.Commitment, Signature: c.Signature,
	})
	open.Roster.Signatures = append(slices.Clip(open.Roster.Signatures), RosterSignature{Custodian: c.Custodian, Signature: c.RosterSignature})
	next := PhaseCommit
	if len(open.Commitments) == len(open.Roster.Custodians) {
		next = PhaseReveal
	}
	x.note(open, string(c.Custodian), "commit", fmt.Sprintf("custodian=%s commitment=%x", c.Custodian, c.Commitment), next)
}

// recordReveal is the dealing node's word; a value that does not match its commitment ends the ceremony, because what was
// dealt then could be steered.
func (x *execution) recordReveal(c RecordReveal) error {
	open, err := x.inPhase(c.Ceremony, PurposeGenesis, PhaseReveal)
	if err != nil {
		return err
	}
	if err := checkDealer(open, c.Boot); err != nil {
		return err
	}
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	i := open.commitmentOf(c.Custodian)
	switch {
	case i < 0:
		return refuse(CodeNotFound, "no custodian %q in this ceremony", clip(string(c.Custodian)))
	case !c.Matches:
		x.abort(open, fmt.Sprintf("the value of custodian %s does not match its commitment: %s", c.Custodian, c.Reason))
	case open.Commitments[i].Revealed:
		x.result.Ceremony = open.ID
	default:
		x.addReveal(open, i)
	}
	return nil
}

// checkDealer: the values live in one process of one node. Another process of it has lost them and must abort.
func checkDealer(open Ceremony, boot string) error {
	if boot != open.DealerBoot {
		return refuse(CodeConflict, "process %q of node %s is not the one that began to deal: abort the ceremony and start again", clip(boot), open.Dealer)
	}
	return nil
}

func (x *execution) addReveal(open Ceremony, i int) {
	open.Commitments = slices.Clone(open.Commitments)
	open.Commitments[i].Revealed = true
	next := PhaseReveal
	if !slices.ContainsFunc(open.Commitments, func(e EntropyCommitment) bool { return !e.Revealed }) {
		next = PhaseDeal
	}
	x.note(open, "", "reveal", "custodian="+string(open.Commitments[i].Custodian), next)
}

func (x *execution) publishDeal(c PublishDeal) error {
	open, err := x.inPhase(c.Ceremony, PurposeGenesis, PhaseDeal)
	if err != nil {
		return err
	}
	if err := checkDealer(open, c.Boot); err != nil {
		return err
	}
	if err := validDeal(c.Deal, open.Roster, x.cluster.MasterGeneration+1); err != nil {
		return err
	}
	open.Deal = &c.Deal
	x.note(open, "", "deal", fmt.Sprintf("generation=%d transcript=%x", c.Deal.Generation, c.Deal.Transcript), PhaseAcknowledge)
	return nil
}

// validDeal checks the form; whether the shares fit the commitments is for the custodians' programs to find, and to say.
func validDeal(d Deal, r Roster, generation uint32) error {
	switch {
	case d.Generation != generation:
		return invalid("the deal is of generation %d, not %d", d.Generation, generation)
	case len(d.Commitments) != int(r.Threshold):
		return invalid("a deal for a threshold of %d has as many commitments, not %d", r.Threshold, len(d.Commitments))
	case len(d.Check) != 3:
		return invalid("a deal has the check values of three keys, not %d", len(d.Check))
	case d.Transcript == [32]byte{}:
		return invalid("the deal has no transcript")
	}
	for _, p := range d.Commitments {
		if err := validSize("a commitment of the deal", p, 1, maxPoint); err != nil {
			return err
		}
	}
	for _, v := range d.Check {
		if err := validSize("a check value", v, 1, maxCheck); err != nil {
			return err
		}
	}
	return validShares(d.Shares, r)
}

func validShares(shares []SealedShare, r Roster) error {
	seen := make(map[CustodianName]bool, len(shares))
	for _, s := range shares {
		if indexOfCustodian(r.Custodians, s.Custodian) < 0 || seen[s.Custodian] {
			return invalid("a share for %q, who is no custodian or has one already", clip(string(s.Custodian)))
		}
		if err := validSize("a sealed share", s.Ciphertext, 1, maxShare); err != nil {
			return err
		}
		seen[s.Custodian] = true
	}
	if len(seen) != len(r.Custodians) {
		return invalid("%d shares for %d custodians", len(seen), len(r.Custodians))
	}
	return nil
}

// acknowledgeShare: the last one puts the roster and the master in force.
func (x *execution) acknowledgeShare(c AcknowledgeShare) error {
	open, err := x.inPhase(c.Ceremony, PurposeGenesis, PhaseAcknowledge)
	if err != nil {
		return err
	}
	message := AcknowledgementMessage(open.ID, c.Custodian, open.Deal.Transcript)
	if err := checkSignature(open.Roster, c.Custodian, message, c.Signature); err != nil {
		return err
	}
	i := open.commitmentOf(c.Custodian)
	if open.Commitments[i].Acknowledged {
		x.result.Ceremony = open.ID
		return nil
	}
	open.Commitments = slices.Clone(open.Commitments)
	open.Commitments[i].Acknowledged = true
	open = x.note(open, string(c.Custodian), "acknowledge", "custodian="+string(c.Custodian), PhaseAcknowledge)
	if !slices.ContainsFunc(open.Commitments, func(e EntropyCommitment) bool { return !e.Acknowledged }) {
		x.finishGenesis(open)
	}
	return nil
}

func (x *execution) finishGenesis(c Ceremony) {
	x.note(c, "", "done", "", PhaseDone)
	x.activateRoster(c.Roster)
	x.master = &Master{
		Generation: c.Deal.Generation, Threshold: c.Roster.Threshold, Commitments: c.Deal.Commitments, Check: c.Deal.Check,
		Since: x.now, Ceremony: c.ID,
	}
	x.cluster.MasterGeneration = c.Deal.Generation
	x.emit(Event{
		Action: "master.activate", Subject: clusterSubject, SubjectID: string(c.ID),
		Detail: fmt.Sprintf("generation=%d transcript=%x", c.Deal.Generation, c.Deal.Transcript),
	})
}
