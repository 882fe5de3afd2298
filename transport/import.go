package transport

import (
	"cmp"
	"context"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// CreateImportKey implements vaultpb.KeysServer.
func (s *Server) CreateImportKey(ctx context.Context, r *vaultpb.CreateImportKeyRequest) (*vaultpb.ImportKeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ImportKeyReply, error) {
		form, err := hsm.ParseForm(cmp.Or(r.GetForm(), string(hsm.FormRSA)))
		if err != nil {
			return nil, err
		}
		k, err := s.cfg.Vault.CreateImportKey(ctx, c, fsm.KeyName(r.GetName()), hsm.Algorithm(r.GetAlgorithm()), form)
		if err != nil {
			return nil, err
		}
		return &vaultpb.ImportKeyReply{
			Id: k.ID, Node: string(k.Node), Name: string(k.Name), Algorithm: string(k.Algorithm), Form: string(k.Form),
			PublicKey: hsm.PublicKeyPEM(k.PublicKey), ExpiresAt: stamp(k.ExpiresAt), Index: k.Index,
		}, nil
	})
}

// ImportKey implements vaultpb.KeysServer.
func (s *Server) ImportKey(ctx context.Context, r *vaultpb.ImportKeyRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.ImportKey(ctx, c, fsm.RequestID(r.GetRequestId()), newKeyFromPB(r.GetKey()), r.GetImportKey(), r.GetWrapped()))
	})
}

func newKeyFromPB(r *vaultpb.CreateKeyRequest) vault.NewKey {
	return vault.NewKey{
		Name: fsm.KeyName(r.GetName()), Algorithm: hsm.Algorithm(r.GetAlgorithm()), Class: r.GetClass(), Labels: each(r.GetLabels(), labelFromPB),
		ActivateAt: moment(r.GetActivateAt()), DeactivateAt: moment(r.GetDeactivateAt()), Description: r.GetDescription(), Purpose: r.GetPurpose(),
		Links: each(r.GetLinks(), linkFromPB), Exportable: r.GetExportable(),
	}
}

func originToPB(v fsm.KeyVersion) string {
	if v.Imported {
		return "imported"
	}
	return "generated"
}
