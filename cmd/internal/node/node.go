// Package node composes a Conclave node out of its parts and runs it: configuration in, a serving process out.
package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/replica"
	"github.com/conclave-vault/conclave/vault/usage"
)

// node is a node under construction. Fields are set in the order of the methods in Run.
type node struct {
	cfg        config.Config
	version    string
	log        *slog.Logger
	plain      *slog.Logger // for cluster, which names the node itself
	token      token.Token
	membership vault.Membership
	journal    *journal.Journal
	replica    *replica.Replica
	usage      *usage.Log
	usageSync  func(*os.File) error // nil: an fsync
	cluster    *cluster.Node
	vault      *vault.Vault
	api        *transport.Server
	health     *health
	fatal      chan error
}

// Run runs a node until ctx ends or something fails for good.
func Run(ctx context.Context, cfg config.Config, version string, log *slog.Logger) error {
	n := &node{cfg: cfg, version: version, log: log.With("node", cfg.Node), plain: log, fatal: make(chan error, 1)}
	defer n.close()
	for _, step := range []func(context.Context) error{
		n.openToken, n.join, n.openJournal, n.openCluster, n.openAPI, n.openHealth,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return n.serve(ctx)
}

// openToken opens the HSM. A node that is about to join makes its keys there now.
func (n *node) openToken(context.Context) (err error) {
	_, member := loadMembership(n.cfg.DataDir)
	stranger := errors.Is(member, ErrNoCluster)
	if stranger && n.cfg.Join.TokenFile != "" {
		n.token, err = token.OpenOrCreate(n.cfg, n.log)
	} else {
		n.token, err = token.Open(n.cfg, n.log)
	}
	if stranger && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (%w)", ErrNoCluster, err)
	}
	if err != nil {
		return err
	}
	info := n.token.Info()
	n.log.Info("hsm opened", "backend", info.Backend, "model", info.Model, "library", info.Library, "serial", info.Serial)
	return nil
}

func (n *node) openJournal(context.Context) (err error) {
	n.journal, err = journal.Open(filepath.Join(n.cfg.DataDir, journalDir))
	if err != nil {
		return err
	}
	n.replica = replica.New(replica.Config{Journal: n.journal, Fatal: n.fail, Logger: n.log})
	return nil
}

// fail ends the node. Only the first reason counts.
func (n *node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

func (n *node) openCluster(context.Context) error {
	cfg, err := n.clusterConfig()
	if err != nil {
		return err
	}
	cfg.BootClock = lease.BootTime()
	warnOfClockSource("/", n.log)
	if n.cluster, err = cluster.New(cfg); err != nil {
		return err
	}
	n.replica.OnPublish(func(*fsm.State) { n.cluster.NotifyApplied() })
	if err = n.openUsage(cfg.Boot); err != nil {
		return err
	}
	n.vault, err = vault.New(n.vaultConfig(cfg.Boot))
	return err
}

func (n *node) openUsage(boot string) (err error) {
	n.usage, err = usage.Open(usage.Config{
		Dir: filepath.Join(n.cfg.DataDir, usageDir), Node: n.cfg.Node, Boot: boot, MaxBytes: int64(n.cfg.UsageLog.MaxMiB) << 20, Now: time.Now, Logger: n.log, Sync: n.usageSync,
	})
	return err
}

// clusterConfig says what this node is to the cluster; a new process each time it is called.
func (n *node) clusterConfig() (cluster.Config, error) {
	ca, err := x509.ParseCertificate(n.membership.NodeCA)
	if err != nil {
		return cluster.Config{}, fmt.Errorf("the cluster's authority in %s: %w", membershipFile, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	cert := n.certificate()
	_, founding := n.founding()
	gossip, err := n.gossip()
	if err != nil {
		return cluster.Config{}, err
	}
	cfg := cluster.Config{
		ID: cluster.NodeID(n.cfg.Node), ClusterID: n.membership.ClusterID, Boot: uuid.NewString(),
		DataDir: filepath.Join(n.cfg.DataDir, clusterDir), Bind: n.cfg.Cluster.Bind, Advertise: n.cfg.Cluster.Advertise,
		Certificate: func() *tls.Certificate { return cert }, Roots: roots,
		FSM: n.replica, Applied: n.replica.Applied, Floor: n.replica.Floor, Members: n.members, Reach: n.reach,
		Fenceable: func(index uint64) string { return n.replica.State().RestrictedKey(index) },
		Fence:     func(subject string, index uint64) error { return n.vault.Fence(subject, index) },
		Available: func() bool { return n.replica.State().HasAvailable() },
		Addresses: n.addresses(), Handler: n.handlePeer, JoinHandler: n.handleJoin, Bootstrap: founding,
		SnapshotThreshold: n.cfg.Snap.Threshold, TrailingLogs: n.cfg.Snap.TrailingLogs,
		SnapshotInterval: n.cfg.Snap.Interval, Gossip: gossip, Logger: n.plain,
	}
	if n.cfg.Network == "wan" {
		cfg.Timers, cfg.Lease = cluster.WAN(), wanLease()
	}
	return cfg, nil
}

// certificate is the node's, with the authority's behind it: a joining node knows only the authority's fingerprint.
func (n *node) certificate() *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{n.membership.Certificate, n.membership.NodeCA}, PrivateKey: n.token.Identity(),
	}
}

func (n *node) gossip() (*cluster.GossipConfig, error) {
	if n.cfg.Gossip.Bind == "" {
		return nil, nil
	}
	key, err := n.membership.GossipKey(n.token)
	if err != nil {
		return nil, err
	}
	return &cluster.GossipConfig{
		Bind: n.cfg.Gossip.Bind, Advertise: n.cfg.Gossip.Advertise, Key: key, Datacenter: n.cfg.Datacenter, APIAddr: n.cfg.API.Advertise,
		Peers: func(ctx context.Context) []string { return n.vault.GossipPeers(ctx) },
	}, nil
}

// members is what raft's configuration is brought to, and who of it serves.
func (n *node) members() []cluster.Member {
	var all []cluster.Member
	s := n.replica.State()
	for _, m := range s.Nodes() {
		all = append(all, cluster.Member{
			ID: cluster.NodeID(m.ID), Addr: m.ClusterAddr, Key: m.IdentityKey,
			Withheld: m.DrainedAt != 0, Drained: s.Standing(m) == fsm.StandingDrained, Leaving: m.RemovedAt,
			Incumbent: m.UnsealedBoot, Since: m.UnsealedAt,
		})
	}
	return all
}

// reach is the kind of leases under which the restriction at an index is acted against: what is tied to no key is waited for under
// the longest.
func (n *node) reach(index uint64) lease.Kind {
	if n.replica.State().LeaseOf(index) == fsm.LeaseAvailable {
		return lease.Available
	}
	return lease.Serving
}

func (n *node) addresses() map[cluster.NodeID]string {
	moved := map[cluster.NodeID]string{}
	for id, addr := range n.cfg.Peers {
		moved[cluster.NodeID(id)] = addr
	}
	return moved
}

func (n *node) handlePeer(ctx context.Context, from cluster.NodeID, kind string, payload []byte) ([]byte, error) {
	return n.vault.HandlePeer(ctx, fsm.NodeID(from), kind, payload)
}

func (n *node) handleJoin(ctx context.Context, payload []byte) ([]byte, error) {
	return n.vault.HandleJoin(ctx, payload)
}

func (n *node) vaultConfig(boot string) vault.Config {
	ports := consensus{n.cluster}
	return vault.Config{
		Node: fsm.NodeID(n.cfg.Node), Boot: boot, Version: n.version, ClusterAddr: n.cfg.Cluster.Advertise, APIAddr: n.cfg.API.Advertise,
		GossipAddr: n.cfg.Gossip.Advertise, Token: n.token, Keys: n.token, Replica: n.replica, Journal: n.journal, Usage: n.usage,
		Proposer: ports, Peers: ports, Lease: n.cluster.Lease, AvailableLease: n.cluster.AvailableLease, WantAvailableLease: n.cluster.WantAvailableLease,
		PersistMaster: n.cfg.Seal == "persistent", Now: time.Now, Logger: n.log,
	}
}

func (n *node) openAPI(context.Context) error {
	l, err := net.Listen("tcp", n.cfg.API.Bind)
	if err != nil {
		return fmt.Errorf("the port for clients: %w", err)
	}
	n.api = transport.New(transport.Config{
		Node: n.cfg.Node, Vault: n.vault, Listener: l, TLS: transport.TLS(n.certificate(), n.clientAuthorities), Logger: n.log,
	})
	return nil
}

// openHealth comes last: a node that is still joining is not well yet.
func (n *node) openHealth(context.Context) error {
	l, err := listenHealth(n.cfg.DataDir)
	if err != nil {
		return err
	}
	n.health = newHealth(l, n.cluster.Alive, n.vault.Ready, n.log)
	return nil
}

// clientAuthorities is the bundle of the state, or, before there is one, what the node was told when it joined.
func (n *node) clientAuthorities() *x509.CertPool {
	der := n.membership.ClientCA
	if s := n.replica.State(); s.Initialised() {
		der = s.Cluster().ClientCA
	}
	pool := x509.NewCertPool()
	if c, err := x509.ParseCertificate(der); err == nil {
		pool.AddCert(c)
	}
	return pool
}

// serve runs the parts until ctx ends or one of them does. They end in this order: clients first, so that nobody is promised
// anything more; then health, which asks the others; then vault, whose goroutines need the consensus; then the usage log, in which nobody
// records any more; then the consensus.
func (n *node) serve(ctx context.Context) error {
	failed := make(chan error, 6)
	start := func(name string, run func(context.Context) error) *part { return startPart(ctx, name, run, failed) }
	consensus := start("cluster", n.cluster.Run)
	uses := start("usage log", n.usage.Run)
	founding := start("founding", n.found)
	core := start("vault", n.vault.Run)
	api := start("api", n.api.Run)
	health := start("health", n.health.Run)
	n.log.Info("running", "api", n.cfg.API.Advertise, "cluster", n.cfg.Cluster.Advertise, "version", n.version)
	var reason error
	select {
	case <-ctx.Done():
	case reason = <-failed:
	case reason = <-n.fatal:
	}
	for _, p := range []*part{api, health, core, founding, uses, consensus} {
		reason = errors.Join(reason, p.stop())
	}
	return reason
}

// part is one component's goroutine. It has a context of its own, because the order in which parts end is not that of ctx.
type part struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func startPart(ctx context.Context, name string, run func(context.Context) error, failed chan<- error) *part {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := run(ctx)
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		case ctx.Err() != nil:
			p.err = fmt.Errorf("stopping %s: %w", name, err)
		case err == nil:
			failed <- fmt.Errorf("%s ended by itself", name)
		default:
			failed <- fmt.Errorf("%s: %w", name, err)
		}
	}()
	return p
}

func (p *part) stop() error {
	p.cancel()
	<-p.done
	return p.err
}

func (n *node) close() {
	if n.health != nil {
		if err := os.Remove(filepath.Join(n.cfg.DataDir, healthFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.log.Warn("removing the health socket", "err", err)
		}
	}
	if n.usage != nil {
		if err := n.usage.Close(); err != nil {
			n.log.Error("closing the usage log", "err", err)
		}
	}
	if n.journal != nil {
		if err := n.journal.Close(); err != nil {
			n.log.Error("closing the lifecycle log", "err", err)
		}
	}
	if n.token != nil {
		if err := n.token.Close(); err != nil {
			n.log.Error("closing the token", "err", err)
		}
	}
}
