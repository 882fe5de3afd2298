package fsm

import "github.com/conclave-vault/conclave/fsm/fsmpb"

func rosterToWire(r Roster) *fsmpb.Roster {
	w := &fsmpb.Roster{
		Version: r.Version, ClusterId: r.ClusterID, Threshold: r.Threshold,
		Custodians: mapped(r.Custodians, custodianToWire), Nodes: mapped(r.Nodes, rosterNodeToWire),
		Signatures: mapped(r.Signatures, rosterSignatureToWire),
	}
	if r.Previous != [32]byte{} {
		w.Previous = r.Previous[:]
	}
	return w
}

func rosterFromWire(w *fsmpb.Roster) Roster {
	return Roster{
		Version: w.GetVersion(), ClusterID: w.GetClusterId(), Threshold: w.GetThreshold(),
		Custodians: mapped(w.GetCustodians(), custodianFromWire), Nodes: mapped(w.GetNodes(), rosterNodeFromWire),
		Previous: hash32(w.GetPrevious()), Signatures: mapped(w.GetSignatures(), rosterSignatureFromWire),
	}
}

func custodianToWire(c Custodian) *fsmpb.Custodian {
	return &fsmpb.Custodian{Name: string(c.Name), Recipient: c.Recipient, SigningKey: c.SigningKey}
}

func custodianFromWire(w *fsmpb.Custodian) Custodian {
	return Custodian{Name: CustodianName(w.GetName()), Recipient: w.GetRecipient(), SigningKey: w.GetSigningKey()}
}

func rosterNodeToWire(n RosterNode) *fsmpb.RosterNode {
	return &fsmpb.RosterNode{Id: string(n.ID), ExchangeKey: n.ExchangeKey}
}

func rosterNodeFromWire(w *fsmpb.RosterNode) RosterNode {
	return RosterNode{ID: NodeID(w.GetId()), ExchangeKey: w.GetExchangeKey()}
}

func rosterSignatureToWire(s RosterSignature) *fsmpb.RosterSignature {
	return &fsmpb.RosterSignature{Custodian: string(s.Custodian), Signature: s.Signature}
}

func rosterSignatureFromWire(w *fsmpb.RosterSignature) RosterSignature {
	return RosterSignature{Custodian: CustodianName(w.GetCustodian()), Signature: w.GetSignature()}
}

func ceremonyToWire(c Ceremony) *fsmpb.Ceremony {
	w := &fsmpb.Ceremony{
		Id: string(c.ID), Purpose: string(c.Purpose), Phase: string(c.Phase), StartedBy: string(c.StartedBy),
		StartedAtMs: toMillis(c.StartedAt), StartedIndex: c.StartedIndex, ExpiresAtMs: toMillis(c.ExpiresAt),
		EndedAtMs: toMillis(c.EndedAt), Reason: c.Reason, Nonce: c.Nonce, Roster: rosterToWire(c.Roster),
		Dealer: string(c.Dealer), DealerBoot: c.DealerBoot, DealerCommitment: c.DealerCommitment,
		Steps: mapped(c.Steps, stepToWire), Commitments: mapped(c.Commitments, commitmentToWire),
		Verdicts: mapped(c.Verdicts, verdictToWire), Unsealed: texts[string](c.Unsealed),
	}
	if c.Deal != nil {
		w.Deal = dealToWire(*c.Deal)
	}
	return w
}

func ceremonyFromWire(w *fsmpb.Ceremony) Ceremony {
	c := Ceremony{
		ID: CeremonyID(w.GetId()), Purpose: Purpose(w.GetPurpose()), Phase: Phase(w.GetPhase()), StartedBy: Actor(w.GetStartedBy()),
		StartedAt: fromMillis(w.GetStartedAtMs()), StartedIndex: w.GetStartedIndex(), ExpiresAt: fromMillis(w.GetExpiresAtMs()),
		EndedAt: fromMillis(w.GetEndedAtMs()), Reason: w.GetReason(), Nonce: w.GetNonce(), Roster: rosterFromWire(w.GetRoster()),
		Dealer: NodeID(w.GetDealer()), DealerBoot: w.GetDealerBoot(), DealerCommitment: w.GetDealerCommitment(),
		Steps: mapped(w.GetSteps(), stepFromWire), Commitments: mapped(w.GetCommitments(), commitmentFromWire),
		Verdicts: mapped(w.GetVerdicts(), verdictFromWire), Unsealed: texts[NodeID](w.GetUnsealed()),
	}
	if w.GetDeal() != nil {
		d := dealFromWire(w.GetDeal())
		c.Deal = &d
	}
	return c
}

func stepToWire(s CeremonyStep) *fsmpb.CeremonyStep {
	return &fsmpb.CeremonyStep{AtMs: toMillis(s.At), Index: s.Index, Who: s.Who, Action: s.Action, Detail: s.Detail}
}

func stepFromWire(w *fsmpb.CeremonyStep) CeremonyStep {
	return CeremonyStep{At: fromMillis(w.GetAtMs()), Index: w.GetIndex(), Who: w.GetWho(), Action: w.GetAction(), Detail: w.GetDetail()}
}

func commitmentToWire(c EntropyCommitment) *fsmpb.EntropyCommitment {
	return &fsmpb.EntropyCommitment{
		Custodian: string(c.Custodian), Commitment: c.Commitment, Signature: c.Signature, Revealed: c.Revealed, Acknowledged: c.Acknowledged,
	}
}

func commitmentFromWire(w *fsmpb.EntropyCommitment) EntropyCommitment {
	return EntropyCommitment{
		Custodian: CustodianName(w.GetCustodian()), Commitment: w.GetCommitment(), Signature: w.GetSignature(),
		Revealed: w.GetRevealed(), Acknowledged: w.GetAcknowledged(),
	}
}

func dealToWire(d Deal) *fsmpb.Deal {
	return &fsmpb.Deal{
		Generation: d.Generation, Commitments: d.Commitments, Shares: mapped(d.Shares, shareToWire), Check: d.Check,
		Transcript: d.Transcript[:],
	}
}

func dealFromWire(w *fsmpb.Deal) Deal {
	return Deal{
		Generation: w.GetGeneration(), Commitments: w.GetCommitments(), Shares: mapped(w.GetShares(), shareFromWire), Check: w.GetCheck(),
		Transcript: hash32(w.GetTranscript()),
	}
}

func shareToWire(s SealedShare) *fsmpb.SealedShare {
	return &fsmpb.SealedShare{Custodian: string(s.Custodian), Ciphertext: s.Ciphertext}
}

func shareFromWire(w *fsmpb.SealedShare) SealedShare {
	return SealedShare{Custodian: CustodianName(w.GetCustodian()), Ciphertext: w.GetCiphertext()}
}

func verdictToWire(v ShareVerdict) *fsmpb.ShareVerdict {
	return &fsmpb.ShareVerdict{
		Custodian: string(v.Custodian), Node: string(v.Node), Accepted: v.Accepted, Reason: v.Reason, AtMs: toMillis(v.At), Index: v.Index,
	}
}

func verdictFromWire(w *fsmpb.ShareVerdict) ShareVerdict {
	return ShareVerdict{
		Custodian: CustodianName(w.GetCustodian()), Node: NodeID(w.GetNode()), Accepted: w.GetAccepted(), Reason: w.GetReason(),
		At: fromMillis(w.GetAtMs()), Index: w.GetIndex(),
	}
}

func masterToWire(m Master) *fsmpb.Master {
	return &fsmpb.Master{
		Generation: m.Generation, Threshold: m.Threshold, Commitments: m.Commitments, Check: m.Check,
		SinceMs: toMillis(m.Since), Ceremony: string(m.Ceremony),
	}
}

func masterFromWire(w *fsmpb.Master) Master {
	return Master{
		Generation: w.GetGeneration(), Threshold: w.GetThreshold(), Commitments: w.GetCommitments(), Check: w.GetCheck(),
		Since: fromMillis(w.GetSinceMs()), Ceremony: CeremonyID(w.GetCeremony()),
	}
}
