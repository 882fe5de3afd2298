package transport

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
)

// each converts a list; nil stays nil.
func each[D, P any](list []D, convert func(D) P) []P {
	if list == nil {
		return nil
	}
	out := make([]P, len(list))
	for i, item := range list {
		out[i] = convert(item)
	}
	return out
}

// stamp leaves absent times absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func duration(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.AsDuration()
}

func keyToPB(k fsm.Key) *vaultpb.Key {
	return &vaultpb.Key{
		Id: string(k.ID), Name: string(k.Name), Algorithm: k.Algorithm, Class: k.Class, State: k.PrimaryVersion().State.String(),
		PrimaryVersion: uint32(k.Primary), Owner: string(k.Owner), Labels: each(k.Labels, labelToPB), CreatedAt: stamp(k.CreatedAt),
		Versions: each(k.Versions, versionToPB), Barrier: barrierToPB(k.Barrier),
		Description: k.Meta().Description, Purpose: k.Meta().Purpose, Links: each(k.Meta().Links, linkToPB), Revision: k.Revision,
	}
}

func labelToPB(l fsm.Label) *vaultpb.Label { return &vaultpb.Label{Name: l.Name, Value: l.Value} }

func labelFromPB(l *vaultpb.Label) fsm.Label {
	return fsm.Label{Name: l.GetName(), Value: l.GetValue()}
}

func versionToPB(v fsm.KeyVersion) *vaultpb.KeyVersion {
	return datesToPB(&vaultpb.KeyVersion{
		Version: uint32(v.Version), State: v.State.String(), Reason: v.Reason, CreatedAt: stamp(v.CreatedAt), ActivatedAt: stamp(v.ActivatedAt),
		ChangedAt: stamp(v.ChangedAt), CompromisedAt: stamp(v.CompromisedAt), OccurredAt: stamp(v.OccurredAt), DestroyAt: stamp(v.DestroyAt),
		MasterGeneration: v.Generation, MadeInSoftware: v.MadeInSoftware, Origin: originToPB(v), Exportable: v.Exportable, Destruction: destructionToPB(v.Destruction),
	}, v.Dates)
}

func barrierToPB(b fsm.Barrier) *vaultpb.Barrier {
	names := map[fsm.BarrierState]string{fsm.BarrierPending: "pending", fsm.BarrierDone: "done"}
	if b.State == fsm.BarrierNone {
		return nil
	}
	return &vaultpb.Barrier{State: names[b.State], Index: b.Index, WaitedFor: each(b.Waited, func(n fsm.NodeID) string { return string(n) })}
}

var actions = map[vaultpb.KeyAction]fsm.KeyAction{
	vaultpb.KeyAction_KEY_ACTION_SUSPEND:        fsm.ActionSuspend,
	vaultpb.KeyAction_KEY_ACTION_RESUME:         fsm.ActionResume,
	vaultpb.KeyAction_KEY_ACTION_DEACTIVATE:     fsm.ActionDeactivate,
	vaultpb.KeyAction_KEY_ACTION_COMPROMISE:     fsm.ActionCompromise,
	vaultpb.KeyAction_KEY_ACTION_REVOKE:         fsm.ActionRevoke,
	vaultpb.KeyAction_KEY_ACTION_DESTROY:        fsm.ActionDestroy,
	vaultpb.KeyAction_KEY_ACTION_CANCEL_DESTROY: fsm.ActionCancelDestroy,
	vaultpb.KeyAction_KEY_ACTION_ACTIVATE:       fsm.ActionActivate,
}

func changeFromPB(r *vaultpb.ChangeKeyRequest) vault.Change {
	return vault.Change{
		Name: fsm.KeyName(r.GetName()), Version: fsm.Version(r.GetVersion()), Action: actions[r.GetAction()], Reason: r.GetReason(),
		OccurredAt: moment(r.GetOccurredAt()), After: duration(r.GetAfter()),
	}
}

var nodeActions = map[vaultpb.NodeAction]vault.NodeAction{
	vaultpb.NodeAction_NODE_ACTION_DRAIN:   vault.NodeDrain,
	vaultpb.NodeAction_NODE_ACTION_UNDRAIN: vault.NodeUndrain,
	vaultpb.NodeAction_NODE_ACTION_REMOVE:  vault.NodeRemove,
}

func eventToPB(e fsm.Event) *vaultpb.Event {
	return &vaultpb.Event{
		Leaf: e.Leaf, Index: e.Index, Time: stamp(e.Time), Actor: string(e.Actor), Action: e.Action, Subject: e.Subject, SubjectId: e.SubjectID,
		Version: uint32(e.Version), From: e.From, To: e.To, Reason: e.Reason, RequestId: string(e.RequestID), Detail: e.Detail,
	}
}

func eventsToPB(p vault.EventPage) *vaultpb.EventList {
	return &vaultpb.EventList{Items: each(p.Events, eventToPB), NextPageToken: p.Next, Index: p.Index}
}

func nodeStatusToPB(n vault.NodeStatus) *vaultpb.NodeStatus {
	return &vaultpb.NodeStatus{
		Id: string(n.ID), Addr: n.Addr, Datacenter: n.Datacenter, Hsm: n.HSM, HsmLibrary: n.Library, Sealed: n.Sealed, Role: n.Role, Applied: n.Applied, Digest: n.Digest,
		DigestIndex: n.DigestIndex, Standing: n.Standing, Lease: n.Lease, Term: n.Term, Error: n.Error, Version: n.Version,
		Understands: n.Understands,
	}
}

func nodeToPB(n vault.ListedNode) *vaultpb.Node {
	return &vaultpb.Node{
		Id: string(n.ID), Addr: n.APIAddr, ClusterAddr: n.ClusterAddr, Datacenter: n.Datacenter, Hsm: n.Device.HSM, HsmLibrary: n.Device.Library,
		Standing: n.Standing.String(), HardwareSafe: n.Device.HardwareSafe, Algorithms: n.Device.Algorithms, Lacks: each(n.Device.Lacks, lackToPB), JoinedAt: stamp(n.JoinedAt), Gossip: n.Gossip, Voter: n.Voter, InRoster: n.InRoster, ExchangeKey: n.ExchangeKey,
		Capabilities: capabilitiesToPB(n.Device),
	}
}

func lackToPB(l fsm.Lack) *vaultpb.Lack { return &vaultpb.Lack{Algorithm: l.Algorithm, Why: l.Why} }

func certificateToPB(c fsm.Certificate) *vaultpb.Certificate {
	return &vaultpb.Certificate{
		Serial: c.Serial, Role: string(c.Role), Name: c.Name, NotBefore: stamp(c.NotBefore), NotAfter: stamp(c.NotAfter),
		Revoked: c.RevokedAt != 0, Reason: c.Reason,
	}
}

func recordToPB(r vault.Record) *vaultpb.Record {
	return &vaultpb.Record{Leaf: r.Leaf, Data: r.Data, Hash: r.Hash}
}

func headToPB(h vault.Head) *vaultpb.TreeHead {
	return &vaultpb.TreeHead{Node: string(h.Node), Size: h.Size, Root: h.Root, Index: h.Index, Error: h.Error}
}
