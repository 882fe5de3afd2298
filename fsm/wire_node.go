package fsm

import "github.com/conclave-vault/conclave/fsm/fsmpb"

func clusterToWire(c Cluster) *fsmpb.Cluster {
	return &fsmpb.Cluster{
		Id: c.ID, Dev: c.Dev, FeatureLevel: c.FeatureLevel, NodeCa: c.NodeCA, ClientCa: c.ClientCA,
		CreatedAtMs: toMillis(c.CreatedAt), SealedAt: c.SealedAt, MasterGeneration: c.MasterGeneration,
	}
}

func clusterFromWire(w *fsmpb.Cluster) Cluster {
	return Cluster{
		ID: w.GetId(), Dev: w.GetDev(), FeatureLevel: w.GetFeatureLevel(), NodeCA: w.GetNodeCa(), ClientCA: w.GetClientCa(),
		CreatedAt: fromMillis(w.GetCreatedAtMs()), SealedAt: w.GetSealedAt(), MasterGeneration: w.GetMasterGeneration(),
	}
}

func nodeToWire(n Node) *fsmpb.Node {
	return &fsmpb.Node{
		Id: string(n.ID), Datacenter: n.Datacenter, ClusterAddr: n.ClusterAddr, ApiAddr: n.APIAddr,
		IdentityKey: n.IdentityKey, ExchangeKey: n.ExchangeKey, Certificate: n.Certificate,
		Hsm: n.Device.HSM, Library: n.Device.Library, HardwareSafe: n.Device.HardwareSafe, Algorithms: n.Device.Algorithms,
		Lacks: lacksToWire(n.Device.Lacks), Capabilities: capabilitiesToWire(n.Device.Capabilities), Secrets: n.Secrets,
		JoinedAtMs: toMillis(n.JoinedAt), UnsealedBoot: n.UnsealedBoot, UnsealedAt: n.UnsealedAt,
		DrainedAt: n.DrainedAt, RemovedAt: n.RemovedAt,
	}
}

func nodeFromWire(w *fsmpb.Node) Node {
	return Node{
		ID: NodeID(w.GetId()), Datacenter: w.GetDatacenter(), ClusterAddr: w.GetClusterAddr(), APIAddr: w.GetApiAddr(),
		IdentityKey: w.GetIdentityKey(), ExchangeKey: w.GetExchangeKey(), Certificate: w.GetCertificate(),
		Device: Device{
			HSM: w.GetHsm(), Library: w.GetLibrary(), HardwareSafe: w.GetHardwareSafe(), Algorithms: w.GetAlgorithms(),
			Lacks: lacksFromWire(w.GetLacks()), Capabilities: capabilitiesFromWire(w.GetCapabilities()),
		},
		Secrets:  w.GetSecrets(),
		JoinedAt: fromMillis(w.GetJoinedAtMs()), UnsealedBoot: w.GetUnsealedBoot(), UnsealedAt: w.GetUnsealedAt(),
		DrainedAt: w.GetDrainedAt(), RemovedAt: w.GetRemovedAt(),
	}
}

func deviceToWire(d Device) *fsmpb.Device {
	return &fsmpb.Device{
		Hsm: d.HSM, Library: d.Library, HardwareSafe: d.HardwareSafe, Algorithms: d.Algorithms, Lacks: lacksToWire(d.Lacks),
		Capabilities: capabilitiesToWire(d.Capabilities),
	}
}

func deviceFromWire(w *fsmpb.Device) Device {
	return Device{
		HSM: w.GetHsm(), Library: w.GetLibrary(), HardwareSafe: w.GetHardwareSafe(), Algorithms: w.GetAlgorithms(),
		Lacks: lacksFromWire(w.GetLacks()), Capabilities: capabilitiesFromWire(w.GetCapabilities()),
	}
}

func lacksToWire(all []Lack) []*fsmpb.Lack {
	var w []*fsmpb.Lack
	for _, l := range all {
		w = append(w, &fsmpb.Lack{Algorithm: l.Algorithm, Why: l.Why, Operations: l.Operations})
	}
	return w
}

func lacksFromWire(w []*fsmpb.Lack) []Lack {
	var all []Lack
	for _, l := range w {
		all = append(all, Lack{Algorithm: l.GetAlgorithm(), Why: l.GetWhy(), Operations: l.GetOperations()})
	}
	return all
}

func capabilitiesToWire(all []Capability) []*fsmpb.Capability {
	var w []*fsmpb.Capability
	for _, c := range all {
		w = append(w, &fsmpb.Capability{Algorithm: c.Algorithm, Operations: c.Operations})
	}
	return w
}

func capabilitiesFromWire(w []*fsmpb.Capability) []Capability {
	var all []Capability
	for _, c := range w {
		all = append(all, Capability{Algorithm: c.GetAlgorithm(), Operations: c.GetOperations()})
	}
	return all
}

func tokenToWire(t JoinToken) *fsmpb.JoinToken {
	return &fsmpb.JoinToken{
		Id: t.ID, Node: string(t.Node), Hash: t.Hash, ExpiresAtMs: toMillis(t.ExpiresAt), UsedBy: t.UsedBy, UsedAt: t.UsedAt,
	}
}

func tokenFromWire(w *fsmpb.JoinToken) JoinToken {
	return JoinToken{
		ID: w.GetId(), Node: NodeID(w.GetNode()), Hash: w.GetHash(), ExpiresAt: fromMillis(w.GetExpiresAtMs()),
		UsedBy: w.GetUsedBy(), UsedAt: w.GetUsedAt(),
	}
}

func certificateToWire(c Certificate) *fsmpb.Certificate {
	return &fsmpb.Certificate{
		Serial: c.Serial, Role: string(c.Role), Name: c.Name, NotBeforeMs: toMillis(c.NotBefore), NotAfterMs: toMillis(c.NotAfter),
		IssuedAt: c.IssuedAt, RevokedAt: c.RevokedAt, Reason: c.Reason,
	}
}

func certificateFromWire(w *fsmpb.Certificate) Certificate {
	return Certificate{
		Serial: w.GetSerial(), Role: Role(w.GetRole()), Name: w.GetName(),
		NotBefore: fromMillis(w.GetNotBeforeMs()), NotAfter: fromMillis(w.GetNotAfterMs()),
		IssuedAt: w.GetIssuedAt(), RevokedAt: w.GetRevokedAt(), Reason: w.GetReason(),
	}
}

func nodeLevelToWire(n NodeLevel) *fsmpb.NodeLevel {
	return &fsmpb.NodeLevel{Node: string(n.Node), Understands: n.Understands}
}

func nodeLevelFromWire(w *fsmpb.NodeLevel) NodeLevel {
	return NodeLevel{Node: NodeID(w.GetNode()), Understands: w.GetUnderstands()}
}
