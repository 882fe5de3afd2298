package cluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
	"github.com/conclave-vault/conclave/cluster/store"
)

// site is a node on real TCP and real files.
type site struct {
	*process
	t    *testing.T
	ca   *clustertest.Authority
	addr string
	cfg  cluster.Config
}

// noLeak fails the test if a goroutine is left at its end, or some seconds later: memberlist does not wait for its own probes.
func noLeak(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		end := time.Now().Add(10 * time.Second)
		for {
			err := goleak.Find(before) // takes its time itself
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Error(err)
				return
			}
		}
	})
}

func openSite(t *testing.T, change func(*cluster.Config)) *site {
	t.Helper()
	return openSiteOf(t, clustertest.NewAuthority(t, "test"), change)
}

func openSiteOf(t *testing.T, ca *clustertest.Authority, change func(*cluster.Config)) *site {
	t.Helper()
	s := &site{t: t, ca: ca}
	var cert *tls.Certificate
	p := &process{id: "n1", reg: newRegister(t), calls: &callLog{}}
	s.process = p
	s.cfg = cluster.Config{
		ID: "n1", ClusterID: "test", Boot: "one", DataDir: filepath.Join(t.TempDir(), "data"), Bind: freePort(t),
		Certificate: func() *tls.Certificate { return cert }, Roots: s.ca.Roots(),
		FSM: p.reg, Applied: p.reg.applied, Floor: p.reg.floor, Members: p.reg.members, Handler: p.handle,
		JoinHandler: func(_ context.Context, b []byte) ([]byte, error) {
			if string(b) == "bad" {
				return nil, errors.New("token is spent")
			}
			return append([]byte("welcome "), b...), nil
		},
		Bootstrap: true, Logger: logger(),
	}
	if change != nil {
		change(&s.cfg)
	}
	cert = s.ca.Node(t, s.cfg.ID)
	s.run()
	return s
}

// run starts the node, or its next life.
func (s *site) run() {
	s.t.Helper()
	var err error
	if s.Node, err = cluster.New(s.cfg); err != nil {
		s.t.Fatal(err)
	}
	s.addr = s.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.ended = cancel, make(chan struct{})
	go func() {
		defer close(s.ended)
		s.err = s.Run(ctx)
	}()
	s.t.Cleanup(s.end)
	if s.cfg.Bootstrap {
		s.until("leading", func() bool { return s.IsLeader() && s.Lease().Valid() })
	}
}

func (s *site) end() {
	s.t.Helper()
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(3 * time.Second):
		s.t.Fatal("not ended within three seconds")
	}
	if s.err != nil {
		s.t.Errorf("ended with: %v", s.err)
	}
}

func (s *site) until(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (s *site) set(value string) uint64 {
	s.t.Helper()
	index, _, err := s.Propose(s.t.Context(), []byte("set "+value))
	if err != nil {
		s.t.Fatal(err)
	}
	return index
}

// forget gives the next life a state machine of its own.
func (s *site) forget() {
	s.reg = newRegister(s.t)
	s.cfg.FSM, s.cfg.Applied, s.cfg.Floor, s.cfg.Members = s.reg, s.reg.applied, s.reg.floor, s.reg.members
}

func TestRestartOnFiles(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	index := s.set("x")
	s.end()
	s.forget()
	s.run()
	if err := s.WaitApplied(t.Context(), index); err != nil || s.reg.state.Load().Value != "x" {
		t.Errorf("%+v, %v", s.reg.state.Load(), err)
	}
	info, err := os.Stat(s.cfg.DataDir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info.Mode(), err)
	}
}

// TestUnfinishedSnapshotsAreRemoved: a process that was killed while it took one leaves what nobody reads again, and what is destroyed must not lie in.
func TestUnfinishedSnapshotsAreRemoved(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	s.set("x")
	s.end()
	left := filepath.Join(s.cfg.DataDir, "snapshots", "39-19660-1795863001612.tmp")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "state.bin"), []byte("a half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.forget()
	s.run()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestThreeNodesOnTCP joins three nodes with files on real sockets, and restarts one.
func TestThreeNodesOnTCP(t *testing.T) {
	noLeak(t)
	ca := clustertest.NewAuthority(t, "test")
	first := openSiteOf(t, ca, nil)
	add := func(s *site) {
		if _, err := s.CallLeader(t.Context(), "propose", []byte("add "+string(s.cfg.ID)+" "+s.addr)); err != nil {
			t.Fatal(err)
		}
	}
	add(first)
	var others []*site
	for _, id := range []cluster.NodeID{"n2", "n3"} {
		s := openSiteOf(t, ca, func(c *cluster.Config) { c.ID, c.Bootstrap = id, false })
		s.id = id
		if _, _, err := first.Propose(t.Context(), []byte("add "+string(id)+" "+s.addr)); err != nil {
			t.Fatal(err)
		}
		others = append(others, s)
	}
	first.until("three votes and three leases", func() bool {
		return len(first.Voters()) == 3 && others[0].Lease().Valid() && others[1].Lease().Valid()
	})
	restrict := func() time.Duration {
		began := time.Now()
		index, _, err := first.Propose(t.Context(), []byte("forbid x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited, err := first.AwaitRestriction(t.Context(), index); err != nil || len(waited) > 0 {
			t.Fatalf("waited for %v, %v", waited, err)
		}
		return time.Since(began)
	}
	fastest := time.Hour
	for range 20 {
		fastest = min(fastest, restrict())
	}
	t.Logf("fastest restriction: %s", fastest)
	index, err := others[0].ReadIndex(t.Context())
	if err != nil || index < first.reg.floor() {
		t.Errorf("read index %d, %v", index, err)
	}
	s := others[1]
	s.end()
	s.reg = newRegister(t)
	s.cfg.Boot, s.cfg.Bind = "three again", s.addr
	s.cfg.FSM, s.cfg.Applied, s.cfg.Floor, s.cfg.Members = s.reg, s.reg.applied, s.reg.floor, s.reg.members
	s.run()
	s.until("a lease after the restart", func() bool { return s.Lease().Valid() })
	if s.reg.floor() != first.reg.floor() {
		t.Errorf("it has a lease at floor %d, the leader is at %d", s.reg.floor(), first.reg.floor())
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	second := s.cfg
	second.Boot = "two"
	if _, err := cluster.New(second); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second start: %v", err)
	}
	s.set("x")
}

func TestDamagedFileIsAnErrorAtStart(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	s.set("marker-of-the-entry")
	s.end()
	path := filepath.Join(s.cfg.DataDir, "raft.db")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for i := range len(file) - 6 {
		if string(file[i:i+6]) == "marker" {
			file[i] ^= 1
			damaged++
		}
	}
	if damaged == 0 {
		t.Fatal("the entry is not in the file")
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := cluster.New(s.cfg); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("start on a damaged file: %v", err)
		n.Close()
	}
}

func TestCloseWithoutRun(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	s.end()
	n, err := cluster.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Run(t.Context()); !errors.Is(err, cluster.ErrRunning) {
		t.Errorf("run after close: %v", err)
	}
	if n, err = cluster.New(s.cfg); err != nil {
		t.Fatalf("close left something open: %v", err)
	}
	n.Close()
}

func TestTakenPortIsAnError(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	second := s.cfg
	second.DataDir, second.Bind = t.TempDir(), s.addr
	if _, err := cluster.New(second); err == nil {
		t.Error("two nodes on one port")
	}
	if _, err := store.OpenBolt(filepath.Join(second.DataDir, "raft.db")); err != nil {
		t.Errorf("the failed start left its storage open: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	for name, change := range map[string]func(*cluster.Config){
		"no id":           func(c *cluster.Config) { c.ID = "" },
		"id with a slash": func(c *cluster.Config) { c.ID = "n/1" },
		"id in capitals":  func(c *cluster.Config) { c.ID = "N1" },
		"long id": func(c *cluster.Config) {
			c.ID = "n123456789012345678901234567890123456789012345678901234567890123"
		},
		"no cluster":     func(c *cluster.Config) { c.ClusterID = "" },
		"no boot":        func(c *cluster.Config) { c.Boot = "" },
		"no directory":   func(c *cluster.Config) { c.DataDir = "" },
		"no handler":     func(c *cluster.Config) { c.Handler = nil },
		"no members":     func(c *cluster.Config) { c.Members = nil },
		"no certificate": func(c *cluster.Config) { c.Certificate = nil },
		"chain without its CA": func(c *cluster.Config) {
			leaf := s.ca.Node(t, "n1")
			leaf.Certificate = leaf.Certificate[:1]
			c.Certificate = func() *tls.Certificate { return leaf }
		},
		"bad lease":      func(c *cluster.Config) { c.Lease.D = time.Hour },
		"gossip key":     func(c *cluster.Config) { c.Gossip = &cluster.GossipConfig{Bind: "127.0.0.1:1", Key: []byte("short")} },
		"gossip address": func(c *cluster.Config) { c.Gossip = &cluster.GossipConfig{Bind: "nowhere", Key: make([]byte, 32)} },
	} {
		cfg := s.cfg
		change(&cfg)
		if _, err := cluster.New(cfg); !errors.Is(err, cluster.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
