package cluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
)

// world is a cluster in a bubble.
type world struct {
	t     *testing.T
	net   *clustertest.Network
	ca    *clustertest.Authority
	nodes map[cluster.NodeID]*process
	boots int
	tune  func(*cluster.Config)
}

// process is one life of a node, or its last.
type process struct {
	*cluster.Node
	id      cluster.NodeID
	reg     *register
	storage *cluster.Storage
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error
	calls   *callLog
}

// callLog counts the calls that a handler has handled.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

func (c *callLog) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, s)
}

func (c *callLog) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// inWorld runs f in a bubble, which fails if a goroutine is left when every node has ended.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: clustertest.NewNetwork(), ca: clustertest.NewAuthority(t, "test"), nodes: make(map[cluster.NodeID]*process)}
		defer w.end()
		f(t, w)
	})
}

func (w *world) end() {
	w.net.Heal()
	for id := range w.nodes {
		w.stop(id)
	}
}

func logger() *slog.Logger {
	if os.Getenv("CONCLAVE_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// config of a node in this world.
func (w *world) config(id cluster.NodeID, p *process) cluster.Config {
	cert := w.ca.Node(w.t, id)
	w.boots++
	return cluster.Config{
		ID: id, ClusterID: "test", Boot: fmt.Sprintf("boot-%d", w.boots), Storage: p.storage, Bind: string(id) + ":1",
		Network: w.net.Host(string(id)), Certificate: func() *tls.Certificate { return cert }, Roots: w.ca.Roots(),
		FSM: p.reg, Applied: p.reg.applied, Floor: p.reg.floor, Members: p.reg.members,
		Handler: p.handle, Bootstrap: id == "n1", Logger: logger(),
	}
}

// handle answers "echo", "fail", "propose" (a command), "wait" (for the context) and "late" (not leader).
func (p *process) handle(ctx context.Context, from cluster.NodeID, kind string, payload []byte) ([]byte, error) {
	p.calls.add(kind)
	switch kind {
	case "echo":
		return fmt.Appendf(nil, "%s to %s: %s", from, p.id, payload), nil
	case "propose":
		index, _, err := p.Propose(ctx, payload)
		return fmt.Appendf(nil, "%d", index), err
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return nil, errors.New("no such kind")
	}
}

// start starts a node, with the storage of its life before.
func (w *world) start(id cluster.NodeID) *process {
	w.t.Helper()
	p := &process{id: id, reg: newRegister(w.t), storage: clustertest.NewStorage(), ended: make(chan struct{}), calls: &callLog{}}
	if old := w.nodes[id]; old != nil {
		p.storage = old.storage
	}
	cfg := w.config(id, p)
	if w.tune != nil {
		w.tune(&cfg)
	}
	var err error
	if p.Node, err = cluster.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(w.t.Context())
	go func() {
		defer close(p.ended)
		p.err = p.Run(ctx)
	}()
	w.nodes[id] = p
	return p
}

// stop ends a node in good order, and checks that it takes no longer than it may.
func (w *world) stop(id cluster.NodeID) {
	w.t.Helper()
	p := w.nodes[id]
	began := time.Now()
	p.cancel()
	// What goes on by itself would keep the bubble from ending for ever, so this ends everything, with all goroutines shown.
	watchdog := time.AfterFunc(time.Minute, func() { panic(string(id) + " does not stop") })
	defer watchdog.Stop()
	<-p.ended
	if took := time.Since(began); took > 3*time.Second {
		w.t.Errorf("%s took %s to stop", id, took)
	}
	if p.err != nil {
		w.t.Errorf("%s ended with: %v", id, p.err)
	}
}

// kill ends a node without a word to the others.
func (w *world) kill(id cluster.NodeID) {
	w.t.Helper()
	w.net.Isolate(string(id), w.others(id)...)
	w.net.Crash(string(id))
	w.stop(id)
	w.net.Heal()
}

func (w *world) others(id cluster.NodeID) []string {
	var all []string
	for other := range w.nodes {
		if other != id {
			all = append(all, string(other))
		}
	}
	return all
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

// leader waits for a leader among the nodes that serves: it has a lease.
func (w *world) leader(among ...cluster.NodeID) *process {
	w.t.Helper()
	var leader *process
	w.within(10*time.Second, "a leader", func() bool {
		for id, p := range w.nodes {
			if (len(among) == 0 || contains(among, id)) && p.IsLeader() && p.Lease().Valid() {
				leader = p
				return true
			}
		}
		return false
	})
	return leader
}

func contains(ids []cluster.NodeID, id cluster.NodeID) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// form starts n1 … nN and waits until all vote and hold leases.
func (w *world) form(size int) *process {
	w.t.Helper()
	first := w.start("n1")
	w.leader()
	w.propose(first, "add n1 n1:1")
	for i := 2; i <= size; i++ {
		id := cluster.NodeID(fmt.Sprintf("n%d", i))
		w.start(id)
		w.propose(first, fmt.Sprintf("add %s %s:1", id, id))
	}
	w.within(10*time.Second, "all vote, and know it", func() bool {
		for _, p := range w.nodes {
			if len(p.Voters()) != size {
				return false
			}
		}
		return true
	})
	w.within(10*time.Second, "all hold leases", func() bool { return w.leases() == size })
	// What is acknowledged here is in every log, and so is the configuration before it.
	index := w.propose(first, "set formed")
	w.within(10*time.Second, "all have applied", func() bool {
		for _, p := range w.nodes {
			if p.reg.applied() < index {
				return false
			}
		}
		return true
	})
	return first
}

func (w *world) leases() (held int) {
	for _, p := range w.nodes {
		if p.Lease().Valid() {
			held++
		}
	}
	return held
}

func (w *world) propose(p *process, command string) uint64 {
	w.t.Helper()
	index, response, err := p.Propose(w.t.Context(), []byte(command))
	if err != nil {
		w.t.Fatalf("proposing %q on %s: %v", command, p.id, err)
	}
	if want := fmt.Sprintf("%d %s", index, command); response != want {
		w.t.Fatalf("response %v, want %q", response, want)
	}
	return index
}

// follower returns a voter that does not lead.
func (w *world) follower(not ...cluster.NodeID) *process {
	w.t.Helper()
	for _, id := range []cluster.NodeID{"n1", "n2", "n3", "n4", "n5"} {
		if p := w.nodes[id]; p != nil && !p.IsLeader() && !contains(not, id) {
			return p
		}
	}
	w.t.Fatal("no follower")
	return nil
}
