package transport

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

func signInput(data []byte, prehashed bool, scheme string) hsm.SignInput {
	in := hsm.SignInput{Scheme: hsm.Scheme(scheme), Prehashed: prehashed}
	if prehashed {
		in.Digest = data
	} else {
		in.Message = data
	}
	return in
}

// Sign implements vaultpb.CryptoServer.
func (s *Server) Sign(ctx context.Context, r *vaultpb.SignRequest) (*vaultpb.SignReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.SignReply, error) {
		o, err := s.cfg.Vault.Sign(ctx, c, fsm.KeyName(r.GetName()), signInput(r.GetData(), r.GetPrehashed(), r.GetScheme()))
		return &vaultpb.SignReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), Scheme: string(o.Scheme), Signature: o.Bytes,
			Node: s.cfg.Node, Index: o.Index,
		}, err
	})
}

func (s *Server) verifyReply(o vault.Output, valid bool, err error) (*vaultpb.VerifyReply, error) {
	return &vaultpb.VerifyReply{
		Valid: valid, Key: string(o.Key), Version: uint32(o.Version), Warning: o.Warning, Node: s.cfg.Node, Index: o.Index,
	}, err
}

// Verify implements vaultpb.CryptoServer.
func (s *Server) Verify(ctx context.Context, r *vaultpb.VerifyRequest) (*vaultpb.VerifyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.VerifyReply, error) {
		in := signInput(r.GetData(), r.GetPrehashed(), r.GetScheme())
		return s.verifyReply(s.cfg.Vault.Verify(ctx, c, fsm.KeyName(r.GetName()), fsm.Version(r.GetVersion()), in, r.GetSignature()))
	})
}

// Mac implements vaultpb.CryptoServer.
func (s *Server) Mac(ctx context.Context, r *vaultpb.MacRequest) (*vaultpb.MacReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.MacReply, error) {
		o, err := s.cfg.Vault.MAC(ctx, c, fsm.KeyName(r.GetName()), r.GetData())
		return &vaultpb.MacReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), Mac: o.Bytes, Node: s.cfg.Node, Index: o.Index,
		}, err
	})
}

// VerifyMac implements vaultpb.CryptoServer.
func (s *Server) VerifyMac(ctx context.Context, r *vaultpb.VerifyMacRequest) (*vaultpb.VerifyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.VerifyReply, error) {
		return s.verifyReply(s.cfg.Vault.VerifyMAC(ctx, c, fsm.KeyName(r.GetName()), fsm.Version(r.GetVersion()), r.GetData(), r.GetMac()))
	})
}

// Encrypt implements vaultpb.CryptoServer.
func (s *Server) Encrypt(ctx context.Context, r *vaultpb.EncryptRequest) (*vaultpb.EncryptReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.EncryptReply, error) {
		o, err := s.cfg.Vault.Encrypt(ctx, c, fsm.KeyName(r.GetName()), r.GetPlaintext(), r.GetContext())
		return &vaultpb.EncryptReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), Ciphertext: o.Bytes, Node: s.cfg.Node, Index: o.Index,
		}, err
	})
}

// Decrypt implements vaultpb.CryptoServer.
func (s *Server) Decrypt(ctx context.Context, r *vaultpb.DecryptRequest) (*vaultpb.DecryptReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.DecryptReply, error) {
		o, err := s.cfg.Vault.Decrypt(ctx, c, fsm.KeyName(r.GetName()), vault.Ciphertext{
			Bytes: r.GetCiphertext(), Context: r.GetContext(), Version: fsm.Version(r.GetVersion()), Reason: r.GetReason(),
		})
		return &vaultpb.DecryptReply{Key: string(o.Key), Version: uint32(o.Version), Plaintext: o.Bytes, Node: s.cfg.Node, Index: o.Index}, err
	})
}

// Rewrap implements vaultpb.CryptoServer.
func (s *Server) Rewrap(ctx context.Context, r *vaultpb.RewrapRequest) (*vaultpb.RewrapReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.RewrapReply, error) {
		o, from, err := s.cfg.Vault.Rewrap(ctx, c, fsm.KeyName(r.GetName()), vault.Ciphertext{Bytes: r.GetCiphertext(), Context: r.GetContext()})
		return &vaultpb.RewrapReply{
			Key: string(o.Key), Version: uint32(o.Version), Algorithm: string(o.Algo), Ciphertext: o.Bytes, Node: s.cfg.Node, Index: o.Index,
			FromVersion: uint32(from),
		}, err
	})
}

// GenerateDataKey implements vaultpb.CryptoServer.
func (s *Server) GenerateDataKey(ctx context.Context, r *vaultpb.GenerateDataKeyRequest) (*vaultpb.GenerateDataKeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.GenerateDataKeyReply, error) {
		d, err := s.cfg.Vault.GenerateDataKey(ctx, c, fsm.KeyName(r.GetName()), r.GetContext())
		return &vaultpb.GenerateDataKeyReply{
			Key: string(d.Key), Version: uint32(d.Version), Plaintext: d.Plaintext, Ciphertext: d.Bytes, Node: s.cfg.Node, Index: d.Index,
		}, err
	})
}
