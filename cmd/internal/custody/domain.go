package custody

import (
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// The conversions here are the custodian's own: those of package transport would link the server into the command line.

func custodianOf(c *vaultpb.Custodian) fsm.Custodian {
	return fsm.Custodian{Name: fsm.CustodianName(c.GetName()), Recipient: c.GetRecipient(), SigningKey: c.GetSigningKey()}
}

func custodianMessage(c fsm.Custodian) *vaultpb.Custodian {
	return &vaultpb.Custodian{Name: string(c.Name), Recipient: c.Recipient, SigningKey: c.SigningKey}
}

// hashOf accepts 32 bytes; anything else becomes a hash that is no roster's, and fails where it is compared.
func hashOf(b []byte) (hash [32]byte) {
	if len(b) == len(hash) {
		return [32]byte(b)
	}
	return hash
}

func rosterOf(r *vaultpb.Roster) fsm.Roster {
	out := fsm.Roster{Version: r.GetVersion(), ClusterID: r.GetClusterId(), Threshold: r.GetThreshold(), Previous: hashOf(r.GetPrevious())}
	for _, c := range r.GetCustodians() {
		out.Custodians = append(out.Custodians, custodianOf(c))
	}
	for _, n := range r.GetNodes() {
		out.Nodes = append(out.Nodes, fsm.RosterNode{ID: fsm.NodeID(n.GetId()), ExchangeKey: n.GetExchangeKey()})
	}
	for _, s := range r.GetSignatures() {
		out.Signatures = append(out.Signatures, fsm.RosterSignature{Custodian: fsm.CustodianName(s.GetCustodian()), Signature: s.GetSignature()})
	}
	return out
}

func rosterMessage(r fsm.Roster) *vaultpb.Roster {
	out := &vaultpb.Roster{Version: r.Version, ClusterId: r.ClusterID, Threshold: r.Threshold, Previous: r.Previous[:]}
	for _, c := range r.Custodians {
		out.Custodians = append(out.Custodians, custodianMessage(c))
	}
	for _, n := range r.Nodes {
		out.Nodes = append(out.Nodes, &vaultpb.RosterNode{Id: string(n.ID), ExchangeKey: n.ExchangeKey})
	}
	for _, s := range r.Signatures {
		out.Signatures = append(out.Signatures, &vaultpb.RosterSignature{Custodian: string(s.Custodian), Signature: s.Signature})
	}
	return out
}

// ceremonyOf converts what a custodian checks; times and minutes stay behind.
func ceremonyOf(c *vaultpb.Ceremony) fsm.Ceremony {
	out := fsm.Ceremony{
		ID: fsm.CeremonyID(c.GetId()), Purpose: fsm.Purpose(c.GetPurpose()), Phase: fsm.Phase(c.GetPhase()), Reason: c.GetReason(),
		Nonce: c.GetNonce(), Roster: rosterOf(c.GetRoster()), Dealer: fsm.NodeID(c.GetDealer()), DealerCommitment: c.GetDealerCommitment(),
		ExpiresAt: c.GetExpiresAt().AsTime(),
	}
	for _, e := range c.GetCommitments() {
		out.Commitments = append(out.Commitments, fsm.EntropyCommitment{
			Custodian: fsm.CustodianName(e.GetCustodian()), Commitment: e.GetCommitment(), Revealed: e.GetRevealed(), Acknowledged: e.GetAcknowledged(),
		})
	}
	for _, v := range c.GetVerdicts() {
		out.Verdicts = append(out.Verdicts, fsm.ShareVerdict{
			Custodian: fsm.CustodianName(v.GetCustodian()), Node: fsm.NodeID(v.GetNode()), Accepted: v.GetAccepted(), Reason: v.GetReason(),
		})
	}
	if c.GetDeal() != nil {
		deal := dealOf(c.GetDeal())
		out.Deal = &deal
	}
	return out
}

func dealOf(d *vaultpb.Deal) fsm.Deal {
	out := fsm.Deal{Generation: d.GetGeneration(), Commitments: d.GetCommitments(), Check: d.GetCheck(), Transcript: hashOf(d.GetTranscript())}
	for _, s := range d.GetShares() {
		out.Shares = append(out.Shares, fsm.SealedShare{Custodian: fsm.CustodianName(s.GetCustodian()), Ciphertext: s.GetCiphertext()})
	}
	return out
}
