package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/replica"
	"github.com/conclave-vault/conclave/vault/usage"
)

// Config of a Vault. Every field is needed unless it says otherwise; a vault without a journal and a usage log cannot be built.
type Config struct {
	Node    fsm.NodeID
	Boot    string // random id of this process
	Version string // of the program, for status
	// ClusterAddr and APIAddr are where this node is called now; the state is told if it says otherwise.
	ClusterAddr, APIAddr string
	// GossipAddr is where this node gossips, told to nodes that ask; empty: it does not.
	GossipAddr string
	Token      hsm.Token
	Keys       guard.KeyUse
	Replica    *replica.Replica
	Journal    *journal.Journal
	// Usage is where each use of a key is recorded before its result leaves; whoever builds a vault runs it.
	Usage    *usage.Log
	Proposer Proposer
	Peers    Peers
	Lease    func() lease.Lease
	// AvailableLease is the longer lease for classes with fsm.LeaseAvailable, WantAvailableLease asks for one; none if nil.
	AvailableLease     func() lease.Lease
	WantAvailableLease func()
	// PersistMaster keeps the master on the token across restarts (setting seal: persistent).
	PersistMaster bool
	// CacheKeys bounds the working copies kept open; 0: 10 000.
	CacheKeys int
	// Now is the wall clock, for stamps and certificates only.
	Now    func() time.Time
	Logger *slog.Logger
}

func (c Config) validate() error {
	missing := map[string]bool{
		"Node": c.Node == "", "Boot": c.Boot == "", "Token": c.Token == nil, "Keys": c.Keys == nil, "Replica": c.Replica == nil,
		"Journal": c.Journal == nil, "Usage": c.Usage == nil, "Proposer": c.Proposer == nil, "Peers": c.Peers == nil, "Lease": c.Lease == nil,
		"Now": c.Now == nil, "Logger": c.Logger == nil,
	}
	for field, absent := range missing {
		if absent {
			return fmt.Errorf("vault: Config.%s is missing", field)
		}
	}
	return nil
}

// Vault is the heart of a node.
type Vault struct {
	cfg   Config
	log   *slog.Logger
	guard *guard.Guard
	// device is what this node's token says of itself; it does not change while a process runs.
	device fsm.Device

	unsealedAt atomic.Uint64              // index at which this process reported its unseal; 0 while sealed
	loss       atomic.Pointer[error]      // why the token sealed itself, until the next unseal or seal order
	compared   atomic.Pointer[comparison] // of clocks, the latest; nil until this node leads
	comparing  turn
	leadReady  atomic.Uint64 // the term for which this node, as leader, has applied everything before it

	mu       sync.Mutex
	dealing  map[fsm.CeremonyID]*dealing // genesis ceremonies that this process deals
	barriers map[uint64]bool             // restrictions that a goroutine is completing

	unsealing turn      // one seal, unseal or restore at a time
	gathering gathering // shares for the open unseal ceremony

	drained uint64 // order by which this node last gave back what it had in reserve; only follow touches it

	floor uint64 // last restriction that the key cache was checked against; only follow touches it

	// Work that is under way and need not be started again.
	genesis, describing, sealing, restoring, erasing, recording atomic.Bool

	deferred deferred // what was due and refused

	imports importKeys // one-time import keys in this node's token

	work chan func(context.Context) // background work for Run

	damaged chan uint64 // leaves that this disk does not give back as they were written, for tendLog
}

// New makes a vault and hooks it to its replica; call it before raft starts.
func New(cfg Config) (*Vault, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	v := &Vault{
		cfg: cfg, log: cfg.Logger, device: Device(cfg.Token), dealing: map[fsm.CeremonyID]*dealing{}, barriers: map[uint64]bool{},
		work: make(chan func(context.Context), maxBackground), damaged: make(chan uint64, damagedLeaves), unsealing: newTurn(), comparing: newTurn(),
	}
	cfg.Journal.IndexBy(subjectOf)
	v.guard = guard.New(guard.Config{
		Keys: cfg.Keys, Lease: cfg.Lease, Available: cfg.AvailableLease, WantAvailable: cfg.WantAvailableLease,
		State: cfg.Replica.State, Unsealed: v.mayUse, CatchUp: v.catchUp,
		CacheKeys: cfg.CacheKeys, ClusterID: v.clusterID,
		Node: cfg.Node, Boot: cfg.Boot, Reserve: v.reserveUse, Background: v.background, Uses: cfg.Usage,
	})
	v.cfg.Keys = nil // the guard has it, and nobody else
	cfg.Replica.OnPublish(v.guard.Unfence)
	return v, nil
}

// maxBackground bounds queued background work: barriers, a seal, an abort. What does not fit is found again by the next look
// at the state.
const maxBackground = 1024

// Run owns the vault's goroutines: it follows the state, completes restrictions and carries out what is due while this node leads, seals
// when ordered, restores a persistent master, erases what is destroyed, and keeps the lifecycle log on this disk whole.
func (v *Vault) Run(ctx context.Context) error {
	defer v.cfg.Replica.Stop() // whoever waits for a state of this node waits in vain from here on
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.follow(ctx) })
	g.Go(func() error { return v.restore(ctx) })
	g.Go(func() error { return v.tendLog(ctx) })
	g.Go(func() error { return v.watchClock(ctx) })
	g.Go(func() error { return v.schedule(ctx) })
	g.Go(func() error { return v.watchUses(ctx) })
	for {
		select {
		case f := <-v.work:
			g.Go(func() error { f(ctx); return nil })
		case <-ctx.Done():
			err := g.Wait()
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}

// background queues work for Run; false if the queue is full.
func (v *Vault) background(f func(context.Context)) bool {
	select {
	case v.work <- f:
		return true
	default:
		return false
	}
}

// once queues work unless it is queued or under way already. What fails is found again by the next look at the state.
func (v *Vault) once(busy *atomic.Bool, f func(context.Context)) {
	if !busy.CompareAndSwap(false, true) {
		return
	}
	queued := v.background(func(ctx context.Context) {
		defer busy.Store(false)
		f(ctx)
	})
	if !queued {
		busy.Store(false)
	}
}

// lookAgain is how often state is looked at without a change: leadership comes and goes without an entry.
const lookAgain = 500 * time.Millisecond

func (v *Vault) follow(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		changed := v.cfg.Replica.Changed()
		v.react(v.cfg.Replica.State())
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// react starts what a state demands. It never blocks.
func (v *Vault) react(s *fsm.State) {
	v.obeySeal(s)
	v.noticeLoss()
	v.dropForbidden(s)
	v.completeBarriers(s)
	v.followDealing(s)
	v.forgetShares()
	v.forgetImportKeys()
	v.reportSelf(s)
	v.returnDrained(s)
	v.beginUses(s)
}

func (v *Vault) dropForbidden(s *fsm.State) {
	if at := s.LastRestriction(); at > v.floor { // only follow reads and writes it
		v.floor = at
		v.guard.Forget(s)
	}
}

func (v *Vault) state() *fsm.State { return v.cfg.Replica.State() }

func (v *Vault) clusterID() string { return v.state().Cluster().ID }

// maxCatchUp bounds how long a caller waits until this node is where the leader was. A healthy one is there within a heartbeat;
// for one that is cut off or stuck another node is the better answer.
const maxCatchUp = 3 * time.Second

// catchUp returns when this node has applied what the leader had committed when it was called. ErrUnavailable if it does not
// get there in time.
func (v *Vault) catchUp(ctx context.Context) error {
	i, err := v.cfg.Proposer.ReadIndex(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxCatchUp)
	defer cancel()
	if err := v.waitApplied(ctx, i); err != nil {
		return fmt.Errorf("%w: it has not applied index %d: %w", ErrUnavailable, i, err)
	}
	return nil
}

func (v *Vault) waitApplied(ctx context.Context, index uint64) error {
	_, err := v.cfg.Replica.WaitFor(ctx, func(s *fsm.State) bool { return s.Applied() >= index })
	if errors.Is(err, replica.ErrStopped) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// current is a linearizable read: the state at or after the moment of the call.
func (v *Vault) current(ctx context.Context) (*fsm.State, error) {
	if err := v.catchUp(ctx); err != nil {
		return nil, err
	}
	s := v.state()
	if !s.Initialised() {
		return nil, ErrUninitialised
	}
	return s, nil
}
