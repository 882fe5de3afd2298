package fsm

import "time"

// Entry is one proposal: what the log carries. Time is the leader's stamp; until the leader stamps it, it is zero.
type Entry struct {
	Command Command
	Actor   Actor
	// Credential is the serial of the client certificate behind Actor, empty for a node's own entries. An entry whose credential
	// is revoked when it is applied is refused: a role that was taken away ends nothing later than its acknowledgement.
	Credential  string
	RequestID   RequestID // empty for entries that nodes propose by themselves
	RequestHash [32]byte  // of the client's canonical request, not of Command (whose blob differs between nodes)
	Time        time.Time // UTC, millisecond precision
}

// EntryType numbers a command in the log. Numbers are never reused.
type EntryType uint32

// Command is one of the structs below; each has an entry type number that is never reused, and a must-understand flag.
type Command interface {
	// Restricting reports whether the acknowledgement must wait until every node has applied the entry.
	Restricting() bool
	entryType() EntryType
}

// InitCluster is the first entry of every log.
type InitCluster struct {
	ClusterID    string
	Dev          bool
	FeatureLevel uint32
	NodeCA       []byte
	ClientCA     []byte
	Node         Node
	Certificates []Certificate
}

// CreateJoinToken allows Node to join once before ExpiresAt.
type CreateJoinToken struct {
	ID        string
	Node      NodeID
	Hash      []byte
	ExpiresAt time.Time
}

// AdmitNode uses a token. Applying it again with the same identity key returns the same result.
type AdmitNode struct {
	TokenID   string
	TokenHash []byte
	Node      Node
}

// MoveNode is a member's word that it is called at other addresses now.
type MoveNode struct {
	Node        NodeID
	ClusterAddr string
	APIAddr     string
}

// DrainNode takes a member out of the serving set: it uses no key any more, and replicates and votes as before.
type DrainNode struct {
	Node   NodeID
	Reason string
}

// UndrainNode takes it back in.
type UndrainNode struct{ Node NodeID }

// RemoveNode drains a member, unless it is drained, and makes it no member once it is known to use no key any more.
type RemoveNode struct {
	Node   NodeID
	Reason string
}

// RaiseFeatureLevel takes the cluster to the next feature level; Nodes is what every member said when it was asked.
type RaiseFeatureLevel struct {
	Level uint32
	Nodes []NodeLevel
}

// DescribeDevice is a member's word that its HSM is another release now, or can do other things.
type DescribeDevice struct {
	Node   NodeID
	Device Device
}

// RecordCertificate precedes the release of every client certificate.
type RecordCertificate struct{ Certificate Certificate }

// RevokeCertificates takes a role away: every certificate recorded so far for Role and Name, or only Serial.
type RevokeCertificates struct {
	Role   Role
	Name   string
	Serial string // empty: all
	Reason string
}

// StartGenesis opens the genesis ceremony.
type StartGenesis struct {
	ID               CeremonyID
	Nonce            []byte
	Roster           Roster // version 1, without signatures
	Dealer           NodeID
	DealerBoot       string
	DealerCommitment []byte
	TTL              time.Duration
}

// CommitEntropy is a custodian's commitment and signature over the roster; two Ed25519 signatures that every replica verifies.
type CommitEntropy struct {
	Ceremony        CeremonyID
	Custodian       CustodianName
	Commitment      []byte
	Signature       []byte // over CommitmentMessage(ceremony, nonce, custodian, commitment)
	RosterSignature []byte // over RosterMessage(roster hash)
}

// RecordReveal is the dealing node's word that the custodian's value came and matches its commitment (or does not: the
// ceremony is aborted with Reason).
type RecordReveal struct {
	Ceremony  CeremonyID
	Custodian CustodianName
	Matches   bool
	Reason    string
	// Boot must be the ceremony's DealerBoot: the value lives in that process only, so no other can have compared it.
	Boot string
}

// PublishDeal ends the deal phase.
type PublishDeal struct {
	Ceremony CeremonyID
	Deal     Deal
	Boot     string // must be the ceremony's DealerBoot
}

// AcknowledgeShare is a custodian's signed word that its share verifies and is stored. The last one puts the roster and the
// master generation in force.
type AcknowledgeShare struct {
	Ceremony  CeremonyID
	Custodian CustodianName
	Signature []byte // over AcknowledgementMessage(ceremony, custodian, transcript)
}

// StartUnseal opens an unseal ceremony on a custodian's signed request, or returns the open one.
type StartUnseal struct {
	ID        CeremonyID
	Nonce     []byte
	Custodian CustodianName
	Signature []byte // over UnsealRequestMessage(cluster id, request nonce)
	TTL       time.Duration
}

// RecordShareVerdict is a node's finding on a share that a custodian sent.
type RecordShareVerdict struct {
	Ceremony  CeremonyID
	Custodian CustodianName
	Node      NodeID
	Accepted  bool
	Reason    string
}

// RecordNodeUnsealed says that Node, in the process Boot, opened the master. Ceremony is empty when a persistent master was
// restored. Refused if a seal order was applied after the state the node decided on (Seen).
type RecordNodeUnsealed struct {
	Node       NodeID
	Boot       string
	Generation uint32
	Ceremony   CeremonyID
	Seen       uint64
}

// AbortCeremony ends an open ceremony.
type AbortCeremony struct {
	Ceremony CeremonyID
	Reason   string
}

// StartRoster proposes the next roster version (other nodes, same custodians and threshold); SignRoster signs it. With
// threshold signatures it is in force.
type StartRoster struct {
	ID     CeremonyID
	Nonce  []byte
	Roster Roster
	TTL    time.Duration
	// Custodian's signature over RosterMessage(roster hash) authorises the start and counts.
	Custodian CustodianName
	Signature []byte
}

// SignRoster adds a custodian's signature.
type SignRoster struct {
	Ceremony  CeremonyID
	Custodian CustodianName
	Signature []byte
}

// SealCluster orders every node to seal.
type SealCluster struct{ Reason string }

// CreateKey makes a key with its first version, which becomes active by being committed.
type CreateKey struct {
	ID        KeyID
	Name      KeyName
	Algorithm string
	Class     string
	Labels    []Label
	Material  Material
	// ActivateAt and DeactivateAt are planned dates; zero: active at once, and as long as the class says.
	ActivateAt   time.Time
	DeactivateAt time.Time
	Description  string
	Purpose      string
	Links        []Link
}

// ImportKey makes a key whose first version was made elsewhere and came in wrapped to a one-time import key of a node's HSM. It differs from
// CreateKey in what is recorded: the version's origin, and the import key.
type ImportKey struct {
	Key       CreateKey
	ImportKey string // its id, "NODE/UUID"; for the lifecycle log
}

// ExportKey says, before it is so, that the material of a version leaves the cluster, wrapped to a recipient's key. Nothing leaves without it.
type ExportKey struct {
	Name      KeyName
	ID        KeyID
	Version   Version
	Form      string   // of wrapping, in hsm.Form's words
	Recipient [32]byte // SHA-256 of the recipient's SubjectPublicKeyInfo
}

// Material is a wrapped version as hsm.WrappedKey carries it.
type Material struct {
	Generation   uint32
	Exportable   bool
	HardwareSafe bool // made in a token with a hardware boundary
	PublicKey    []byte
	Blob         []byte
	MAC          []byte
}

// RotateKey adds Version, which must be the number after the last one, and makes it primary, at once or on a date.
type RotateKey struct {
	Name       KeyName
	ID         KeyID
	Version    Version
	Material   Material
	ActivateAt time.Time // zero: at once
}

// KeyAction names a change of state that users order.
type KeyAction string

const (
	ActionSuspend       KeyAction = "suspend"
	ActionResume        KeyAction = "resume"
	ActionDeactivate    KeyAction = "deactivate"
	ActionCompromise    KeyAction = "compromise"
	ActionRevoke        KeyAction = "revoke" // KMIP: compromised when the reason (ParseRevocation) is a compromise, else deactivated
	ActionDestroy       KeyAction = "destroy"
	ActionCancelDestroy KeyAction = "cancel-destroy"
	ActionActivate      KeyAction = "activate" // a pre-active version before its date, or without one
)

// ChangeKey applies Action to one version, or to every version it fits (Version 0).
type ChangeKey struct {
	Name       KeyName
	Version    Version
	Action     KeyAction
	Reason     string
	OccurredAt time.Time     // compromise only; zero: now
	After      time.Duration // destroy only; zero: the class minimum
}

// CompleteBarrier is the leader's word that the restriction committed at Restriction is in force everywhere.
type CompleteBarrier struct {
	Restriction uint64
	Waited      []NodeID
}
