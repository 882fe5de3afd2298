package transport

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/policy"
)

// SetBudget implements vaultpb.KeysServer.
func (s *Server) SetBudget(ctx context.Context, r *vaultpb.SetBudgetRequest) (*vaultpb.KeyReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.KeyReply, error) {
		return s.keyReply(s.cfg.Vault.SetBudget(ctx, c, fsm.RequestID(r.GetRequestId()), fsm.KeyName(r.GetName()), limitFromPB(r.GetLimit())))
	})
}

func limitFromPB(l *vaultpb.UseLimit) fsm.UseLimit {
	return fsm.UseLimit{
		Amount: fsm.Amount{Operations: l.GetOperations(), Bytes: l.GetBytes()}, Per: duration(l.GetPer()), Exact: l.GetExact(),
	}
}

func limitToPB(l fsm.UseLimit) *vaultpb.UseLimit {
	return &vaultpb.UseLimit{Operations: l.Operations, Bytes: l.Bytes, Per: span(l.Per), Exact: l.Exact}
}

// span leaves absent durations absent.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// keyWithUses is a key with what this node's state knows of its uses.
func (s *Server) keyWithUses(k fsm.Key) *vaultpb.Key {
	return addExport(addUses(keyToPB(k), s.cfg.Vault.Uses(k)), k, s.cfg.Vault.Exports(k))
}

func addUses(k *vaultpb.Key, u fsm.Uses) *vaultpb.Key {
	k.UsesKnownSince = stamp(u.KnownSince)
	if !u.Limit.None() {
		k.Budget = keyBudgetToPB(u)
	}
	for _, used := range u.Versions {
		for _, v := range k.Versions {
			if v.GetVersion() == uint32(used.Version) {
				v.LastUsedAt, v.Encryptions, v.EncryptionBound = stamp(used.LastUsed), used.Encryptions, used.Bound
			}
		}
	}
	return k
}

func keyBudgetToPB(u fsm.Uses) *vaultpb.KeyBudget {
	return &vaultpb.KeyBudget{
		Limit: limitToPB(u.Limit), SpentOperations: u.Spent.Operations, SpentBytes: u.Spent.Bytes,
		ReservedOperations: u.Reserved.Operations, ReservedBytes: u.Reserved.Bytes, Reserved: each(u.Holders, holderToPB),
		WindowStartedAt: stamp(u.Since), RenewedAt: stamp(u.Renewed),
	}
}

func holderToPB(h fsm.UseHolder) *vaultpb.Reserve {
	return &vaultpb.Reserve{Node: string(h.Node), Operations: h.Operations, Bytes: h.Bytes}
}
