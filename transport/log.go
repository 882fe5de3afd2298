package transport

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// GetCheckpoint implements vaultpb.LogServer.
func (s *Server) GetCheckpoint(ctx context.Context, r *vaultpb.GetCheckpointRequest) (*vaultpb.CheckpointReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CheckpointReply, error) {
		cp, err := s.cfg.Vault.SignCheckpoint(ctx, c, r.GetFrom())
		return checkpointToPB(cp), err
	})
}

// ProveKey implements vaultpb.LogServer.
func (s *Server) ProveKey(ctx context.Context, r *vaultpb.ProveKeyRequest) (*vaultpb.ProveKeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ProveKeyReply, error) {
		p, err := s.cfg.Vault.Prove(ctx, c, fsm.KeyName(r.GetName()), r.GetSize(), r.GetPageToken(), int(r.GetPageSize()))
		reply := &vaultpb.ProveKeyReply{Items: each(p.Events, provenToPB), NextPageToken: p.Next, Index: s.cfg.Vault.Applied()}
		if p.Checkpoint.Note != "" {
			reply.Checkpoint = checkpointToPB(p.Checkpoint)
		}
		return reply, err
	})
}

// RaiseFeatureLevel implements vaultpb.ClusterServer.
func (s *Server) RaiseFeatureLevel(ctx context.Context, r *vaultpb.RaiseFeatureLevelRequest) (*vaultpb.RaiseFeatureLevelReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.RaiseFeatureLevelReply, error) {
		level, index, err := s.cfg.Vault.RaiseFeatureLevel(ctx, c, fsm.RequestID(r.GetRequestId()), r.GetLevel())
		return &vaultpb.RaiseFeatureLevelReply{FeatureLevel: level, Index: index}, err
	})
}

func checkpointToPB(c vault.Checkpoint) *vaultpb.CheckpointReply {
	return &vaultpb.CheckpointReply{
		Note: c.Note, Size: c.Size, Root: c.Root, Node: string(c.Node), Certificates: c.Certificates,
		Consistency: each(c.Consistency, hashToPB), Index: c.Index,
	}
}

func provenToPB(e vault.ProvenEvent) *vaultpb.ProvenRecord {
	return &vaultpb.ProvenRecord{Leaf: e.Leaf, Data: e.Data, Path: each(e.Path, hashToPB)}
}

func hashToPB(h tlog.Hash) []byte { return h[:] }
