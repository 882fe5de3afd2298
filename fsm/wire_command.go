package fsm

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// commandToWire is a flat table: one line a command. nil for a command that is none of ours.
func commandToWire(command Command) proto.Message {
	switch c := command.(type) {
	case InitCluster:
		return &fsmpb.InitCluster{
			ClusterId: c.ClusterID, Dev: c.Dev, FeatureLevel: c.FeatureLevel, NodeCa: c.NodeCA, ClientCa: c.ClientCA,
			Node: nodeToWire(c.Node), Certificates: mapped(c.Certificates, certificateToWire),
		}
	case CreateJoinToken:
		return &fsmpb.CreateJoinToken{Id: c.ID, Node: string(c.Node), Hash: c.Hash, ExpiresAtMs: toMillis(c.ExpiresAt)}
	case AdmitNode:
		return &fsmpb.AdmitNode{TokenId: c.TokenID, TokenHash: c.TokenHash, Node: nodeToWire(c.Node)}
	case RecordCertificate:
		return &fsmpb.RecordCertificate{Certificate: certificateToWire(c.Certificate)}
	case RevokeCertificates:
		return &fsmpb.RevokeCertificates{Role: string(c.Role), Name: c.Name, Serial: c.Serial, Reason: c.Reason}
	case SealCluster:
		return &fsmpb.SealCluster{Reason: c.Reason}
	case CreateKey:
		return createKeyToWire(c)
	case ImportKey:
		return &fsmpb.ImportKey{Key: createKeyToWire(c.Key), ImportKey: c.ImportKey}
	case ExportKey:
		return &fsmpb.ExportKey{Name: string(c.Name), Id: string(c.ID), Version: uint32(c.Version), Form: c.Form, Recipient: c.Recipient[:]}
	case RotateKey:
		return &fsmpb.RotateKey{Name: string(c.Name), Id: string(c.ID), Version: uint32(c.Version), Material: materialToWire(c.Material), ActivateAtMs: toMillis(c.ActivateAt)}
	case ChangeKey:
		return &fsmpb.ChangeKey{
			Name: string(c.Name), Version: uint32(c.Version), Action: string(c.Action), Reason: c.Reason,
			OccurredAtMs: toMillis(c.OccurredAt), AfterNs: int64(c.After),
		}
	case RaiseFeatureLevel:
		return &fsmpb.RaiseFeatureLevel{Level: c.Level, Nodes: mapped(c.Nodes, nodeLevelToWire)}
	case DescribeDevice:
		return &fsmpb.DescribeDevice{Node: string(c.Node), Device: deviceToWire(c.Device)}
	case MoveNode:
		return &fsmpb.MoveNode{Node: string(c.Node), ClusterAddr: c.ClusterAddr, ApiAddr: c.APIAddr}
	case DrainNode:
		return &fsmpb.DrainNode{Node: string(c.Node), Reason: c.Reason}
	case UndrainNode:
		return &fsmpb.UndrainNode{Node: string(c.Node)}
	case RemoveNode:
		return &fsmpb.RemoveNode{Node: string(c.Node), Reason: c.Reason}
	case CompleteBarrier:
		return &fsmpb.CompleteBarrier{Restriction: c.Restriction, Waited: texts[string](c.Waited)}
	case CreateClass, UpdateClass, DeleteClass, SetKeyClass, UpdateKey, ExecuteDue, RecordErasure:
		return lifecycleCommandToWire(command)
	default:
		return ceremonyCommandToWire(command)
	}
}

func ceremonyCommandToWire(command Command) proto.Message {
	switch c := command.(type) {
	case StartGenesis:
		return &fsmpb.StartGenesis{
			Id: string(c.ID), Nonce: c.Nonce, Roster: rosterToWire(c.Roster), Dealer: string(c.Dealer), DealerBoot: c.DealerBoot,
			DealerCommitment: c.DealerCommitment, TtlNs: int64(c.TTL),
		}
	case CommitEntropy:
		return &fsmpb.CommitEntropy{
			Ceremony: string(c.Ceremony), Custodian: string(c.Custodian), Commitment: c.Commitment,
			Signature: c.Signature, RosterSignature: c.RosterSignature,
		}
	case RecordReveal:
		return &fsmpb.RecordReveal{
			Ceremony: string(c.Ceremony), Custodian: string(c.Custodian), Matches: c.Matches, Reason: c.Reason, Boot: c.Boot,
		}
	case PublishDeal:
		return &fsmpb.PublishDeal{Ceremony: string(c.Ceremony), Deal: dealToWire(c.Deal), Boot: c.Boot}
	case AcknowledgeShare:
		return &fsmpb.AcknowledgeShare{Ceremony: string(c.Ceremony), Custodian: string(c.Custodian), Signature: c.Signature}
	case StartUnseal:
		return &fsmpb.StartUnseal{
			Id: string(c.ID), Nonce: c.Nonce, Custodian: string(c.Custodian), Signature: c.Signature, TtlNs: int64(c.TTL),
		}
	case RecordShareVerdict:
		return &fsmpb.RecordShareVerdict{
			Ceremony: string(c.Ceremony), Custodian: string(c.Custodian), Node: string(c.Node), Accepted: c.Accepted, Reason: c.Reason,
		}
	case RecordNodeUnsealed:
		return &fsmpb.RecordNodeUnsealed{
			Node: string(c.Node), Boot: c.Boot, Generation: c.Generation, Ceremony: string(c.Ceremony), Seen: c.Seen,
		}
	case AbortCeremony:
		return &fsmpb.AbortCeremony{Ceremony: string(c.Ceremony), Reason: c.Reason}
	case StartRoster:
		return &fsmpb.StartRoster{
			Id: string(c.ID), Nonce: c.Nonce, Roster: rosterToWire(c.Roster), TtlNs: int64(c.TTL),
			Custodian: string(c.Custodian), Signature: c.Signature,
		}
	case SignRoster:
		return &fsmpb.SignRoster{Ceremony: string(c.Ceremony), Custodian: string(c.Custodian), Signature: c.Signature}
	default:
		return useCommandToWire(command)
	}
}

// newPayload returns an empty message for a type; nil for a type that this release does not know.
func newPayload(t EntryType) proto.Message {
	switch t {
	case typeInitCluster:
		return new(fsmpb.InitCluster)
	case typeCreateJoinToken:
		return new(fsmpb.CreateJoinToken)
	case typeAdmitNode:
		return new(fsmpb.AdmitNode)
	case typeRecordCertificate:
		return new(fsmpb.RecordCertificate)
	case typeRevokeCertificates:
		return new(fsmpb.RevokeCertificates)
	case typeStartGenesis:
		return new(fsmpb.StartGenesis)
	case typeCommitEntropy:
		return new(fsmpb.CommitEntropy)
	case typeRecordReveal:
		return new(fsmpb.RecordReveal)
	case typePublishDeal:
		return new(fsmpb.PublishDeal)
	case typeAcknowledgeShare:
		return new(fsmpb.AcknowledgeShare)
	case typeStartUnseal:
		return new(fsmpb.StartUnseal)
	case typeRecordShareVerdict:
		return new(fsmpb.RecordShareVerdict)
	case typeRecordNodeUnsealed:
		return new(fsmpb.RecordNodeUnsealed)
	case typeAbortCeremony:
		return new(fsmpb.AbortCeremony)
	case typeStartRoster:
		return new(fsmpb.StartRoster)
	case typeSignRoster:
		return new(fsmpb.SignRoster)
	case typeSealCluster:
		return new(fsmpb.SealCluster)
	case typeCreateKey:
		return new(fsmpb.CreateKey)
	case typeImportKey:
		return new(fsmpb.ImportKey)
	case typeExportKey:
		return new(fsmpb.ExportKey)
	case typeRotateKey:
		return new(fsmpb.RotateKey)
	case typeChangeKey:
		return new(fsmpb.ChangeKey)
	case typeRaiseFeatureLevel:
		return new(fsmpb.RaiseFeatureLevel)
	case typeDescribeDevice:
		return new(fsmpb.DescribeDevice)
	case typeMoveNode:
		return new(fsmpb.MoveNode)
	case typeDrainNode:
		return new(fsmpb.DrainNode)
	case typeUndrainNode:
		return new(fsmpb.UndrainNode)
	case typeRemoveNode:
		return new(fsmpb.RemoveNode)
	case typeCompleteBarrier:
		return new(fsmpb.CompleteBarrier)
	default:
		return newLifecyclePayload(t)
	}
}

// commandFromWire is the inverse of commandToWire.
func commandFromWire(message proto.Message) Command {
	switch w := message.(type) {
	case *fsmpb.InitCluster:
		return InitCluster{
			ClusterID: w.GetClusterId(), Dev: w.GetDev(), FeatureLevel: w.GetFeatureLevel(), NodeCA: w.GetNodeCa(), ClientCA: w.GetClientCa(),
			Node: nodeFromWire(w.GetNode()), Certificates: mapped(w.GetCertificates(), certificateFromWire),
		}
	case *fsmpb.CreateJoinToken:
		return CreateJoinToken{ID: w.GetId(), Node: NodeID(w.GetNode()), Hash: w.GetHash(), ExpiresAt: fromMillis(w.GetExpiresAtMs())}
	case *fsmpb.AdmitNode:
		return AdmitNode{TokenID: w.GetTokenId(), TokenHash: w.GetTokenHash(), Node: nodeFromWire(w.GetNode())}
	case *fsmpb.RecordCertificate:
		return RecordCertificate{Certificate: certificateFromWire(w.GetCertificate())}
	case *fsmpb.RevokeCertificates:
		return RevokeCertificates{Role: Role(w.GetRole()), Name: w.GetName(), Serial: w.GetSerial(), Reason: w.GetReason()}
	case *fsmpb.SealCluster:
		return SealCluster{Reason: w.GetReason()}
	case *fsmpb.CreateKey:
		return createKeyFromWire(w)
	case *fsmpb.ImportKey:
		return ImportKey{Key: createKeyFromWire(w.GetKey()), ImportKey: w.GetImportKey()}
	case *fsmpb.ExportKey:
		return ExportKey{
			Name: KeyName(w.GetName()), ID: KeyID(w.GetId()), Version: Version(w.GetVersion()), Form: w.GetForm(), Recipient: hash32(w.GetRecipient()),
		}
	case *fsmpb.RotateKey:
		return RotateKey{
			Name: KeyName(w.GetName()), ID: KeyID(w.GetId()), Version: Version(w.GetVersion()), Material: materialFromWire(w.GetMaterial()),
			ActivateAt: fromMillis(w.GetActivateAtMs()),
		}
	case *fsmpb.ChangeKey:
		return ChangeKey{
			Name: KeyName(w.GetName()), Version: Version(w.GetVersion()), Action: KeyAction(w.GetAction()), Reason: w.GetReason(),
			OccurredAt: fromMillis(w.GetOccurredAtMs()), After: time.Duration(w.GetAfterNs()),
		}
	case *fsmpb.RaiseFeatureLevel:
		return RaiseFeatureLevel{Level: w.GetLevel(), Nodes: mapped(w.GetNodes(), nodeLevelFromWire)}
	case *fsmpb.DescribeDevice:
		return DescribeDevice{Node: NodeID(w.GetNode()), Device: deviceFromWire(w.GetDevice())}
	case *fsmpb.MoveNode:
		return MoveNode{Node: NodeID(w.GetNode()), ClusterAddr: w.GetClusterAddr(), APIAddr: w.GetApiAddr()}
	case *fsmpb.DrainNode:
		return DrainNode{Node: NodeID(w.GetNode()), Reason: w.GetReason()}
	case *fsmpb.UndrainNode:
		return UndrainNode{Node: NodeID(w.GetNode())}
	case *fsmpb.RemoveNode:
		return RemoveNode{Node: NodeID(w.GetNode()), Reason: w.GetReason()}
	case *fsmpb.CompleteBarrier:
		return CompleteBarrier{Restriction: w.GetRestriction(), Waited: texts[NodeID](w.GetWaited())}
	case *fsmpb.CreateClass, *fsmpb.UpdateClass, *fsmpb.DeleteClass, *fsmpb.SetKeyClass, *fsmpb.UpdateKey, *fsmpb.ExecuteDue, *fsmpb.RecordErasure:
		return lifecycleCommandFromWire(message)
	default:
		return ceremonyCommandFromWire(message)
	}
}

func ceremonyCommandFromWire(message proto.Message) Command {
	switch w := message.(type) {
	case *fsmpb.StartGenesis:
		return StartGenesis{
			ID: CeremonyID(w.GetId()), Nonce: w.GetNonce(), Roster: rosterFromWire(w.GetRoster()), Dealer: NodeID(w.GetDealer()),
			DealerBoot: w.GetDealerBoot(), DealerCommitment: w.GetDealerCommitment(), TTL: time.Duration(w.GetTtlNs()),
		}
	case *fsmpb.CommitEntropy:
		return CommitEntropy{
			Ceremony: CeremonyID(w.GetCeremony()), Custodian: CustodianName(w.GetCustodian()), Commitment: w.GetCommitment(),
			Signature: w.GetSignature(), RosterSignature: w.GetRosterSignature(),
		}
	case *fsmpb.RecordReveal:
		return RecordReveal{
			Ceremony: CeremonyID(w.GetCeremony()), Custodian: CustodianName(w.GetCustodian()), Matches: w.GetMatches(),
			Reason: w.GetReason(), Boot: w.GetBoot(),
		}
	case *fsmpb.PublishDeal:
		return PublishDeal{Ceremony: CeremonyID(w.GetCeremony()), Deal: dealFromWire(w.GetDeal()), Boot: w.GetBoot()}
	case *fsmpb.AcknowledgeShare:
		return AcknowledgeShare{
			Ceremony: CeremonyID(w.GetCeremony()), Custodian: CustodianName(w.GetCustodian()), Signature: w.GetSignature(),
		}
	case *fsmpb.StartUnseal:
		return StartUnseal{
			ID: CeremonyID(w.GetId()), Nonce: w.GetNonce(), Custodian: CustodianName(w.GetCustodian()),
			Signature: w.GetSignature(), TTL: time.Duration(w.GetTtlNs()),
		}
	case *fsmpb.RecordShareVerdict:
		return RecordShareVerdict{
			Ceremony: CeremonyID(w.GetCeremony()), Custodian: CustodianName(w.GetCustodian()), Node: NodeID(w.GetNode()),
			Accepted: w.GetAccepted(), Reason: w.GetReason(),
		}
	case *fsmpb.RecordNodeUnsealed:
		return RecordNodeUnsealed{
			Node: NodeID(w.GetNode()), Boot: w.GetBoot(), Generation: w.GetGeneration(), Ceremony: CeremonyID(w.GetCeremony()), Seen: w.GetSeen(),
		}
	case *fsmpb.AbortCeremony:
		return AbortCeremony{Ceremony: CeremonyID(w.GetCeremony()), Reason: w.GetReason()}
	case *fsmpb.StartRoster:
		return StartRoster{
			ID: CeremonyID(w.GetId()), Nonce: w.GetNonce(), Roster: rosterFromWire(w.GetRoster()), TTL: time.Duration(w.GetTtlNs()),
			Custodian: CustodianName(w.GetCustodian()), Signature: w.GetSignature(),
		}
	case *fsmpb.SignRoster:
		return SignRoster{Ceremony: CeremonyID(w.GetCeremony()), Custodian: CustodianName(w.GetCustodian()), Signature: w.GetSignature()}
	default:
		return useCommandFromWire(message)
	}
}
