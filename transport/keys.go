package transport

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/policy"
)

// as runs a call with the caller's identity; every method goes through it.
func as[R any](ctx context.Context, do func(policy.Caller) (R, error)) (R, error) {
	c, err := caller(ctx)
	if err != nil {
		var none R
		return none, err
	}
	return do(c)
}

func (s *Server) keyReply(k fsm.Key, index uint64, err error) (*vaultpb.KeyReply, error) {
	if err != nil {
		return nil, err
	}
	return &vaultpb.KeyReply{Key: s.keyWithUses(k), Index: index}, nil
}

// CreateKey implements vaultpb.KeysServer.
func (s *Server) CreateKey(ctx context.Context, r *vaultpb.CreateKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.CreateKey(ctx, c, fsm.RequestID(r.GetRequestId()), newKeyFromPB(r)))
	})
}

// GetKey implements vaultpb.KeysServer.
func (s *Server) GetKey(ctx context.Context, r *vaultpb.GetKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.Key(ctx, c, fsm.KeyName(r.GetName())))
	})
}

// ListKeys implements vaultpb.KeysServer.
func (s *Server) ListKeys(ctx context.Context, r *vaultpb.ListKeysRequest) (*vaultpb.ListKeysReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ListKeysReply, error) {
		p, err := s.cfg.Vault.Keys(ctx, c, filterFromPB(r), fsm.KeyName(r.GetPageToken()), int(r.GetPageSize()))
		return &vaultpb.ListKeysReply{Items: each(p.Keys, s.keyWithUses), NextPageToken: string(p.Next), Index: p.Index}, err
	})
}

// KeyHistory implements vaultpb.KeysServer.
func (s *Server) KeyHistory(ctx context.Context, r *vaultpb.KeyHistoryRequest) (*vaultpb.EventList, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.EventList, error) {
		p, err := s.cfg.Vault.History(ctx, c, fsm.KeyName(r.GetName()), r.GetPageToken(), int(r.GetPageSize()))
		return eventsToPB(p), err
	})
}

// RotateKey implements vaultpb.KeysServer.
func (s *Server) RotateKey(ctx context.Context, r *vaultpb.RotateKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.RotateKey(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.KeyName(r.GetName()), moment(r.GetActivateAt())))
	})
}

// UpdateKey implements vaultpb.KeysServer.
func (s *Server) UpdateKey(ctx context.Context, r *vaultpb.UpdateKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.UpdateKey(ctx, c, fsm.RequestID(r.GetRequestId()), updateFromPB(r)))
	})
}

// SetKeyClass implements vaultpb.KeysServer.
func (s *Server) SetKeyClass(ctx context.Context, r *vaultpb.SetKeyClassRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.SetKeyClass(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.KeyName(r.GetName()), r.GetClass(), r.GetReason()))
	})
}

// ChangeKey implements vaultpb.KeysServer.
func (s *Server) ChangeKey(ctx context.Context, r *vaultpb.ChangeKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.ChangeKey(ctx, c, fsm.RequestID(r.GetRequestId()), changeFromPB(r)))
	})
}

// GetPublicKey implements vaultpb.KeysServer.
func (s *Server) GetPublicKey(ctx context.Context, r *vaultpb.GetPublicKeyRequest) (*vaultpb.PublicKeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.PublicKeyReply, error) {
		k, v, index, err := s.cfg.Vault.PublicKey(ctx, c, fsm.KeyName(r.GetName()), fsm.Version(r.GetVersion()))
		return &vaultpb.PublicKeyReply{
			Key: string(k.Name), Version: uint32(v.Version), Algorithm: k.Algorithm, Pem: hsm.PublicKeyPEM(v.PublicKey), State: v.State.String(), Index: index,
		}, err
	})
}
