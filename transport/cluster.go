package transport

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Status implements vaultpb.ClusterServer.
func (s *Server) Status(ctx context.Context, _ *vaultpb.StatusRequest) (*vaultpb.StatusReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.StatusReply, error) {
		st, err := s.cfg.Vault.Status(ctx, c)
		return &vaultpb.StatusReply{
			Cluster: st.Cluster.ID, Leader: string(st.Leader), Nodes: each(st.Nodes, nodeStatusToPB), Node: string(st.Node), Dev: st.Cluster.Dev,
			MasterGeneration: st.Generation, RosterVersion: st.Roster, LogSize: st.LogSize, Index: st.Index,
			FeatureLevel: st.Cluster.FeatureLevel,
		}, err
	})
}

// ListNodes implements vaultpb.ClusterServer.
func (s *Server) ListNodes(ctx context.Context, _ *vaultpb.ListNodesRequest) (*vaultpb.ListNodesReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ListNodesReply, error) {
		nodes, index, err := s.cfg.Vault.Nodes(ctx, c)
		return &vaultpb.ListNodesReply{Items: each(nodes, nodeToPB), Index: index}, err
	})
}

// CreateJoinToken implements vaultpb.ClusterServer.
func (s *Server) CreateJoinToken(ctx context.Context, r *vaultpb.CreateJoinTokenRequest) (*vaultpb.CreateJoinTokenReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CreateJoinTokenReply, error) {
		t, expires, index, err := s.cfg.Vault.CreateJoinToken(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.NodeID(r.GetNode()), duration(r.GetTtl()))
		if err != nil {
			return nil, err
		}
		text, err := t.Reveal()
		return &vaultpb.CreateJoinTokenReply{Token: text, Node: string(t.Node), ExpiresAt: stamp(expires), Index: index}, err
	})
}

// IssueCertificate implements vaultpb.ClusterServer.
func (s *Server) IssueCertificate(ctx context.Context, r *vaultpb.IssueCertificateRequest) (*vaultpb.IssueCertificateReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.IssueCertificateReply, error) {
		cert, rec, index, err := s.cfg.Vault.IssueCertificate(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.Role(r.GetRole()), r.GetName(), r.GetCsr(), duration(r.GetTtl()))
		if err != nil {
			return nil, err
		}
		return &vaultpb.IssueCertificateReply{
			Certificate: cert.Raw, Ca: s.cfg.Vault.NodeCA(), Record: certificateToPB(rec), Index: index,
		}, nil
	})
}

// RevokeCertificate implements vaultpb.ClusterServer.
func (s *Server) RevokeCertificate(ctx context.Context, r *vaultpb.RevokeCertificateRequest) (*vaultpb.RevokeCertificateReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.RevokeCertificateReply, error) {
		index, err := s.cfg.Vault.RevokeCertificates(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.RevokeCertificates{
			Role: fsm.Role(r.GetRole()), Name: r.GetName(), Serial: r.GetSerial(), Reason: r.GetReason(),
		})
		return &vaultpb.RevokeCertificateReply{Index: index}, err
	})
}

// ListCertificates implements vaultpb.ClusterServer.
func (s *Server) ListCertificates(ctx context.Context, r *vaultpb.ListCertificatesRequest) (*vaultpb.ListCertificatesReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ListCertificatesReply, error) {
		p, err := s.cfg.Vault.Certificates(ctx, c, r.GetPageToken(), int(r.GetPageSize()))
		return &vaultpb.ListCertificatesReply{Items: each(p.Certificates, certificateToPB), NextPageToken: p.Next, Index: p.Index}, err
	})
}

// Seal implements vaultpb.ClusterServer.
func (s *Server) Seal(ctx context.Context, r *vaultpb.SealRequest) (*vaultpb.SealReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.SealReply, error) {
		index, err := s.cfg.Vault.Seal(ctx, c, fsm.RequestID(r.GetRequestId()), r.GetReason())
		return &vaultpb.SealReply{Index: index}, err
	})
}

// ChangeNode implements vaultpb.ClusterServer.
func (s *Server) ChangeNode(ctx context.Context, r *vaultpb.ChangeNodeRequest) (*vaultpb.ChangeNodeReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ChangeNodeReply, error) {
		index, err := s.cfg.Vault.ChangeNode(ctx, c, fsm.RequestID(r.GetRequestId()), vault.NodeChange{
			Node: fsm.NodeID(r.GetNode()), Action: nodeActions[r.GetAction()], Reason: r.GetReason(),
		})
		return &vaultpb.ChangeNodeReply{Node: r.GetNode(), Index: index}, err
	})
}

// ListEvents implements vaultpb.LogServer.
func (s *Server) ListEvents(ctx context.Context, r *vaultpb.ListEventsRequest) (*vaultpb.EventList, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.EventList, error) {
		p, err := s.cfg.Vault.Events(ctx, c, r.GetSubject(), r.GetPageToken(), int(r.GetPageSize()))
		return eventsToPB(p), err
	})
}

// ReadRecords implements vaultpb.LogServer.
func (s *Server) ReadRecords(ctx context.Context, r *vaultpb.ReadRecordsRequest) (*vaultpb.ReadRecordsReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ReadRecordsReply, error) {
		recs, err := s.cfg.Vault.ReadRecords(ctx, c, fsm.NodeID(r.GetNode()), r.GetFrom(), int(r.GetLimit()))
		out := &vaultpb.ReadRecordsReply{Node: r.GetNode(), Records: each(recs.Records, recordToPB), Index: s.cfg.Vault.Applied()}
		if out.Node == "" {
			out.Node = s.cfg.Node
		}
		if recs.Damage != nil {
			out.DamagedLeaf, out.Damage = recs.Damage.Leaf, recs.Damage.Reason
		}
		return out, err
	})
}

// TreeHeads implements vaultpb.LogServer.
func (s *Server) TreeHeads(ctx context.Context, _ *vaultpb.TreeHeadsRequest) (*vaultpb.TreeHeadsReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.TreeHeadsReply, error) {
		heads, err := s.cfg.Vault.Heads(ctx, c)
		return &vaultpb.TreeHeadsReply{Heads: each(heads, headToPB), Index: s.cfg.Vault.Applied()}, err
	})
}
