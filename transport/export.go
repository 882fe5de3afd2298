package transport

import (
	"context"
	"encoding/hex"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// ExportKey implements vaultpb.KeysServer.
func (s *Server) ExportKey(ctx context.Context, r *vaultpb.ExportKeyRequest) (*vaultpb.ExportKeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ExportKeyReply, error) {
		to, err := recipientFromPB(r)
		if err != nil {
			return nil, err
		}
		out, err := s.cfg.Vault.ExportKey(ctx, c, fsm.RequestID(r.GetRequestId()), vault.Export{
			Name: fsm.KeyName(r.GetName()), Version: fsm.Version(r.GetVersion()), Recipient: to,
		})
		if err != nil {
			return nil, err
		}
		fingerprint := to.Fingerprint()
		return &vaultpb.ExportKeyReply{
			Key: r.GetName(), Version: uint32(out.Version), Algorithm: string(out.Algorithm), Form: string(to.Form()),
			RecipientSha256: hex.EncodeToString(fingerprint[:]), Wrapped: out.Wrapped, Node: string(out.Node), Index: out.Index,
		}, nil
	})
}

func recipientFromPB(r *vaultpb.ExportKeyRequest) (hsm.Recipient, error) {
	var form hsm.Form
	if r.GetForm() != "" {
		var err error
		if form, err = hsm.ParseForm(r.GetForm()); err != nil {
			return hsm.Recipient{}, err
		}
	}
	return hsm.ParseRecipient(r.GetRecipient(), form)
}

// addExport says what the key's next versions will be.
func addExport(pb *vaultpb.Key, k fsm.Key, exports bool) *vaultpb.Key {
	switch {
	case k.NeverExportable:
		pb.Exportable = "never"
	case exports:
		pb.Exportable = "yes"
	default:
		pb.Exportable = "no"
	}
	return pb
}
