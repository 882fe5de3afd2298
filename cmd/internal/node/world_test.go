package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/wholefile"
)

// world is a cluster in a bubble: the wiring of the program, over a network and a raft storage in memory, with real tokens and
// real journals. Its clock is the bubble's, so a minute costs what happens in it.
type world struct {
	t          *testing.T
	net        *clustertest.Network
	gates      map[fsm.NodeID]*gate // of state machines
	dir        string
	admin      policy.Caller
	custodians []*ceremony.Identity

	// Set before nodes start. tune and alter change what a node is made with.
	persistent bool
	dev        bool // the cluster is marked so: its classes take keys without hardware
	tune       func(*cluster.Config)
	alter      func(*process, *vault.Config)
	disk       func(*os.File) error // makes usage logs durable; nil: an fsync

	storage map[fsm.NodeID]*cluster.Storage
	copied  map[fsm.NodeID]string // data directories that are not the first of their nodes
	cuts    map[[2]string]bool

	mu    sync.Mutex
	nodes map[fsm.NodeID]*process

	reader atomic.Uint64 // how far a watch under way is
}

// lastMoment is the latest time of any bubble so far. Each begins at the same instant, but version 7 UUIDs, of which there is one
// generator for all bubbles, never go back: a bubble earlier than the one before it would make requests of the future.
var lastMoment time.Time

// inWorld runs f in a bubble and ends it with the audit. The bubble fails if a goroutine is left.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(lastMoment))
		defer func() { lastMoment = time.Now().Add(time.Minute) }()
		w := &world{
			t: t, net: clustertest.NewNetwork(), gates: map[fsm.NodeID]*gate{}, dir: t.TempDir(), storage: map[fsm.NodeID]*cluster.Storage{},
			copied: map[fsm.NodeID]string{}, cuts: map[[2]string]bool{}, nodes: map[fsm.NodeID]*process{},
		}
		w.net.SetLatency(time.Millisecond)
		defer w.stopAll()
		f(w)
		if !t.Failed() {
			w.audit()
		}
	})
}

// process is one life of a node.
type process struct {
	*node
	id    fsm.NodeID
	host  *clustertest.Host
	end   context.CancelFunc
	ended chan struct{}
	err   error
	slots chan struct{} // one for each use of its vault, so that the token outlives all of them
}

func logger() *slog.Logger {
	if os.Getenv("CONCLAVE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ctx() context.Context { return w.t.Context() }

// config of a node as its file would have it.
func (w *world) config(id fsm.NodeID) config.Config {
	seal := "ceremony"
	if w.persistent {
		seal = "persistent"
	}
	name := string(id)
	dir, copied := w.copied[id]
	if !copied {
		dir = filepath.Join(w.dir, name)
	}
	return config.Config{
		Node: name, Datacenter: "dc1", DataDir: dir, Seal: seal, Network: "lan",
		API: config.Endpoint{Bind: name + ":2", Advertise: name + ":2"}, Cluster: config.Endpoint{Bind: name + ":1", Advertise: name + ":1"},
	}
}

var pin = []byte("123456")

// cheap keeps the derivation of the keystore's key out of what is measured here.
var cheap = soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}}

func (w *world) newToken(id fsm.NodeID) *soft.Token {
	w.t.Helper()
	dir := w.config(id).DataDir
	w.must(os.MkdirAll(dir, 0o700))
	token, err := soft.Create(filepath.Join(dir, token.SoftFile), pin, cheap)
	w.must(err)
	return token
}

// found makes the cluster on its first node and starts it.
func (w *world) found(id fsm.NodeID) *process {
	w.t.Helper()
	token := w.newToken(id)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	f, cert, err := vault.Found(describe(w.config(id)), token, w.dev, vault.Administrator{Name: "root", Key: key.Public(), Life: 24 * time.Hour}, time.Now())
	w.must(err)
	w.admin = policy.Caller{Cluster: f.Membership.ClusterID, Role: fsm.RoleAdministrator, Name: "root", Serial: pki.Serial(cert)}
	w.must(wholefile.Replace(filepath.Join(w.config(id).DataDir, foundingFile), f.Entry))
	w.must(saveMembership(w.config(id).DataDir, f.Membership))
	w.must(token.Close())
	p := w.start(id)
	w.within(10*time.Second, "the cluster begins", func() bool { return p.replica.State().Initialised() && p.cluster.Lease().Valid() })
	return p
}

// start begins a life of a node, on the storage of the one before.
func (w *world) start(id fsm.NodeID) *process {
	w.t.Helper()
	return w.startOn(id, w.net.Host(string(id)))
}

func (w *world) startOn(id fsm.NodeID, host *clustertest.Host) *process {
	w.t.Helper()
	n := &node{cfg: w.config(id), version: "test", log: logger().With("node", string(id)), fatal: make(chan error, 1)}
	p := &process{node: n, id: id, host: host, ended: make(chan struct{}), slots: make(chan struct{}, 32)}
	var err error
	n.token, err = soft.Open(filepath.Join(n.cfg.DataDir, token.SoftFile), pin, cheap)
	w.must(err)
	w.must(n.join(w.ctx())) // it has a membership: nothing is called
	w.must(n.openJournal(w.ctx()))
	w.must(w.open(p))
	var ctx context.Context
	ctx, p.end = context.WithCancel(w.ctx())
	go p.run(ctx)
	w.mu.Lock()
	w.nodes[id] = p
	w.mu.Unlock()
	return p
}

// open is the node's openCluster, openAPI and openHealth on this world's network.
func (w *world) open(p *process) error {
	n := p.node
	cfg, err := n.clusterConfig()
	if err != nil {
		return err
	}
	if w.storage[p.id] == nil {
		w.storage[p.id] = clustertest.NewStorage()
	}
	cfg.Network, cfg.Storage, cfg.SnapshotInterval = p.host, w.storage[p.id], 2*time.Minute
	if w.gates[p.id] == nil {
		w.gates[p.id] = &gate{}
	}
	cfg.FSM = gatedFSM{n.replica, w.gates[p.id]}
	if w.tune != nil {
		w.tune(&cfg)
	}
	if n.cluster, err = cluster.New(cfg); err != nil {
		return err
	}
	n.replica.OnPublish(func(*fsm.State) { n.cluster.NotifyApplied() })
	n.usageSync = w.disk
	if err := n.openUsage(cfg.Boot); err != nil {
		return err
	}
	vc := n.vaultConfig(cfg.Boot)
	if w.alter != nil {
		w.alter(p, &vc)
	}
	if n.vault, err = vault.New(vc); err != nil {
		return err
	}
	listener, err := cfg.Network.Listen(n.cfg.API.Bind)
	if err != nil {
		return err
	}
	n.api = newAPI(n, listener)
	if listener, err = cfg.Network.Listen(string(p.id) + ":3"); err != nil { // a unix socket would stop the bubble's clock
		return err
	}
	n.health = newHealth(listener, n.cluster.Alive, n.vault.Ready, n.log)
	return nil
}

// run is a process: it serves until its context ends or something fails for good.
func (p *process) run(ctx context.Context) {
	defer close(p.ended)
	p.err = p.serve(ctx)
	for range cap(p.slots) { // every use of the vault has returned, and no other begins
		p.slots <- struct{}{}
	}
	p.close()
}

var errEnded = errors.New("the process has ended")

// use calls the vault of a process that may end meanwhile.
func (p *process) use(f func(*vault.Vault) error) error {
	select {
	case p.slots <- struct{}{}:
	case <-p.ended:
		return errEnded
	}
	defer func() { <-p.slots }()
	return f(p.vault)
}

// stop ends a node in good order.
func (w *world) stop(id fsm.NodeID) {
	w.t.Helper()
	w.finish(w.node(id))
}

// finish ends a process in good order.
func (w *world) finish(p *process) {
	w.t.Helper()
	p.end()
	// What goes on by itself would keep the bubble from ending for ever, so this ends everything, with all goroutines shown.
	watchdog := time.AfterFunc(time.Minute, func() { panic(string(p.id) + " does not stop") })
	defer watchdog.Stop()
	<-p.ended
	if p.err != nil && !errors.Is(p.err, context.Canceled) {
		w.t.Errorf("%s ended with: %v", p.id, p.err)
	}
}

// kill ends a node without a word to the others. It stays cut off until it is restarted.
func (w *world) kill(id fsm.NodeID) {
	w.t.Helper()
	w.isolate(id)
	w.net.Crash(string(id))
	w.stop(id)
}

func (w *world) restart(id fsm.NodeID) *process {
	w.t.Helper()
	w.rejoin(id)
	return w.start(id)
}

func (w *world) stopAll() {
	w.heal()
	for _, id := range w.ids() {
		w.stop(id)
	}
}

func (w *world) node(id fsm.NodeID) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[id]
}

func (w *world) ids() []fsm.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.nodes))
}

// live are the nodes whose present life goes on.
func (w *world) live() []*process {
	var all []*process
	for _, id := range w.ids() {
		select {
		case <-w.node(id).ended:
		default:
			all = append(all, w.node(id))
		}
	}
	return all
}

// cut stops everything from one node to another; links are lists of pairs so that each can be healed alone.
func (w *world) cut(from, to fsm.NodeID) {
	w.cuts[[2]string{string(from), string(to)}] = true
	w.net.Cut(string(from), string(to))
}

func (w *world) isolate(id fsm.NodeID) {
	for _, other := range w.ids() {
		if other != id {
			w.cut(id, other)
			w.cut(other, id)
		}
	}
}

// rejoin heals every link of a node.
func (w *world) rejoin(id fsm.NodeID) {
	maps.DeleteFunc(w.cuts, func(l [2]string, _ bool) bool { return l[0] == string(id) || l[1] == string(id) })
	w.net.Heal()
	for l := range w.cuts {
		w.net.Cut(l[0], l[1])
	}
}

func (w *world) heal() {
	clear(w.cuts)
	w.net.Heal()
}

// within polls until cond holds.
func (w *world) within(limit time.Duration, what string, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// never polls for d and fails if cond holds once.
func (w *world) never(d time.Duration, what string, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			w.t.Fatalf("happened within %s: %s", d, what)
		}
	}
}

// leader waits for one that serves, among the named or all live nodes.
func (w *world) leader(among ...fsm.NodeID) *process {
	w.t.Helper()
	var leader *process
	w.within(15*time.Second, "a leader", func() bool {
		for _, p := range w.live() {
			if (len(among) == 0 || slices.Contains(among, p.id)) && p.cluster.IsLeader() && p.cluster.Lease().Valid() {
				leader = p
				return true
			}
		}
		return false
	})
	return leader
}

// followers are the live nodes that do not lead.
func (w *world) followers() []*process {
	return slices.DeleteFunc(w.live(), func(p *process) bool { return p.cluster.IsLeader() })
}

// form makes a cluster of n1 … nN, all of them voters with a lease, sealed and without a master.
func (w *world) form(size int) *process {
	w.t.Helper()
	first := w.found("n1")
	for i := 2; i <= size; i++ {
		w.join(fsm.NodeID(fmt.Sprintf("n%d", i)), first)
	}
	w.within(30*time.Second, "all vote, and know it", func() bool {
		return !slices.ContainsFunc(w.live(), func(p *process) bool { return len(p.cluster.Voters()) != size })
	})
	w.serving(size)
	return first
}

func (w *world) serving(size int) {
	w.t.Helper()
	w.within(30*time.Second, "all hold leases", func() bool {
		return !slices.ContainsFunc(w.live(), func(p *process) bool { return !p.cluster.Lease().Valid() }) && len(w.live()) == size
	})
}

// open makes a cluster whose nodes have a master and are unsealed.
func (w *world) unsealed(size int) *process {
	w.t.Helper()
	first := w.form(size)
	w.genesis(first)
	w.unseal(w.ids()...)
	return first
}

// request makes a request id.
func request() fsm.RequestID { return fsm.RequestID(uuid.Must(uuid.NewV7()).String()) }

// sealed says whether this life of a node has no master open.
func (p *process) sealed() bool { return errors.Is(p.vault.Ready(), hsm.ErrSealed) }
