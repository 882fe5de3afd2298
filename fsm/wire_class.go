package fsm

import (
	"time"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

func classToWire(c Class) *fsmpb.Class {
	return &fsmpb.Class{
		Name: c.Name, Description: c.Description, HardwareOnly: c.HardwareOnly, Algorithms: c.Algorithms, Export: c.Export,
		OriginatorPeriodNs: int64(c.OriginatorPeriod), RecipientPeriodNs: int64(c.RecipientPeriod), RotateEveryNs: int64(c.RotateEvery), RotateUses: c.RotateUses,
		BudgetOperations: c.Budget.Operations, BudgetBytes: c.Budget.Bytes, BudgetPeriodNs: int64(c.Budget.Period),
		MinDestroyWaitNs: int64(c.MinDestroyWait), Approvals: mapped(c.Approvals, approvalToWire), Mfa: c.MFA,
		Lease: string(c.Lease), LeaseDurationNs: int64(c.LeaseDuration), UsageLog: string(c.UsageLog), Exact: c.Exact,
		DecryptWhileSuspended: c.DecryptWhileSuspended, CreatedAtMs: toMillis(c.CreatedAt), Revision: c.Revision,
	}
}

func classFromWire(w *fsmpb.Class) Class {
	return Class{
		Name: shared(w.GetName()), Description: w.GetDescription(), HardwareOnly: w.GetHardwareOnly(), Algorithms: w.GetAlgorithms(), Export: w.GetExport(),
		OriginatorPeriod: time.Duration(w.GetOriginatorPeriodNs()), RecipientPeriod: time.Duration(w.GetRecipientPeriodNs()),
		RotateEvery: time.Duration(w.GetRotateEveryNs()), RotateUses: w.GetRotateUses(),
		Budget:         Budget{Operations: w.GetBudgetOperations(), Bytes: w.GetBudgetBytes(), Period: time.Duration(w.GetBudgetPeriodNs())},
		MinDestroyWait: time.Duration(w.GetMinDestroyWaitNs()), Approvals: mapped(w.GetApprovals(), approvalFromWire), MFA: w.GetMfa(),
		Lease: LeaseMode(w.GetLease()), LeaseDuration: time.Duration(w.GetLeaseDurationNs()), UsageLog: UsageLog(w.GetUsageLog()), Exact: w.GetExact(),
		DecryptWhileSuspended: w.GetDecryptWhileSuspended(), CreatedAt: fromMillis(w.GetCreatedAtMs()), Revision: w.GetRevision(),
	}
}

func approvalToWire(a Approval) *fsmpb.Approval {
	return &fsmpb.Approval{Operation: a.Operation, Quorum: a.Quorum, Groups: a.Groups}
}

func approvalFromWire(w *fsmpb.Approval) Approval {
	return Approval{Operation: w.GetOperation(), Quorum: w.GetQuorum(), Groups: w.GetGroups()}
}
