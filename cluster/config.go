package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/cluster/store"
)

// NodeID names a node: raft server id, gossip name and certificate name are this string.
type NodeID string

// Member is a node that should be in raft's configuration and that serves, unless it says otherwise.
type Member struct {
	ID   NodeID
	Addr string // host:port of its cluster port
	Key  []byte // DER SubjectPublicKeyInfo of its certificates; nil: any that the CA has signed for its name
	// Withheld: it was ordered to serve nothing, and gets no lease.
	Withheld bool
	// Drained: that order is in force, so no later restriction waits for it.
	Drained bool
	// Leaving is the index of the restriction after which it is to leave raft's configuration; 0: it is not. That restriction is
	// acknowledged when it has left.
	Leaving uint64
	// Incumbent is the boot id of the process that serves as the member, empty if none has since it became one, and Since the index at which
	// it began to. No other process of the member may act on a lease; and the leader proposes that of none that is not Latest.
	Incumbent string
	Since     uint64
}

// Network is how a node listens and dials. Both ends speak TLS over what it returns.
type Network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Storage is where raft keeps its state. Closing is the business of whoever made it.
type Storage struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
}

// Timers of raft. The zero value is LAN().
type Timers struct {
	Heartbeat   time.Duration // a follower that hears nothing for so long asks for votes
	Election    time.Duration // a candidate without a result for so long asks again; ≥ Heartbeat
	LeaderLease time.Duration // a leader without contact to a majority for so long steps down; ≤ Heartbeat
	Commit      time.Duration // longest delay until followers hear of a commit without a barrier
}

// LAN is for nodes within a few milliseconds of each other.
func LAN() Timers {
	return Timers{
		Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond,
		LeaderLease: 250 * time.Millisecond, Commit: 50 * time.Millisecond,
	}
}

// WAN is for datacenters up to some 200 ms apart; combine it with a serving lease of 10 s.
func WAN() Timers {
	return Timers{
		Heartbeat: 2500 * time.Millisecond, Election: 2500 * time.Millisecond,
		LeaderLease: 1250 * time.Millisecond, Commit: 100 * time.Millisecond,
	}
}

// Limits of what crosses the cluster port.
const (
	// MaxMessageBytes bounds the payload of a call: the largest is a page of the catalog, and without a bound one peer could take
	// all memory.
	MaxMessageBytes = 8 << 20
	// MaxEntryBytes bounds the data of a log entry: 64 of them travel at once. The state machine's own limit is below it.
	MaxEntryBytes = 2 << 20
	// MaxJoinBytes bounds a join request and its reply: certificates and sealed secrets, from somebody unauthenticated.
	MaxJoinBytes = 256 << 10
)

// Config of a Node. Functions are called from many goroutines at once and must return promptly.
type Config struct {
	ID        NodeID
	ClusterID string
	Boot      string // random id of this process, never used by another

	// DataDir holds raft.db and the snapshots; unused if Storage is set. One process at a time.
	DataDir string
	// Bind is the host:port to listen on, Advertise what others dial; empty is the listener's address.
	Bind, Advertise string
	// Network is TCP if nil.
	Network Network
	// Storage is files in DataDir if nil.
	Storage *Storage
	// Sealer protects what Storage keeps of the log; store.Checksum{} if nil.
	Sealer store.Sealer

	// Certificate returns the node's certificate: the leaf first, the CA's own certificate last, because a joining node knows
	// nothing of the CA but its fingerprint. Called for every handshake.
	Certificate func() *tls.Certificate
	// Roots holds the cluster CA.
	Roots *x509.CertPool

	// FSM is fed commands only: barriers, no-ops and configurations never reach it. If it is a raft.BatchingFSM it gets batches.
	FSM raft.FSM
	// Applied is the index of the last command in the FSM's visible state.
	Applied func() uint64
	// Floor is the index of the last restriction in the visible state, or at which a process began to serve; at most Applied.
	Floor func() uint64
	// Reach is the kind of the longest leases under which the restriction at an index is acted against; Available if it is not
	// known. lease.Serving always, if nil.
	Reach func(index uint64) lease.Kind
	// Fenceable names what the pending restriction at an index is about, if a node can keep from just that; empty if not, and always if nil.
	Fenceable func(index uint64) string
	// Fence makes this node release nothing of a subject before the visible state includes index. What it returns nil for must hold when
	// it returns. Nil refuses all.
	Fence func(subject string, index uint64) error
	// Available says whether the visible state has anything to be used under leases of that kind. Once true it stays so. Never, if nil.
	Available func() bool
	// Members are the nodes that the visible state wants in the cluster; empty before it is initialised.
	Members func() []Member

	// Addresses say where nodes are found that have moved since the state was written; a node that is not here is where the state
	// says. Hints of the operator: who answers there must still have the right certificate.
	Addresses map[NodeID]string

	// Handler answers calls of other nodes and of this one. It must obey its context, and may return ErrNotLeader only if
	// nothing was done. Others learn an error's text.
	Handler func(ctx context.Context, from NodeID, kind string, payload []byte) ([]byte, error)
	// JoinHandler answers whoever can reach the port. Nil refuses everybody.
	JoinHandler func(ctx context.Context, payload []byte) ([]byte, error)

	// Bootstrap makes this node the first voter if raft has no state yet.
	Bootstrap bool
	// Timers is LAN() if zero.
	Timers Timers
	// Lease is lease.Default() if zero. Equal on every node.
	Lease lease.Config
	// SnapshotThreshold is how many entries after a snapshot make the next one due; 8192 if zero.
	SnapshotThreshold uint64
	// TrailingLogs is how many entries a snapshot leaves for followers that are a little behind; 10240 if zero.
	TrailingLogs uint64
	// SnapshotInterval is how often it is checked whether a snapshot is due; 2 minutes if zero.
	SnapshotInterval time.Duration

	// Gossip is off if nil.
	Gossip *GossipConfig
	// Logger is silent if nil.
	Logger *slog.Logger
	// Clock of leases; lease.Monotonic() if nil.
	Clock lease.Clock
	// BootClock goes on while the machine sleeps, and is what a lease is checked by before a result leaves. With it the machine's
	// clocks are compared all the time. Clock alone, if nil.
	BootClock lease.Clock
}

func (c *Config) setDefaults() {
	setDefault(&c.Timers, LAN())
	setDefault(&c.Lease, lease.Default())
	setDefault(&c.SnapshotThreshold, 8192)
	setDefault(&c.TrailingLogs, 10240)
	setDefault(&c.SnapshotInterval, 2*time.Minute)
	if c.Network == nil {
		c.Network = tcp{}
	}
	if c.Sealer == nil {
		c.Sealer = store.Checksum{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Reach == nil {
		c.Reach = func(uint64) lease.Kind { return lease.Serving }
	}
	if c.Fenceable == nil {
		c.Fenceable = func(uint64) string { return "" }
	}
	if c.Fence == nil {
		c.Fence = func(string, uint64) error { return errNoFences }
	}
	if c.Available == nil {
		c.Available = func() bool { return false }
	}
	if c.Clock == nil {
		c.Clock = lease.Monotonic()
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks what New cannot find out by trying.
func (c *Config) validate() error {
	required := []struct {
		name string
		ok   bool
	}{
		{"ID", validNodeID(c.ID)},
		{"ClusterID", c.ClusterID != ""},
		{"Boot", c.Boot != ""},
		{"DataDir or Storage", c.DataDir != "" || c.Storage != nil},
		{"Bind", c.Bind != ""},
		{"Certificate", c.Certificate != nil},
		{"Roots", c.Roots != nil},
		{"FSM", c.FSM != nil},
		{"Applied", c.Applied != nil},
		{"Floor", c.Floor != nil},
		{"Members", c.Members != nil},
		{"Handler", c.Handler != nil},
	}
	for _, r := range required {
		if !r.ok {
			return fmt.Errorf("%w: %s is missing or malformed", ErrConfig, r.name)
		}
	}
	if err := c.Lease.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.Gossip != nil {
		return c.Gossip.validate()
	}
	return nil
}
