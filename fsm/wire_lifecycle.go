package fsm

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

func linkToWire(l Link) *fsmpb.Link { return &fsmpb.Link{Kind: string(l.Kind), Target: l.Target} }
func linkFromWire(w *fsmpb.Link) Link {
	return Link{Kind: LinkKind(w.GetKind()), Target: w.GetTarget()}
}

func destructionToWire(d *Destruction) *fsmpb.Destruction {
	if d == nil {
		return nil
	}
	return &fsmpb.Destruction{BegunAtMs: toMillis(d.BegunAt), DoneAtMs: toMillis(d.DoneAt), Receipts: mapped(d.Receipts, receiptToWire)}
}

func destructionFromWire(w *fsmpb.Destruction) *Destruction {
	if w == nil {
		return nil
	}
	return &Destruction{BegunAt: fromMillis(w.GetBegunAtMs()), DoneAt: fromMillis(w.GetDoneAtMs()), Receipts: mapped(w.GetReceipts(), receiptFromWire)}
}

func receiptToWire(r Receipt) *fsmpb.Receipt {
	return &fsmpb.Receipt{Node: string(r.Node), Boot: r.Boot, Erasure: string(r.Erasure), Index: r.Index, AtMs: toMillis(r.At)}
}

func receiptFromWire(w *fsmpb.Receipt) Receipt {
	return Receipt{Node: NodeID(shared(w.GetNode())), Boot: shared(w.GetBoot()), Erasure: Erasure(shared(w.GetErasure())), Index: w.GetIndex(), At: fromMillis(w.GetAtMs())}
}

func erasedToWire(e ErasedVersion) *fsmpb.ErasedVersion {
	return &fsmpb.ErasedVersion{KeyId: string(e.Key), Version: uint32(e.Version)}
}

func erasedFromWire(w *fsmpb.ErasedVersion) ErasedVersion {
	return ErasedVersion{Key: KeyID(w.GetKeyId()), Version: Version(w.GetVersion())}
}

// lifecycleCommandToWire continues commandToWire's table with the commands of classes, dates and metadata.
func lifecycleCommandToWire(command Command) proto.Message {
	switch c := command.(type) {
	case CreateClass:
		return &fsmpb.CreateClass{Class: classToWire(c.Class)}
	case UpdateClass:
		return &fsmpb.UpdateClass{Class: classToWire(c.Class), Revision: c.Revision}
	case DeleteClass:
		return &fsmpb.DeleteClass{Name: c.Name}
	case SetKeyClass:
		return &fsmpb.SetKeyClass{Name: string(c.Name), Class: c.Class, Reason: c.Reason}
	case UpdateKey:
		return updateKeyToWire(c)
	case ExecuteDue:
		w := &fsmpb.ExecuteDue{
			Kind: uint32(c.Kind), Subject: c.Subject, Version: uint32(c.Version), AtMs: toMillis(c.At), Revision: c.Revision,
		}
		if c.Kind == DueRotate || c.Kind == DueUses {
			w.Material = materialToWire(c.Material)
		}
		return w
	case RecordErasure:
		return &fsmpb.RecordErasure{Node: string(c.Node), Boot: c.Boot, Erasure: string(c.Erasure), Erased: mapped(c.Erased, erasedToWire)}
	default:
		return nil
	}
}

func newLifecyclePayload(t EntryType) proto.Message {
	switch t {
	case typeCreateClass:
		return new(fsmpb.CreateClass)
	case typeUpdateClass:
		return new(fsmpb.UpdateClass)
	case typeDeleteClass:
		return new(fsmpb.DeleteClass)
	case typeSetKeyClass:
		return new(fsmpb.SetKeyClass)
	case typeUpdateKey:
		return new(fsmpb.UpdateKey)
	case typeExecuteDue:
		return new(fsmpb.ExecuteDue)
	case typeRecordErasure:
		return new(fsmpb.RecordErasure)
	default:
		return newUsePayload(t)
	}
}

func lifecycleCommandFromWire(message proto.Message) Command {
	switch w := message.(type) {
	case *fsmpb.CreateClass:
		return CreateClass{Class: classFromWire(w.GetClass())}
	case *fsmpb.UpdateClass:
		return UpdateClass{Class: classFromWire(w.GetClass()), Revision: w.GetRevision()}
	case *fsmpb.DeleteClass:
		return DeleteClass{Name: w.GetName()}
	case *fsmpb.SetKeyClass:
		return SetKeyClass{Name: KeyName(w.GetName()), Class: w.GetClass(), Reason: w.GetReason()}
	case *fsmpb.UpdateKey:
		return updateKeyFromWire(w)
	case *fsmpb.ExecuteDue:
		return ExecuteDue{
			Due: Due{
				Kind: dueKindFromWire(w.GetKind()), Subject: w.GetSubject(), Version: Version(w.GetVersion()), At: fromMillis(w.GetAtMs()), Revision: w.GetRevision(),
			},
			Material: materialFromWire(w.GetMaterial()),
		}
	case *fsmpb.RecordErasure:
		return RecordErasure{
			Node: NodeID(shared(w.GetNode())), Boot: shared(w.GetBoot()), Erasure: Erasure(w.GetErasure()), Erased: mapped(w.GetErased(), erasedFromWire),
		}
	default:
		return nil
	}
}

// dueKindFromWire keeps a number outside the table from wrapping into a known kind.
func dueKindFromWire(n uint32) DueKind {
	if n > uint32(DueUses) {
		return 0
	}
	return DueKind(n)
}

func updateKeyToWire(c UpdateKey) *fsmpb.UpdateKey {
	w := &fsmpb.UpdateKey{
		Name: string(c.Name), Revision: c.Revision, SetLabels: mapped(c.SetLabels, labelToWire), RemoveLabels: c.RemoveLabels,
		Description: c.Description, Purpose: c.Purpose, AddLinks: mapped(c.AddLinks, linkToWire), RemoveLinks: mapped(c.RemoveLinks, linkToWire),
		Version: uint32(c.Version), ActivateAtMs: millisOrNil(c.ActivateAt), DeactivateAtMs: millisOrNil(c.DeactivateAt),
		NeverExportable: c.NeverExportable,
	}
	if c.Owner != nil {
		w.Owner = proto.String(string(*c.Owner))
	}
	return w
}

func updateKeyFromWire(w *fsmpb.UpdateKey) UpdateKey {
	c := UpdateKey{
		Name: KeyName(w.GetName()), Revision: w.GetRevision(), SetLabels: mapped(w.GetSetLabels(), labelFromWire), RemoveLabels: w.GetRemoveLabels(),
		Description: w.Description, Purpose: w.Purpose, AddLinks: mapped(w.GetAddLinks(), linkFromWire), RemoveLinks: mapped(w.GetRemoveLinks(), linkFromWire),
		Version: Version(w.GetVersion()), ActivateAt: timeOrNil(w.ActivateAtMs), DeactivateAt: timeOrNil(w.DeactivateAtMs),
		NeverExportable: w.GetNeverExportable(),
	}
	if w.Owner != nil {
		owner := Actor(shared(w.GetOwner()))
		c.Owner = &owner
	}
	return c
}

func millisOrNil(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	return proto.Int64(toMillis(*t))
}

func timeOrNil(ms *int64) *time.Time {
	if ms == nil {
		return nil
	}
	t := fromMillis(*ms)
	return &t
}
