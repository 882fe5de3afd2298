package fsm

import (
	"slices"
	"time"
)

// Distinct names for distinct strings, so that the compiler keeps them apart.
type (
	// NodeID is a node's name: raft server id, gossip name and certificate name are this string.
	NodeID string
	// KeyID is a key's UUID in its canonical text form. It is never reused.
	KeyID string
	// KeyName is the path users give a key. It is never reused either: a tombstone keeps it.
	KeyName string
	// CeremonyID is a ceremony's UUID.
	CeremonyID string
	// Custodian names in a roster.
	CustodianName string
	// RequestID is a client's UUIDv7 in canonical text form.
	RequestID string
	// Version of a key, from 1. 0 means "every version" where a command allows it.
	Version uint32
)

// Actor is the verified identity on whose behalf an entry was proposed, as its URI: spiffe://CLUSTER/ROLE/NAME, where ROLE is
// administrator, user, custodian or node.
type Actor string

// Cluster is what InitCluster fixed.
type Cluster struct {
	ID           string
	Dev          bool // marked for demonstration: "HSM only" classes accept the soft token, thresholds of 1 are allowed
	FeatureLevel uint32
	NodeCA       []byte // DER certificate that signs nodes
	ClientCA     []byte // DER certificate that signs clients
	CreatedAt    time.Time
	// SealedAt is the index of the last seal order. A node unsealed at a lower index is sealed.
	SealedAt uint64
	// MasterGeneration in force; 0 before genesis.
	MasterGeneration uint32
}

// Node is a member of the cluster; of its serving set too, unless it was ordered to drain.
type Node struct {
	ID           NodeID
	Datacenter   string
	ClusterAddr  string // host:port of raft and node-to-node calls
	APIAddr      string // host:port for clients
	IdentityKey  []byte // DER SubjectPublicKeyInfo, P-256
	ExchangeKey  []byte // uncompressed P-256 point, 65 bytes
	Certificate  []byte // DER
	Device       Device
	Secrets      []byte // cluster secrets, HPKE-sealed to ExchangeKey
	JoinedAt     time.Time
	UnsealedBoot string // boot id that last reported an unseal, the incumbent; status asks the node itself whether it still is unsealed
	UnsealedAt   uint64 // index of that report; 0 never
	DrainedAt    uint64 // index of the order to use no key any more; 0 while it is of the serving set
	RemovedAt    uint64 // index of the order to remove it, which its barrier ends; 0 if there is none
}

// Device is what a node's HSM says of itself.
type Device struct {
	HSM          string // model, for people
	Library      string // module or library and its version, for people
	HardwareSafe bool
	Algorithms   []string     // whose keys can live their whole life there (hsm.Capability.Usable), sorted
	Lacks        []Lack       // what is missing of others, and why, sorted by algorithm
	Capabilities []Capability // in detail, sorted by algorithm; none in entries of older releases
}

// Equal reports whether d and o say the same.
func (d Device) Equal(o Device) bool {
	return d.HSM == o.HSM && d.Library == o.Library && d.HardwareSafe == o.HardwareSafe &&
		slices.Equal(d.Algorithms, o.Algorithms) && slices.EqualFunc(d.Lacks, o.Lacks, Lack.equal) &&
		slices.EqualFunc(d.Capabilities, o.Capabilities, Capability.equal)
}

// JoinToken admits one named node once. Only its hash is known here.
type JoinToken struct {
	ID        string
	Node      NodeID
	Hash      []byte // SHA-256 of the secret
	ExpiresAt time.Time
	UsedBy    []byte // identity key of the node that used it, nil while unused
	UsedAt    uint64 // index of the admission; a repeat gets it again
}

// Role of a client certificate.
type Role string

const (
	RoleAdministrator Role = "administrator"
	RoleUser          Role = "user"
)

// Certificate is a client certificate that the cluster issued. One that is not recorded here is nobody's.
type Certificate struct {
	Serial    string // lower-case hex
	Role      Role
	Name      string
	NotBefore time.Time
	NotAfter  time.Time
	IssuedAt  uint64 // index
	RevokedAt uint64 // index, 0 while good
	Reason    string
}

// Custodian is a member of a roster.
type Custodian struct {
	Name       CustodianName
	Recipient  string // age1…, the target of the share at rest
	SigningKey []byte // Ed25519 public key, 32 bytes
}

// Roster says who holds shares, how many are needed, and to which nodes' HSM keys a custodian's program may encrypt a share.
// A custodian's share number is its place in Custodians, from 1.
type Roster struct {
	Version    uint32 // from 1
	ClusterID  string
	Threshold  uint32
	Custodians []Custodian
	Nodes      []RosterNode
	Previous   [32]byte // hash of the version before; zero for the genesis roster
	Signatures []RosterSignature
}

// RosterNode pins a node's exchange key.
type RosterNode struct {
	ID          NodeID
	ExchangeKey []byte
}

// RosterSignature is an Ed25519 signature over RosterMessage(hash).
type RosterSignature struct {
	Custodian CustodianName
	Signature []byte
}

// Purpose of a ceremony.
type Purpose string

const (
	PurposeGenesis Purpose = "genesis"
	PurposeUnseal  Purpose = "unseal"
	PurposeRoster  Purpose = "roster" // a new roster version with the same custodians and other nodes
)

// Phase of a ceremony.
type Phase string

const (
	PhaseCommit      Phase = "commit"      // genesis: custodians commit to entropy and sign the roster
	PhaseReveal      Phase = "reveal"      // genesis: entropy goes, sealed, to the dealing node
	PhaseDeal        Phase = "deal"        // genesis: the dealing node deals
	PhaseAcknowledge Phase = "acknowledge" // genesis: custodians verify and acknowledge their shares
	PhaseShares      Phase = "shares"      // unseal: shares come in
	PhaseSign        Phase = "sign"        // roster: signatures come in
	PhaseDone        Phase = "done"
	PhaseAborted     Phase = "aborted"
)

// Ceremony is a replicated object: one at a time may be open for each purpose.
type Ceremony struct {
	ID        CeremonyID
	Purpose   Purpose
	Phase     Phase
	StartedBy Actor
	StartedAt time.Time
	// StartedIndex is the index of the entry that opened it: a node that reported an unseal later has done its part.
	StartedIndex uint64
	ExpiresAt    time.Time
	EndedAt      time.Time
	Reason       string // of an abort
	Nonce        []byte // 32 bytes
	Roster       Roster // genesis and roster: the proposed one

	// genesis
	Dealer           NodeID
	DealerBoot       string
	DealerCommitment []byte // SHA-256 commitment of the dealing HSM's random
	Steps            []CeremonyStep
	Commitments      []EntropyCommitment
	Deal             *Deal

	// unseal
	Verdicts []ShareVerdict
	Unsealed []NodeID // nodes that reported an unseal in this ceremony, in order
}

// CeremonyStep is one line of a ceremony's minutes.
type CeremonyStep struct {
	At     time.Time
	Index  uint64
	Who    string
	Action string
	Detail string
}

// EntropyCommitment is a custodian's part of a genesis. The entropy itself is never in the log.
type EntropyCommitment struct {
	Custodian    CustodianName
	Commitment   []byte // 32 bytes, see CommitmentMessage
	Signature    []byte
	Revealed     bool // the dealing node holds the value and it matches
	Acknowledged bool // the custodian verified and stored its share
}

// Deal is what the dealing node published. The commitments hide the secret only computationally.
type Deal struct {
	Generation  uint32
	Commitments [][]byte // Feldman: threshold compressed P-384 points
	Shares      []SealedShare
	Check       [][]byte // check values of the derived keys: wrap, wrap-export, bind
	Transcript  [32]byte // hash that every custodian recomputes
}

// SealedShare is a share encrypted to its custodian's age recipient.
type SealedShare struct {
	Custodian  CustodianName
	Ciphertext []byte
}

// ShareVerdict is what one node found of one custodian's share.
type ShareVerdict struct {
	Custodian CustodianName
	Node      NodeID
	Accepted  bool
	Reason    string
	At        time.Time
	Index     uint64
}

// Master is a generation in force: what a node needs to verify shares and the recovered secret.
type Master struct {
	Generation  uint32
	Threshold   uint32
	Commitments [][]byte
	Check       [][]byte
	Since       time.Time
	Ceremony    CeremonyID
}

// KeyState per version, NIST SP 800-57 Part 1 Rev. 5 §7.
type KeyState uint8

const (
	StateUnknown KeyState = iota
	StatePreActive
	StateActive
	StateSuspended
	StateDeactivated
	StateCompromised
	StateDestroyScheduled
	StateDestroying
	StateDestroyed
	StateDestroyedCompromised
)

// Key is a catalog entry. Slices are shared between snapshots: never modified in place.
type Key struct {
	ID        KeyID
	Name      KeyName
	Algorithm string
	Class     string
	Owner     Actor   // who created it
	Labels    []Label // sorted by name
	CreatedAt time.Time
	Primary   Version
	// NeverExportable: no version is exported any more, and none that can be is made. It is never taken back.
	NeverExportable bool
	Versions        []KeyVersion // ascending
	Revision        uint64       // index of the last change
	Barrier         Barrier
	Metadata        *Metadata // nil: none
}

// Label is a name and value that users attach to a key.
type Label struct{ Name, Value string }

// KeyVersion is one version of a key.
type KeyVersion struct {
	Version      Version
	State        KeyState
	Reason       string
	CreatedAt    time.Time
	ActivatedAt  time.Time
	ChangedAt    time.Time
	ChangedIndex uint64
	// CompromisedAt is when the compromise was recorded, OccurredAt when it is believed to have happened.
	CompromisedAt time.Time
	OccurredAt    time.Time
	// DestroyAt is due date while destroy-scheduled; Before the state to which a cancel returns.
	DestroyAt time.Time
	Before    KeyState

	Generation uint32
	Exportable bool
	// MadeInSoftware: the material was made in a token without a hardware boundary.
	MadeInSoftware bool
	// Imported: the material was made elsewhere, and may be known there.
	Imported    bool
	PublicKey   []byte       // DER SubjectPublicKeyInfo
	Blob        []byte       // RFC 5649; nil once it is being destroyed
	MAC         []byte       // binding MAC; likewise
	Dates       *Dates       // nil: none
	Destruction *Destruction // nil until it is being destroyed
}

// BarrierState tells whether a restriction is in force on every node.
type BarrierState uint8

const (
	BarrierNone BarrierState = iota
	BarrierPending
	BarrierDone
)

// Barrier is the restriction that a key underwent last.
type Barrier struct {
	State  BarrierState
	Index  uint64   // of the restricting entry
	Waited []NodeID // nodes that were waited for because they had not applied it when it was proposed, when done
}

// Event is a leaf of the lifecycle log.
type Event struct {
	Leaf      uint64 // place in the tree, from 0
	Index     uint64 // of the entry that caused it
	Time      time.Time
	Actor     Actor
	Action    string // for example "key.suspend"
	Subject   string // for example "key/payments/eu"
	SubjectID string // for example the key's UUID
	Version   Version
	From, To  string // states
	Reason    string
	RequestID RequestID
	Detail    string
}

// Tree is the RFC 6962 Merkle tree over all events.
type Tree struct {
	Size uint64
	Root [32]byte
}
