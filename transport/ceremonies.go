package transport

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/policy"
)

func ceremonyReply(c fsm.Ceremony, index uint64, err error) (*vaultpb.CeremonyReply, error) {
	if err != nil {
		return nil, err
	}
	return &vaultpb.CeremonyReply{Ceremony: ceremonyToPB(c), Index: index}, nil
}

// StartGenesis implements vaultpb.CeremoniesServer.
func (s *Server) StartGenesis(ctx context.Context, r *vaultpb.StartGenesisRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.StartGenesis(ctx, c, fsm.RequestID(r.GetRequestId()), r.GetThreshold(),
			each(r.GetCustodians(), custodianFromPB), duration(r.GetTtl())))
	})
}

// CommitEntropy implements vaultpb.CeremoniesServer.
func (s *Server) CommitEntropy(ctx context.Context, r *vaultpb.CommitEntropyRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.CommitEntropy(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.CommitEntropy{
			Ceremony: fsm.CeremonyID(r.GetCeremony()), Custodian: fsm.CustodianName(r.GetCustodian()), Commitment: r.GetCommitment(),
			Signature: r.GetSignature(), RosterSignature: r.GetRosterSignature(),
		}))
	})
}

// RevealEntropy implements vaultpb.CeremoniesServer.
func (s *Server) RevealEntropy(ctx context.Context, r *vaultpb.RevealEntropyRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.RevealEntropy(ctx, c, fsm.CeremonyID(r.GetCeremony()), fsm.CustodianName(r.GetCustodian()), r.GetSealed(), r.GetSignature()))
	})
}

// AcknowledgeShare implements vaultpb.CeremoniesServer.
func (s *Server) AcknowledgeShare(ctx context.Context, r *vaultpb.AcknowledgeShareRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.AcknowledgeShare(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.AcknowledgeShare{
			Ceremony: fsm.CeremonyID(r.GetCeremony()), Custodian: fsm.CustodianName(r.GetCustodian()), Signature: r.GetSignature(),
		}))
	})
}

// StartUnseal implements vaultpb.CeremoniesServer.
func (s *Server) StartUnseal(ctx context.Context, r *vaultpb.StartUnsealRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.StartUnseal(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.CustodianName(r.GetCustodian()), r.GetNonce(), r.GetSignature()))
	})
}

// SubmitShare implements vaultpb.CeremoniesServer.
func (s *Server) SubmitShare(ctx context.Context, r *vaultpb.SubmitShareRequest) (*vaultpb.SubmitShareReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.SubmitShareReply, error) {
		id := fsm.CeremonyID(r.GetCeremony())
		verdicts, err := s.cfg.Vault.SubmitShare(ctx, c, id, fsm.CustodianName(r.GetCustodian()), each(r.GetShares(), nodeShareFromPB), r.GetSignature())
		if err != nil {
			return nil, err
		}
		now, index, err := s.cfg.Vault.Ceremony(ctx, c, id, "")
		return &vaultpb.SubmitShareReply{Verdicts: each(verdicts, nodeVerdictToPB), Ceremony: ceremonyToPB(now), Index: index}, err
	})
}

// AbortCeremony implements vaultpb.CeremoniesServer.
func (s *Server) AbortCeremony(ctx context.Context, r *vaultpb.AbortCeremonyRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.AbortCeremony(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.CeremonyID(r.GetCeremony()), r.GetReason()))
	})
}

// StartRoster implements vaultpb.CeremoniesServer.
func (s *Server) StartRoster(ctx context.Context, r *vaultpb.StartRosterRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		roster, err := rosterFromPB(r.GetRoster())
		if err != nil {
			return nil, err
		}
		return ceremonyReply(s.cfg.Vault.StartRoster(ctx, c, fsm.RequestID(r.GetRequestId()), roster, fsm.CustodianName(r.GetCustodian()), r.GetSignature()))
	})
}

// SignRoster implements vaultpb.CeremoniesServer.
func (s *Server) SignRoster(ctx context.Context, r *vaultpb.SignRosterRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.SignRoster(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.CeremonyID(r.GetCeremony()), fsm.CustodianName(r.GetCustodian()), r.GetSignature()))
	})
}

// GetCeremony implements vaultpb.CeremoniesServer.
func (s *Server) GetCeremony(ctx context.Context, r *vaultpb.GetCeremonyRequest) (*vaultpb.CeremonyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CeremonyReply, error) {
		return ceremonyReply(s.cfg.Vault.Ceremony(ctx, c, fsm.CeremonyID(r.GetId()), fsm.Purpose(r.GetPurpose())))
	})
}

// GetRosters implements vaultpb.CeremoniesServer.
func (s *Server) GetRosters(ctx context.Context, _ *vaultpb.GetRostersRequest) (*vaultpb.GetRostersReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.GetRostersReply, error) {
		r, err := s.cfg.Vault.Rosters(ctx, c)
		return mastersToPB(r), err
	})
}
