package transport

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Agree implements vaultpb.CryptoServer.
func (s *Server) Agree(ctx context.Context, r *vaultpb.AgreeRequest) (*vaultpb.AgreeReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.AgreeReply, error) {
		o, err := s.cfg.Vault.Agree(ctx, c, fsm.KeyName(r.GetName()), fsm.Version(r.GetVersion()), r.GetPeer())
		return &vaultpb.AgreeReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), Secret: o.Bytes, Node: s.cfg.Node, Index: o.Index,
		}, err
	})
}

// Encapsulate implements vaultpb.CryptoServer.
func (s *Server) Encapsulate(ctx context.Context, r *vaultpb.EncapsulateRequest) (*vaultpb.EncapsulateReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.EncapsulateReply, error) {
		e, err := s.cfg.Vault.Encapsulate(ctx, c, fsm.KeyName(r.GetName()))
		return &vaultpb.EncapsulateReply{
			Key: string(e.Key), Version: uint32(e.Version), Algorithm: string(e.Algo), SharedKey: e.SharedKey, Ciphertext: e.Bytes,
			Node: s.cfg.Node, Index: e.Index,
		}, err
	})
}

// Decapsulate implements vaultpb.CryptoServer.
func (s *Server) Decapsulate(ctx context.Context, r *vaultpb.DecapsulateRequest) (*vaultpb.DecapsulateReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.DecapsulateReply, error) {
		o, err := s.cfg.Vault.Decapsulate(ctx, c, fsm.KeyName(r.GetName()), fsm.Version(r.GetVersion()), r.GetCiphertext(), r.GetReason())
		return &vaultpb.DecapsulateReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), SharedKey: o.Bytes, Node: s.cfg.Node, Index: o.Index,
		}, err
	})
}
