package transport_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/transport"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/replica"
	"github.com/conclave-vault/conclave/vault/usage"
)

// solo is a cluster of one real node without a disk log: its consensus is a counter, because one node always agrees with itself.
// Token, state machine, journal, vault and server are the real ones.
type solo struct {
	t        testing.TB
	id       string
	nodes    *pki.Authority
	clients  *pki.Authority
	token    *soft.Token
	replica  *replica.Replica
	vault    *vault.Vault
	addr     string
	log      *syncLog
	accepted atomic.Int64
	index    atomic.Uint64
	ahead    atomic.Uint64 // how much the leader has committed that is not applied here
	applying sync.Mutex
}

func newSolo(t testing.TB) *solo {
	t.Helper()
	s := &solo{t: t, id: uuid.NewString(), log: &syncLog{}}
	s.nodes, s.clients = authority(t, s.id, "node"), authority(t, s.id, "client")
	s.openVault()
	s.serve()
	return s
}

func authority(t testing.TB, cluster, purpose string) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(cluster, purpose, time.Now())
	must(t, err)
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *solo) openVault() {
	s.t.Helper()
	dir := s.t.TempDir()
	var err error
	// The cheapest PIN stretching: nobody attacks this keystore.
	s.token, err = soft.Create(filepath.Join(dir, "token"), []byte("1234"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, s.token.Close()) })
	j, err := journal.Open(filepath.Join(dir, "log"))
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, j.Close()) })
	quiet := slog.New(slog.DiscardHandler)
	uses, err := usage.Open(usage.Config{Dir: filepath.Join(dir, "usage"), Node: "n1", Boot: "boot", Now: time.Now, Logger: quiet})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, uses.Close()) })
	s.replica = replica.New(replica.Config{Journal: j, Fatal: func(err error) { s.t.Error(err) }, Logger: quiet})
	s.vault, err = vault.New(vault.Config{
		Node: "n1", Boot: "boot", ClusterAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2", Token: s.token, Keys: s.token, Replica: s.replica, Journal: j, Usage: uses,
		Proposer: s, Peers: s, Lease: func() lease.Lease { return lease.Lease{} }, Now: time.Now, Logger: quiet,
	})
	must(s.t, err)
	s.found()
}

// found makes the first entry as a founding does, but with authorities that the test keeps, to sign certificates that no cluster would.
func (s *solo) found() {
	s.t.Helper()
	n, err := vault.Description{ID: "n1", ClusterAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2"}.Describe(s.token)
	must(s.t, err)
	n.JoinedAt = time.Now()
	entry, err := fsm.EncodeEntry(fsm.Entry{Actor: fsm.Actor("spiffe://" + s.id + "/node/n1"), Command: fsm.InitCluster{
		ClusterID: s.id, Dev: true, FeatureLevel: 1, NodeCA: s.nodes.Certificate.Raw, ClientCA: s.clients.Certificate.Raw, Node: n,
	}}.Stamped(time.Now()))
	must(s.t, err)
	s.apply(entry)
}

func (s *solo) apply(entry []byte) {
	s.t.Helper()
	r, err := s.Propose(context.Background(), entry)
	must(s.t, err)
	if result, ok := r.(fsm.Result); !ok || result.Code != fsm.CodeOK {
		s.t.Fatalf("%v", r)
	}
}

func (s *solo) serve() {
	s.t.Helper()
	leaf, err := s.nodes.IssueNode(pki.ID{Cluster: s.id, Role: "node", Name: "n1"}, s.token.Identity().Public(), []string{"127.0.0.1"}, time.Now())
	must(s.t, err)
	pool := x509.NewCertPool()
	pool.AddCert(s.clients.Certificate)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.t, err)
	s.addr = l.Addr().String()
	server := transport.New(transport.Config{
		Node: "n1", Vault: s.vault, Listener: countingListener{l, &s.accepted}, Logger: slog.New(slog.NewJSONHandler(s.log, nil)),
		TLS: transport.TLS(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: s.token.Identity()}, func() *x509.CertPool { return pool }),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		must(s.t, <-ended)
	})
}

// countingListener counts connections.
type countingListener struct {
	net.Listener
	accepted *atomic.Int64
}

func (c countingListener) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// syncLog is a log that may be read while it is written.
type syncLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *syncLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *syncLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// record makes a certificate known to the state, as issuing does.
func (s *solo) record(c *x509.Certificate, role fsm.Role, name string) {
	s.t.Helper()
	e, err := fsm.EncodeEntry(fsm.Entry{
		Actor: fsm.Actor("spiffe://" + s.id + "/node/n1"), RequestID: fsm.RequestID(uuid.Must(uuid.NewV7()).String()),
		Command: fsm.RecordCertificate{Certificate: fsm.Certificate{Serial: pki.Serial(c), Role: role, Name: name, NotBefore: c.NotBefore, NotAfter: c.NotAfter}},
	}.Stamped(time.Now()))
	must(s.t, err)
	s.apply(e)
}

// named is the id of somebody of this cluster.
func (s *solo) named(role, name string) pki.ID { return pki.ID{Cluster: s.id, Role: role, Name: name} }

// issue makes a client's certificate as the cluster would.
func (s *solo) issue(a *pki.Authority, id pki.ID, life time.Duration, now time.Time) tls.Certificate {
	s.t.Helper()
	key := newKey(s.t)
	var serial [16]byte
	_, err := rand.Read(serial[:])
	must(s.t, err)
	c, err := a.IssueClient(id, key.Public(), serial, life, now)
	must(s.t, err)
	return pair(c, key)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func pair(c *x509.Certificate, key crypto.Signer) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// The ports of a cluster of one.

func (s *solo) Propose(_ context.Context, entry []byte) (any, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.replica.Apply(&raft.Log{Type: raft.LogCommand, Index: s.index.Add(1), Data: entry}), nil
}

func (s *solo) Forward(ctx context.Context, kind string, payload []byte) ([]byte, error) {
	return s.vault.HandlePeer(ctx, "n1", kind, payload)
}

func (s *solo) Call(context.Context, fsm.NodeID, string, []byte) ([]byte, error) {
	return nil, io.ErrUnexpectedEOF
}
func (s *solo) Barrier(context.Context) error { return nil }
func (s *solo) ReadIndex(context.Context) (uint64, error) {
	return s.replica.Applied() + s.ahead.Load(), nil
}
func (s *solo) AwaitRestriction(context.Context, uint64) ([]fsm.NodeID, error) { return nil, nil }
func (s *solo) Latest(fsm.NodeID, string) error                                { return nil }
func (s *solo) IsLeader() bool                                                 { return true }
func (s *solo) Leader() (fsm.NodeID, bool)                                     { return "n1", true }
func (s *solo) Term() uint64                                                   { return 1 }
func (s *solo) Voters() []fsm.NodeID                                           { return []fsm.NodeID{"n1"} }
func (s *solo) Gossip(fsm.NodeID) string                                       { return "alive" }
