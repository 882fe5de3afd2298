package fsm

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// RosterHash covers everything but the signatures, and names the roster in the next one and in signatures.
func RosterHash(r Roster) [32]byte {
	b := domain("roster").uint32(r.Version).text(r.ClusterID).uint32(r.Threshold).uint32(uint32(len(r.Custodians)))
	for _, c := range r.Custodians {
		b = b.text(string(c.Name)).text(c.Recipient).bytes(c.SigningKey)
	}
	b = b.uint32(uint32(len(r.Nodes)))
	for _, n := range r.Nodes {
		b = b.text(string(n.ID)).bytes(n.ExchangeKey)
	}
	return sha256.Sum256(b.bytes(r.Previous[:]))
}

// RosterMessage is what custodians sign to put a roster in force.
func RosterMessage(hash [32]byte) []byte { return domain("roster signature").bytes(hash[:]) }

// VerifyRosterChain verifies rosters from the genesis roster on: it is signed by all its custodians, because each of them
// relies on the others being who they are; every later one names the hash of the version before and is signed by at least
// that version's threshold of custodians. ErrRoster. Whoever pins the genesis hash compares it with RosterHash(chain[0]).
func VerifyRosterChain(chain []Roster) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: an empty chain", ErrRoster)
	}
	for i, r := range chain {
		before, need := r, len(r.Custodians)
		if i > 0 {
			before = chain[i-1]
			need = int(before.Threshold)
		}
		if err := verifyLink(r, before, i == 0, need); err != nil {
			return fmt.Errorf("%w: version %d: %w", ErrRoster, r.Version, err)
		}
	}
	return nil
}

func verifyLink(r, before Roster, genesis bool, need int) error {
	if err := validRoster(r); err != nil {
		return err
	}
	if genesis {
		if r.Version != 1 || r.Previous != [32]byte{} {
			return invalid("a chain begins with version 1, which has no version before")
		}
	} else if err := follows(r, before); err != nil {
		return err
	}
	return verifySignatures(r, before.Custodians, need)
}

func follows(r, before Roster) error {
	switch {
	case r.Version != before.Version+1:
		return invalid("it does not follow version %d", before.Version)
	case r.Previous != RosterHash(before):
		return invalid("it names another version before than version %d", before.Version)
	case r.ClusterID != before.ClusterID:
		return invalid("it is of another cluster")
	default:
		return nil
	}
}

// verifySignatures is strict: one signature that does not verify spoils the roster, because nothing honest makes one.
func verifySignatures(r Roster, signers []Custodian, need int) error {
	message := RosterMessage(RosterHash(r))
	seen := make(map[CustodianName]bool, len(r.Signatures))
	for _, s := range r.Signatures {
		i := indexOfCustodian(signers, s.Custodian)
		if i < 0 || seen[s.Custodian] || !verified(signers[i], message, s.Signature) {
			return invalid("the signature of %q does not verify", clip(string(s.Custodian)))
		}
		seen[s.Custodian] = true
	}
	if len(seen) < need {
		return invalid("%d of %d signatures", len(seen), need)
	}
	return nil
}

// verified checks the key's length first, because crypto/ed25519 panics on another.
func verified(c Custodian, message, signature []byte) bool {
	return len(c.SigningKey) == ed25519.PublicKeySize && ed25519.Verify(c.SigningKey, message, signature)
}

func indexOfCustodian(all []Custodian, name CustodianName) int {
	return slices.IndexFunc(all, func(c Custodian) bool { return c.Name == name })
}

// validRoster checks the form of any roster.
func validRoster(r Roster) error {
	if err := ValidClusterID(r.ClusterID); err != nil {
		return err
	}
	if n := len(r.Custodians); n == 0 || n > MaxCustodians {
		return invalid("a roster has 1 to %d custodians, not %d", MaxCustodians, n)
	}
	if r.Threshold == 0 || int(r.Threshold) > len(r.Custodians) {
		return invalid("a threshold of %d cannot be met by %d custodians", r.Threshold, len(r.Custodians))
	}
	if n := len(r.Nodes); n == 0 || n > MaxNodes {
		return invalid("a roster has 1 to %d nodes, not %d", MaxNodes, n)
	}
	if err := validCustodians(r.Custodians); err != nil {
		return err
	}
	return validRosterNodes(r.Nodes)
}

// validCustodians also refuses one key under two names: two shares in one hand would count as two people.
func validCustodians(custodians []Custodian) error {
	seen := make(map[string]bool, 3*len(custodians))
	for _, c := range custodians {
		if err := ValidPersonName(string(c.Name)); err != nil {
			return err
		}
		if c.Recipient == "" {
			return invalid("custodian %s has no recipient", c.Name)
		}
		if err := validText("a custodian's recipient", c.Recipient, maxRecipient); err != nil {
			return err
		}
		if err := validSize("a custodian's signing key", c.SigningKey, signingKeySize, signingKeySize); err != nil {
			return err
		}
		for _, unique := range []string{"name " + string(c.Name), "recipient " + c.Recipient, "key " + string(c.SigningKey)} {
			if seen[unique] {
				return invalid("custodian %s shares a name or a key with another", c.Name)
			}
			seen[unique] = true
		}
	}
	return nil
}

func validRosterNodes(nodes []RosterNode) error {
	seen := make(map[NodeID]bool, len(nodes))
	for _, n := range nodes {
		if err := ValidNodeID(string(n.ID)); err != nil {
			return err
		}
		if err := validSize("a node's exchange key", n.ExchangeKey, exchangeKeySize, exchangeKeySize); err != nil {
			return err
		}
		if seen[n.ID] {
			return invalid("node %s stands twice in the roster", n.ID)
		}
		seen[n.ID] = true
	}
	return nil
}

// membersOnly checks that the roster pins the exchange keys that the members have now.
func (x *execution) membersOnly(r Roster) error {
	for _, n := range r.Nodes {
		if member, ok := x.Node(n.ID); !ok || !bytes.Equal(member.ExchangeKey, n.ExchangeKey) {
			return refuse(CodeConflict, "the roster's node %s is no member with that exchange key: read the nodes again", n.ID)
		}
	}
	return nil
}

// startRoster proposes other nodes for the same custodians. Whoever starts it signs it, so that a stranger cannot occupy the
// ceremony; that signature counts.
func (x *execution) startRoster(c StartRoster) error {
	if err := x.checkRosterStart(c); err != nil {
		return err
	}
	started, err := x.newCeremony(c.ID, PurposeRoster, c.Nonce, c.TTL)
	if err != nil {
		return err
	}
	started.Phase, started.Roster = PhaseSign, c.Roster
	started = x.begin(started, fmt.Sprintf("version=%d nodes=%d", c.Roster.Version, len(c.Roster.Nodes)))
	x.addRosterSignature(started, c.Custodian, c.Signature)
	return nil
}

func (x *execution) checkRosterStart(c StartRoster) error {
	if len(c.Roster.Signatures) > 0 {
		return invalid("a proposed roster carries no signatures yet")
	}
	current, ok := x.Roster()
	if !ok {
		return refuse(CodeCeremony, "no roster is in force: hold the genesis ceremony first (conclave ceremony genesis)")
	}
	if err := validRoster(c.Roster); err != nil {
		return err
	}
	if err := follows(c.Roster, current); err != nil {
		return refuse(CodeConflict, "roster version %d: %v: read the roster again", c.Roster.Version, err)
	}
	same := slices.EqualFunc(c.Roster.Custodians, current.Custodians, sameCustodian)
	if !same || c.Roster.Threshold != current.Threshold {
		return invalid("a roster ceremony changes the nodes only: other custodians or another threshold need new shares")
	}
	if len(x.rosters) >= MaxRosters {
		return refuse(CodeLimit, "the chain has %d rosters, which is its limit", MaxRosters)
	}
	if err := x.membersOnly(c.Roster); err != nil {
		return err
	}
	return x.checkRosterSignature(c.Roster, c.Custodian, c.Signature)
}

func sameCustodian(a, b Custodian) bool {
	return a.Name == b.Name && a.Recipient == b.Recipient && bytes.Equal(a.SigningKey, b.SigningKey)
}

// checkRosterSignature: the custodians of the roster in force decide about the next.
func (x *execution) checkRosterSignature(r Roster, who CustodianName, signature []byte) error {
	current, _ := x.Roster()
	return checkSignature(current, who, RosterMessage(RosterHash(r)), signature)
}

func checkSignature(r Roster, who CustodianName, message, signature []byte) error {
	i := indexOfCustodian(r.Custodians, who)
	if i < 0 || !verified(r.Custodians[i], message, signature) {
		return refuse(CodeDenied, "the signature does not verify as custodian %q's", clip(string(who)))
	}
	return nil
}

func (x *execution) signRoster(c SignRoster) error {
	open, err := x.inPhase(c.Ceremony, PurposeRoster, PhaseSign)
	if err != nil {
		return err
	}
	if err := x.checkRosterSignature(open.Roster, c.Custodian, c.Signature); err != nil {
		return err
	}
	if hasSigned(open.Roster, c.Custodian) {
		x.result.Ceremony = open.ID
		return nil
	}
	// What was true when it was proposed must be true when it comes into force.
	if err := x.membersOnly(open.Roster); err != nil {
		return err
	}
	x.addRosterSignature(open, c.Custodian, c.Signature)
	return nil
}

func hasSigned(r Roster, who CustodianName) bool {
	return slices.ContainsFunc(r.Signatures, func(s RosterSignature) bool { return s.Custodian == who })
}

func (x *execution) addRosterSignature(c Ceremony, who CustodianName, signature []byte) {
	c.Roster.Signatures = append(slices.Clip(c.Roster.Signatures), RosterSignature{Custodian: who, Signature: signature})
	c = x.note(c, string(who), "sign", "custodian="+string(who), PhaseSign)
	if len(c.Roster.Signatures) < int(c.Roster.Threshold) {
		return
	}
	x.note(c, "", "done", "", PhaseDone)
	x.activateRoster(c.Roster)
}

func (x *execution) activateRoster(r Roster) {
	x.rosters = append(slices.Clip(x.rosters), r)
	hash := RosterHash(r)
	x.emit(Event{
		Action: "roster.activate", Subject: clusterSubject,
		Detail: fmt.Sprintf("version=%d threshold=%d custodians=%d nodes=%d hash=%x", r.Version, r.Threshold, len(r.Custodians), len(r.Nodes), hash),
	})
}

// lifetime fills in and bounds a ceremony's time to live.
func lifetime(ttl time.Duration) (time.Duration, error) {
	switch {
	case ttl == 0:
		return DefaultCeremonyTTL, nil
	case ttl < 0 || ttl > MaxCeremonyLife:
		return 0, invalid("a ceremony lives at most %s, not %s", MaxCeremonyLife, ttl)
	default:
		return ttl, nil
	}
}
