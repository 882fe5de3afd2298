package fsm

import "github.com/conclave-vault/conclave/fsm/fsmpb"

func labelToWire(l Label) *fsmpb.Label   { return &fsmpb.Label{Name: l.Name, Value: l.Value} }
func labelFromWire(w *fsmpb.Label) Label { return Label{Name: w.GetName(), Value: w.GetValue()} }

func materialToWire(m Material) *fsmpb.Material {
	return &fsmpb.Material{
		Generation: m.Generation, Exportable: m.Exportable, HardwareSafe: m.HardwareSafe,
		PublicKey: m.PublicKey, Blob: m.Blob, Mac: m.MAC,
	}
}

func materialFromWire(w *fsmpb.Material) Material {
	return Material{
		Generation: w.GetGeneration(), Exportable: w.GetExportable(), HardwareSafe: w.GetHardwareSafe(),
		PublicKey: w.GetPublicKey(), Blob: w.GetBlob(), MAC: w.GetMac(),
	}
}

func keyToWire(k Key) *fsmpb.Key {
	return &fsmpb.Key{
		Id: string(k.ID), Name: string(k.Name), Algorithm: k.Algorithm, Class: k.Class, Owner: string(k.Owner),
		Labels: mapped(k.Labels, labelToWire), CreatedAtMs: toMillis(k.CreatedAt), Primary: uint32(k.Primary),
		Versions: mapped(k.Versions, keyVersionToWire), Revision: k.Revision,
		Barrier:     &fsmpb.Barrier{State: uint32(k.Barrier.State), Index: k.Barrier.Index, Waited: texts[string](k.Barrier.Waited)},
		Description: k.Meta().Description, Purpose: k.Meta().Purpose, Links: mapped(k.Meta().Links, linkToWire),
		NeverExportable: k.NeverExportable,
	}
}

func keyFromWire(w *fsmpb.Key) Key {
	return Key{
		ID: KeyID(w.GetId()), Name: KeyName(w.GetName()), Algorithm: shared(w.GetAlgorithm()), Class: shared(w.GetClass()), Owner: Actor(shared(w.GetOwner())),
		Labels: mapped(w.GetLabels(), labelFromWire), CreatedAt: fromMillis(w.GetCreatedAtMs()), Primary: Version(w.GetPrimary()),
		Versions: mapped(w.GetVersions(), keyVersionFromWire), Revision: w.GetRevision(),
		Barrier: Barrier{
			State: BarrierState(w.GetBarrier().GetState()), Index: w.GetBarrier().GetIndex(),
			Waited: texts[NodeID](w.GetBarrier().GetWaited()),
		},
		Metadata: newMetadata(w.GetDescription(), w.GetPurpose(), mapped(w.GetLinks(), linkFromWire)), NeverExportable: w.GetNeverExportable(),
	}
}

func keyVersionToWire(v KeyVersion) *fsmpb.KeyVersion {
	w := &fsmpb.KeyVersion{
		Version: uint32(v.Version), State: uint32(v.State), Reason: v.Reason,
		CreatedAtMs: toMillis(v.CreatedAt), ActivatedAtMs: toMillis(v.ActivatedAt), ChangedAtMs: toMillis(v.ChangedAt),
		ChangedIndex: v.ChangedIndex, CompromisedAtMs: toMillis(v.CompromisedAt), OccurredAtMs: toMillis(v.OccurredAt),
		DestroyAtMs: toMillis(v.DestroyAt), Before: uint32(v.Before),
		Generation: v.Generation, Exportable: v.Exportable, PublicKey: v.PublicKey, Blob: v.Blob, Mac: v.MAC,
		MadeInSoftware: v.MadeInSoftware, Imported: v.Imported, Destruction: destructionToWire(v.Destruction),
	}
	if d := v.Dates; d != nil {
		w.ActivateAtMs, w.DeactivateAtMs, w.ProcessingEndedAtMs = toMillis(d.ActivateAt), toMillis(d.DeactivateAt), toMillis(d.ProcessingEndedAt)
		w.ExportedAtMs = toMillis(d.ExportedAt)
	}
	return w
}

func keyVersionFromWire(w *fsmpb.KeyVersion) KeyVersion {
	return KeyVersion{
		Version: Version(w.GetVersion()), State: stateFromWire(w.GetState()), Reason: w.GetReason(),
		CreatedAt: fromMillis(w.GetCreatedAtMs()), ActivatedAt: fromMillis(w.GetActivatedAtMs()), ChangedAt: fromMillis(w.GetChangedAtMs()),
		ChangedIndex: w.GetChangedIndex(), CompromisedAt: fromMillis(w.GetCompromisedAtMs()), OccurredAt: fromMillis(w.GetOccurredAtMs()),
		DestroyAt: fromMillis(w.GetDestroyAtMs()), Before: stateFromWire(w.GetBefore()),
		Generation: w.GetGeneration(), Exportable: w.GetExportable(), PublicKey: w.GetPublicKey(), Blob: w.GetBlob(), MAC: w.GetMac(),
		MadeInSoftware: w.GetMadeInSoftware(), Imported: w.GetImported(), Dates: datesFromWire(w), Destruction: destructionFromWire(w.GetDestruction()),
	}
}

// datesFromWire is nil for none, which is most versions.
func datesFromWire(w *fsmpb.KeyVersion) *Dates {
	if w.GetActivateAtMs() == 0 && w.GetDeactivateAtMs() == 0 && w.GetProcessingEndedAtMs() == 0 && w.GetExportedAtMs() == 0 {
		return nil
	}
	return &Dates{
		ActivateAt: fromMillis(w.GetActivateAtMs()), DeactivateAt: fromMillis(w.GetDeactivateAtMs()), ProcessingEndedAt: fromMillis(w.GetProcessingEndedAtMs()),
		ExportedAt: fromMillis(w.GetExportedAtMs()),
	}
}

// stateFromWire keeps a number outside the table from wrapping into a known state.
func stateFromWire(n uint32) KeyState {
	if n > uint32(StateDestroyedCompromised) {
		return StateUnknown
	}
	return KeyState(n)
}

func createKeyToWire(c CreateKey) *fsmpb.CreateKey {
	return &fsmpb.CreateKey{
		Id: string(c.ID), Name: string(c.Name), Algorithm: c.Algorithm, Class: c.Class,
		Labels: mapped(c.Labels, labelToWire), Material: materialToWire(c.Material),
		ActivateAtMs: toMillis(c.ActivateAt), DeactivateAtMs: toMillis(c.DeactivateAt),
		Description: c.Description, Purpose: c.Purpose, Links: mapped(c.Links, linkToWire),
	}
}

func createKeyFromWire(w *fsmpb.CreateKey) CreateKey {
	return CreateKey{
		ID: KeyID(w.GetId()), Name: KeyName(w.GetName()), Algorithm: w.GetAlgorithm(), Class: w.GetClass(),
		Labels: mapped(w.GetLabels(), labelFromWire), Material: materialFromWire(w.GetMaterial()),
		ActivateAt: fromMillis(w.GetActivateAtMs()), DeactivateAt: fromMillis(w.GetDeactivateAtMs()),
		Description: w.GetDescription(), Purpose: w.GetPurpose(), Links: mapped(w.GetLinks(), linkFromWire),
	}
}
