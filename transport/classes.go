package transport

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

func classReply(c vault.Class, index uint64, err error) (*vaultpb.ClassReply, error) {
	if err != nil {
		return nil, err
	}
	return &vaultpb.ClassReply{Class: classToPB(c), Index: index}, nil
}

// CreateClass implements vaultpb.ClassesServer.
func (s *Server) CreateClass(ctx context.Context, r *vaultpb.CreateClassRequest) (*vaultpb.ClassReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ClassReply, error) {
		return classReply(s.cfg.Vault.CreateClass(ctx, c, fsm.RequestID(r.GetRequestId()), classFromPB(r.GetClass())))
	})
}

// GetClass implements vaultpb.ClassesServer.
func (s *Server) GetClass(ctx context.Context, r *vaultpb.GetClassRequest) (*vaultpb.ClassReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ClassReply, error) {
		return classReply(s.cfg.Vault.Class(ctx, c, r.GetName()))
	})
}

// ListClasses implements vaultpb.ClassesServer.
func (s *Server) ListClasses(ctx context.Context, _ *vaultpb.ListClassesRequest) (*vaultpb.ListClassesReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ListClassesReply, error) {
		all, index, err := s.cfg.Vault.Classes(ctx, c)
		return &vaultpb.ListClassesReply{Items: each(all, classToPB), Index: index}, err
	})
}

// UpdateClass implements vaultpb.ClassesServer.
func (s *Server) UpdateClass(ctx context.Context, r *vaultpb.UpdateClassRequest) (*vaultpb.ClassReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ClassReply, error) {
		return classReply(s.cfg.Vault.UpdateClass(ctx, c, fsm.RequestID(r.GetRequestId()), classFromPB(r.GetClass()), r.GetRevision()))
	})
}

// DeleteClass implements vaultpb.ClassesServer.
func (s *Server) DeleteClass(ctx context.Context, r *vaultpb.DeleteClassRequest) (*vaultpb.DeleteClassReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.DeleteClassReply, error) {
		index, err := s.cfg.Vault.DeleteClass(ctx, c, fsm.RequestID(r.GetRequestId()), r.GetName())
		return &vaultpb.DeleteClassReply{Index: index}, err
	})
}

// CheckClass implements vaultpb.ClassesServer.
func (s *Server) CheckClass(ctx context.Context, r *vaultpb.CheckClassRequest) (*vaultpb.CheckClassReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.CheckClassReply, error) {
		check, index, err := s.cfg.Vault.CheckClass(ctx, c, classFromPB(r.GetClass()), fsm.KeyName(r.GetKey()))
		if err != nil {
			return nil, err
		}
		reply := checkToPB(check)
		reply.Index = index
		return reply, nil
	})
}

func classToPB(c vault.Class) *vaultpb.Class {
	return &vaultpb.Class{
		Name: c.Name, Description: c.Description, HardwareOnly: c.HardwareOnly, Algorithms: c.Algorithms, Export: c.Export,
		OriginatorPeriod: period(c.OriginatorPeriod), RecipientPeriod: period(c.RecipientPeriod), RotateEvery: period(c.RotateEvery), RotateUses: c.RotateUses,
		Budget: budgetToPB(c.Budget), MinDestroyWait: period(c.MinDestroyWait), Approvals: each(c.Approvals, approvalToPB), Mfa: c.MFA,
		Lease: string(c.Lease), LeaseDuration: period(c.LeaseDuration), UsageLog: string(c.UsageLog), Exact: c.Exact,
		DecryptWhileSuspended: c.DecryptWhileSuspended, BuiltIn: c.BuiltIn(), CreatedAt: stamp(c.CreatedAt), Revision: c.Revision, Keys: c.Keys,
	}
}

func classFromPB(c *vaultpb.Class) fsm.Class {
	return fsm.Class{
		Name: c.GetName(), Description: c.GetDescription(), HardwareOnly: c.GetHardwareOnly(), Algorithms: c.GetAlgorithms(), Export: c.GetExport(),
		OriginatorPeriod: duration(c.GetOriginatorPeriod()), RecipientPeriod: duration(c.GetRecipientPeriod()),
		RotateEvery: duration(c.GetRotateEvery()), RotateUses: c.GetRotateUses(), Budget: budgetFromPB(c.GetBudget()),
		MinDestroyWait: duration(c.GetMinDestroyWait()), Approvals: each(c.GetApprovals(), approvalFromPB), MFA: c.GetMfa(),
		Lease: fsm.LeaseMode(c.GetLease()), LeaseDuration: duration(c.GetLeaseDuration()), UsageLog: fsm.UsageLog(c.GetUsageLog()), Exact: c.GetExact(),
		DecryptWhileSuspended: c.GetDecryptWhileSuspended(),
	}
}

func budgetToPB(b fsm.Budget) *vaultpb.Budget {
	if b == (fsm.Budget{}) {
		return nil
	}
	return &vaultpb.Budget{Operations: b.Operations, Bytes: b.Bytes, Period: durationpb.New(b.Period)}
}

func budgetFromPB(b *vaultpb.Budget) fsm.Budget {
	return fsm.Budget{Operations: b.GetOperations(), Bytes: b.GetBytes(), Period: duration(b.GetPeriod())}
}

func approvalToPB(a fsm.Approval) *vaultpb.Approval {
	return &vaultpb.Approval{Operation: a.Operation, Quorum: a.Quorum, Groups: a.Groups}
}

func approvalFromPB(a *vaultpb.Approval) fsm.Approval {
	return fsm.Approval{Operation: a.GetOperation(), Quorum: a.GetQuorum(), Groups: a.GetGroups()}
}

func checkToPB(c fsm.ClassCheck) *vaultpb.CheckClassReply {
	return &vaultpb.CheckClassReply{
		Raised: c.Raised, Lowered: c.Lowered, Breaks: each(c.Breaks, effectToPB), Follows: each(c.Follows, effectToPB), More: c.More,
	}
}

func effectToPB(e fsm.ClassEffect) *vaultpb.ClassEffect {
	return &vaultpb.ClassEffect{Key: string(e.Key), Version: uint32(e.Version), Control: e.Control, Why: e.Why}
}
