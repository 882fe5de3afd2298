package transport

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
)

// period leaves no duration absent.
func period(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func linkToPB(l fsm.Link) *vaultpb.Link {
	return &vaultpb.Link{Kind: string(l.Kind), Target: l.Target}
}

func linkFromPB(l *vaultpb.Link) fsm.Link {
	return fsm.Link{Kind: fsm.LinkKind(l.GetKind()), Target: l.GetTarget()}
}

// datesToPB adds the dates that most versions do not have.
func datesToPB(pb *vaultpb.KeyVersion, d *fsm.Dates) *vaultpb.KeyVersion {
	if d != nil {
		pb.ActivateAt, pb.DeactivateAt, pb.ProcessingEndedAt = stamp(d.ActivateAt), stamp(d.DeactivateAt), stamp(d.ProcessingEndedAt)
		pb.ExportedAt = stamp(d.ExportedAt)
	}
	return pb
}

func destructionToPB(d *fsm.Destruction) *vaultpb.Destruction {
	if d == nil {
		return nil
	}
	return &vaultpb.Destruction{BegunAt: stamp(d.BegunAt), DoneAt: stamp(d.DoneAt), Receipts: each(d.Receipts, receiptToPB)}
}

func receiptToPB(r fsm.Receipt) *vaultpb.Receipt {
	return &vaultpb.Receipt{Node: string(r.Node), Boot: r.Boot, Erasure: string(r.Erasure), Index: r.Index, At: stamp(r.At)}
}

func updateFromPB(r *vaultpb.UpdateKeyRequest) fsm.UpdateKey {
	u := fsm.UpdateKey{
		Name: fsm.KeyName(r.GetName()), Revision: r.GetRevision(), SetLabels: each(r.GetSetLabels(), labelFromPB), RemoveLabels: r.GetRemoveLabels(),
		Description: r.Description, Purpose: r.Purpose, Owner: (*fsm.Actor)(r.Owner), AddLinks: each(r.GetAddLinks(), linkFromPB),
		RemoveLinks: each(r.GetRemoveLinks(), linkFromPB), Version: fsm.Version(r.GetVersion()),
		ActivateAt: momentOrNil(r.GetActivateAt()), DeactivateAt: momentOrNil(r.GetDeactivateAt()), NeverExportable: r.GetNeverExportable(),
	}
	if r.GetClearDeactivateAt() {
		u.DeactivateAt = new(time.Time)
	}
	return u
}

func momentOrNil(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func filterFromPB(r *vaultpb.ListKeysRequest) vault.KeyFilter {
	return vault.KeyFilter{Prefix: r.GetPrefix(), States: r.GetStates(), Classes: r.GetClasses(), Algorithms: r.GetAlgorithms(), Labels: r.GetLabels()}
}
