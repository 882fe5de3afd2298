package transport

import (
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

func custodianToPB(c fsm.Custodian) *vaultpb.Custodian {
	return &vaultpb.Custodian{Name: string(c.Name), Recipient: c.Recipient, SigningKey: c.SigningKey}
}

func custodianFromPB(c *vaultpb.Custodian) fsm.Custodian {
	return fsm.Custodian{Name: fsm.CustodianName(c.GetName()), Recipient: c.GetRecipient(), SigningKey: c.GetSigningKey()}
}

func rosterToPB(r fsm.Roster) *vaultpb.Roster {
	return &vaultpb.Roster{
		Version: r.Version, ClusterId: r.ClusterID, Threshold: r.Threshold, Custodians: each(r.Custodians, custodianToPB), Previous: r.Previous[:],
		Nodes: each(r.Nodes, func(n fsm.RosterNode) *vaultpb.RosterNode {
			return &vaultpb.RosterNode{Id: string(n.ID), ExchangeKey: n.ExchangeKey}
		}),
		Signatures: each(r.Signatures, func(s fsm.RosterSignature) *vaultpb.RosterSignature {
			return &vaultpb.RosterSignature{Custodian: string(s.Custodian), Signature: s.Signature}
		}),
	}
}

func rosterFromPB(r *vaultpb.Roster) (fsm.Roster, error) {
	out := fsm.Roster{
		Version: r.GetVersion(), ClusterID: r.GetClusterId(), Threshold: r.GetThreshold(), Custodians: each(r.GetCustodians(), custodianFromPB),
		Nodes: each(r.GetNodes(), func(n *vaultpb.RosterNode) fsm.RosterNode {
			return fsm.RosterNode{ID: fsm.NodeID(n.GetId()), ExchangeKey: n.GetExchangeKey()}
		}),
	}
	if n := len(r.GetPrevious()); n != 0 && n != len(out.Previous) {
		return out, fmt.Errorf("%w: a roster's previous hash of %d bytes, 32 are needed", vault.ErrInvalid, n)
	}
	copy(out.Previous[:], r.GetPrevious())
	return out, nil
}

func ceremonyToPB(c fsm.Ceremony) *vaultpb.Ceremony {
	return &vaultpb.Ceremony{
		Id: string(c.ID), Purpose: string(c.Purpose), Phase: string(c.Phase), StartedBy: string(c.StartedBy), StartedAt: stamp(c.StartedAt),
		ExpiresAt: stamp(c.ExpiresAt), EndedAt: stamp(c.EndedAt), Reason: c.Reason, Nonce: c.Nonce, Roster: rosterToPB(c.Roster),
		Dealer: string(c.Dealer), DealerCommitment: c.DealerCommitment, Steps: each(c.Steps, stepToPB),
		Commitments: each(c.Commitments, commitmentToPB), Deal: dealToPB(c.Deal), Verdicts: each(c.Verdicts, verdictToPB),
		Unsealed: each(c.Unsealed, func(n fsm.NodeID) string { return string(n) }),
	}
}

func stepToPB(s fsm.CeremonyStep) *vaultpb.CeremonyStep {
	return &vaultpb.CeremonyStep{At: stamp(s.At), Index: s.Index, Who: s.Who, Action: s.Action, Detail: s.Detail}
}

func commitmentToPB(c fsm.EntropyCommitment) *vaultpb.EntropyCommitment {
	return &vaultpb.EntropyCommitment{Custodian: string(c.Custodian), Commitment: c.Commitment, Revealed: c.Revealed, Acknowledged: c.Acknowledged}
}

func dealToPB(d *fsm.Deal) *vaultpb.Deal {
	if d == nil {
		return nil
	}
	return &vaultpb.Deal{
		Generation: d.Generation, Commitments: d.Commitments, Check: d.Check, Transcript: d.Transcript[:],
		Shares: each(d.Shares, func(s fsm.SealedShare) *vaultpb.SealedShare {
			return &vaultpb.SealedShare{Custodian: string(s.Custodian), Ciphertext: s.Ciphertext}
		}),
	}
}

func verdictToPB(v fsm.ShareVerdict) *vaultpb.ShareVerdict {
	return &vaultpb.ShareVerdict{Custodian: string(v.Custodian), Node: string(v.Node), Accepted: v.Accepted, Reason: v.Reason, At: stamp(v.At)}
}

func nodeVerdictToPB(v vault.ShareVerdict) *vaultpb.NodeVerdict {
	return &vaultpb.NodeVerdict{
		Node: string(v.Node), Accepted: v.Accepted, Unsealed: v.Unsealed, Have: uint32(v.Have), Need: uint32(v.Need), Reason: v.Reason,
	}
}

func nodeShareFromPB(s *vaultpb.SealedNodeShare) ceremony.NodeShare {
	return ceremony.NodeShare{Node: fsm.NodeID(s.GetNode()), Sealed: s.GetSealed()}
}

func mastersToPB(r vault.Rosters) *vaultpb.GetRostersReply {
	out := &vaultpb.GetRostersReply{ClusterId: r.ClusterID, Rosters: each(r.Chain, rosterToPB), Index: r.Index}
	if r.Mastered {
		out.Master = &vaultpb.Master{Generation: r.Master.Generation, Threshold: r.Master.Threshold, Commitments: r.Master.Commitments}
	}
	return out
}
