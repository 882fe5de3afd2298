package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// clock is moved by tests.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Duration      { return time.Duration(c.now.Load()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }

// node is a guard over a real token, a real state machine and a real lease, with every step in the test's hand.
type node struct {
	t        testing.TB
	clock    *clock
	holder   *lease.Holder
	table    *lease.Table
	machine  *fsm.Machine
	token    *soft.Token
	opened   atomic.Int32
	guard    *guard.Guard
	admin    policy.Caller
	cluster  string
	index    uint64
	caught   atomic.Int32
	catchUp  func() error
	sealed   atomic.Bool
	between  func() // runs inside the HSM call
	loaded   func() // runs when a check has loaded the state
	uses     string // the folder of the usage log
	log      *usage.Log
	stopUses func()
	syncing  atomic.Pointer[func()] // runs while the usage log is made durable
}

// countingKeys counts unwraps.
type countingKeys struct {
	keyuse.Port
	opened *atomic.Int32
}

func (c countingKeys) Open(ctx context.Context, k hsm.WrappedKey) (keyuse.Key, error) {
	c.opened.Add(1)
	return c.Port.Open(ctx, k)
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, clock: &clock{}, machine: fsm.New()}
	n.clock.advance(time.Hour)
	token, err := soft.Create(filepath.Join(t.TempDir(), "token"), []byte("1234"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	n.token = token
	n.found()
	n.holder = lease.NewHolder("n1", "boot", n.clock)
	n.table = lease.NewTable(lease.Default(), n.clock, 1, n.clock.Now(), []string{"n1"})
	n.renew()
	n.guard = guard.New(guard.Config{
		Uses: n.recording(),
		Keys: countingKeys{token, &n.opened}, Lease: n.holder.Lease, State: n.state, CacheKeys: 2, ClusterID: func() string { return n.cluster },
		Available: n.holder.Available, WantAvailable: n.holder.Want,
		Unsealed: func(*fsm.State) error {
			if n.sealed.Load() {
				return hsm.ErrSealed
			}
			return nil
		},
		CatchUp: func(context.Context) error {
			n.caught.Add(1)
			if n.catchUp != nil {
				return n.catchUp()
			}
			return nil
		},
	})
	return n
}

// recording opens a usage log and writes it until the test ends.
func (n *node) recording() *usage.Log {
	n.t.Helper()
	n.uses = filepath.Join(n.t.TempDir(), "usage")
	l, err := usage.Open(usage.Config{
		Dir: n.uses, Node: "n1", Boot: "boot", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Sync: func(f *os.File) error {
			if do := n.syncing.Load(); do != nil {
				(*do)()
			}
			return f.Sync()
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	n.stopUses = sync.OnceFunc(func() {
		end()
		if err := <-done; !errors.Is(err, context.Canceled) {
			n.t.Errorf("the usage log: %v", err)
		}
	})
	n.t.Cleanup(n.stopUses)
	n.log = l
	return l
}

func (n *node) state() *fsm.State {
	s := n.machine.State()
	if n.loaded != nil {
		n.loaded()
	}
	return s
}

func (n *node) found() {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	f, cert, err := vault.Found(vault.Description{ID: "n1", ClusterAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2"}, n.token, true,
		vault.Administrator{Name: "root", Key: key.Public(), Life: time.Hour}, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	n.cluster = f.Membership.ClusterID
	n.admin = policy.Caller{Cluster: n.cluster, Role: fsm.RoleAdministrator, Name: "root", Serial: pki.Serial(cert)}
	n.applyRaw(f.Entry)
	n.genesis()
}

// genesis holds the smallest ceremony: one custodian, whose one share is the threshold (the cluster is marked dev).
func (n *node) genesis() {
	n.t.Helper()
	must := func(err error) {
		n.t.Helper()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	alice, err := ceremony.NewIdentity("alice")
	must(err)
	member, _ := n.machine.State().Node("n1")
	roster := fsm.Roster{
		Version: 1, ClusterID: n.cluster, Threshold: 1, Custodians: []fsm.Custodian{alice.Public()},
		Nodes: []fsm.RosterNode{{ID: "n1", ExchangeKey: member.ExchangeKey}},
	}
	id, nonce := fsm.CeremonyID(uuid.NewString()), make([]byte, 32)
	dealer := ceremony.DealerCommitment(id, nonce, "n1", make([]byte, 32))
	n.apply(fsm.StartGenesis{ID: id, Nonce: nonce, Roster: roster, Dealer: "n1", DealerBoot: "boot", DealerCommitment: dealer[:], TTL: time.Hour})
	commitment := ceremony.CommitEntropy(id, nonce, "alice", [32]byte{1})
	n.apply(fsm.CommitEntropy{
		Ceremony: id, Custodian: "alice", Commitment: commitment[:], RosterSignature: alice.Sign(fsm.RosterMessage(fsm.RosterHash(roster))),
		Signature: alice.Sign(fsm.CommitmentMessage(id, nonce, "alice", commitment[:])),
	})
	n.apply(fsm.RecordReveal{Ceremony: id, Boot: "boot", Custodian: "alice", Matches: true})
	c, _ := n.machine.State().Ceremony(id)
	secret, err := ceremony.HashToSecret(make([]byte, 32), [][]byte{append([]byte{1}, make([]byte, 31)...)}, ceremony.EntropyTranscript(c))
	must(err)
	master, err := hsm.DeriveMaster(secret, n.cluster, 1)
	must(err)
	check, err := master.Check()
	must(err)
	shares, commitments, err := ceremony.Deal(secret, 1, 1)
	must(err)
	sealed, err := ceremony.SealShareToCustodian(alice.Public().Recipient, shares[0], ceremony.Info{ClusterID: n.cluster, Ceremony: id, Custodian: "alice"})
	must(err)
	transcript := ceremony.Transcript(c, commitments)
	n.apply(fsm.PublishDeal{Ceremony: id, Boot: "boot", Deal: fsm.Deal{
		Generation: 1, Commitments: commitments, Check: check.List(), Transcript: transcript,
		Shares: []fsm.SealedShare{{Custodian: "alice", Ciphertext: sealed}},
	}})
	n.apply(fsm.AcknowledgeShare{Ceremony: id, Custodian: "alice", Signature: alice.Sign(fsm.AcknowledgementMessage(id, "alice", transcript))})
	must(n.token.ImportMaster(context.Background(), master, nil))
}

// renew gets a lease: a first round may bring only the evidence that the grantor still leads.
func (n *node) renew() {
	n.t.Helper()
	for range 2 {
		g, err := n.table.Renew(n.holder.Renew(func() uint64 { return 1 }, n.machine.Applied), n.machine.State().LastRestriction)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := n.holder.Install(g, n.machine.Applied); err != nil && !g.Zero() {
			n.t.Fatal(err)
		}
	}
	if !n.holder.Lease().Valid() {
		n.t.Fatal("no lease after two renewals")
	}
}

func (n *node) applyRaw(data []byte) fsm.Result {
	n.t.Helper()
	n.index++
	r, _, err := n.machine.Apply(n.index, data)
	if err != nil {
		n.t.Fatal(err)
	}
	n.machine.Publish()
	return r
}

func (n *node) apply(c fsm.Command) {
	n.t.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{
		Command: c, Actor: n.admin.Actor(), RequestID: fsm.RequestID(uuid.Must(uuid.NewV7()).String()),
	}.Stamped(time.Now()))
	if err != nil {
		n.t.Fatal(err)
	}
	if r := n.applyRaw(data); r.Code != fsm.CodeOK {
		n.t.Fatalf("%T: %s %s", c, r.Code, r.Message)
	}
}

// create makes a key and puts it into the state; the name is the path.
func (n *node) create(name fsm.KeyName, alg hsm.Algorithm, users string) {
	n.t.Helper()
	n.apply(n.newKey(name, alg, users))
}

func (n *node) newKey(name fsm.KeyName, alg hsm.Algorithm, users string) fsm.CreateKey {
	n.t.Helper()
	id := uuid.NewString()
	w, err := n.token.Generate(context.Background(), hsm.Binding{ClusterID: n.cluster, KeyID: id, Version: 1, Algorithm: alg}, false)
	if err != nil {
		n.t.Fatal(err)
	}
	c := fsm.CreateKey{ID: fsm.KeyID(id), Name: name, Algorithm: string(alg), Material: fsm.Material{
		Generation: w.Binding.Generation, PublicKey: w.Binding.PublicKey, Blob: w.Blob, MAC: w.MAC,
	}}
	if users != "" {
		c.Labels = []fsm.Label{{Name: "users", Value: users}}
	}
	return c
}

func (n *node) user(name string) policy.Caller {
	serial := "0" + uuid.NewString()[:7]
	n.apply(fsm.RecordCertificate{Certificate: fsm.Certificate{
		Serial: serial, Role: fsm.RoleUser, Name: name, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}})
	return policy.Caller{Cluster: n.cluster, Role: fsm.RoleUser, Name: name, Serial: serial}
}

// sign signs through the guard; released tells whether the guard let the result out.
func (n *node) sign(c policy.Caller, name fsm.KeyName) error {
	n.t.Helper()
	var signature []byte
	s, err := n.guard.Use(context.Background(), guard.Request{Caller: c, Op: fsm.OpSign, Name: name},
		func(ctx context.Context, k guard.Key, _ guard.Selected) (err error) {
			signature, err = k.Sign(ctx, hsm.SignInput{Message: []byte("m")})
			if n.between != nil {
				n.between()
			}
			return err
		})
	if err != nil {
		return err
	}
	alg := hsm.Algorithm(s.Key.Algorithm)
	if err := hsm.Verify(alg, hsm.SignInput{Message: []byte("m")}, s.Version.PublicKey, signature); err != nil {
		n.t.Errorf("a released signature does not verify: %v", err)
	}
	return nil
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

func TestUse(t *testing.T) {
	n := newNode(t)
	n.create("pay", hsm.ECDSAP256, "")
	want(t, n.sign(n.admin, "pay"), nil)
	want(t, n.sign(n.admin, "pay"), nil)
	if got := n.opened.Load(); got != 1 {
		t.Errorf("unwrapped %d times, the second use should find the working copy", got)
	}
	if n.caught.Load() != 0 {
		t.Error("a positive answer asked the leader")
	}
}

func TestNoLeaseNoUse(t *testing.T) {
	n := newNode(t)
	n.create("pay", hsm.ECDSAP256, "")
	n.clock.advance(lease.Default().D)
	want(t, n.sign(n.admin, "pay"), guard.ErrNoLease)
	n.renew()
	want(t, n.sign(n.admin, "pay"), nil)
}

// TestLeaseEndsDuringTheCall is the second check's first reason: the result of a call that outlived the lease stays inside.
func TestLeaseEndsDuringTheCall(t *testing.T) {
	n := newNode(t)
	n.create("pay", hsm.ECDSAP256, "")
	n.between = func() { n.clock.advance(lease.Default().D) }
	want(t, n.sign(n.admin, "pay"), guard.ErrNoLease)
}

// TestRestrictionDuringTheCall is its second reason: what was forbidden while the HSM worked is not released, for every kind of
// restriction.
func TestRestrictionDuringTheCall(t *testing.T) {
	change := func(a fsm.KeyAction) func(*node, policy.Caller) {
		return func(n *node, _ policy.Caller) { n.apply(fsm.ChangeKey{Name: "pay", Action: a, Reason: "superseded"}) }
	}
	for name, c := range map[string]struct {
		restrict func(*node, policy.Caller)
		want     error
	}{
		"suspend":    {change(fsm.ActionSuspend), guard.ErrKeyState},
		"deactivate": {change(fsm.ActionDeactivate), guard.ErrKeyState},
		"compromise": {change(fsm.ActionCompromise), guard.ErrKeyState},
		"revoke":     {change(fsm.ActionRevoke), guard.ErrKeyState},
		"role": {func(n *node, u policy.Caller) {
			n.apply(fsm.RevokeCertificates{Role: u.Role, Name: u.Name, Reason: "left"})
		}, policy.ErrUnauthenticated},
		"seal": {func(n *node, _ policy.Caller) { n.sealed.Store(true) }, hsm.ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.create("pay", hsm.Ed25519, "bob")
			bob := n.user("bob")
			want(t, n.sign(bob, "pay"), nil)
			n.between = sync.OnceFunc(func() { c.restrict(n, bob) })
			want(t, n.sign(bob, "pay"), c.want)
		})
	}
}

// TestNegativeAnswersWait: what is not here yet is found after catching up, and what the leader cannot confirm is not denied.
func TestNegativeAnswersWait(t *testing.T) {
	n := newNode(t)
	n.catchUp = func() error { n.create("late", hsm.ECDSAP256, ""); n.catchUp = nil; return nil }
	want(t, n.sign(n.admin, "late"), nil)

	want(t, n.sign(n.admin, "absent"), guard.ErrNotFound)
	n.catchUp = func() error { return errors.New("no leader") }
	want(t, n.sign(n.admin, "absent"), guard.ErrUnavailable)
	n.apply(fsm.ChangeKey{Name: "late", Action: fsm.ActionSuspend, Reason: "test"})
	want(t, n.sign(n.admin, "late"), guard.ErrUnavailable)
	n.catchUp = func() error {
		n.apply(fsm.ChangeKey{Name: "late", Action: fsm.ActionResume})
		n.catchUp = nil
		return nil
	}
	want(t, n.sign(n.admin, "late"), nil)
}

// TestAStrangerLearnsNothing: absent and forbidden are one answer, to the letter.
func TestAStrangerLearnsNothing(t *testing.T) {
	n := newNode(t)
	n.create("pay", hsm.ECDSAP256, "bob,carol")
	n.create("other", hsm.ECDSAP256, "")
	bob, eve := n.user("bob"), n.user("eve")
	want(t, n.sign(bob, "pay"), nil)
	absent, forbidden := n.sign(eve, "nothing"), n.sign(eve, "pay")
	want(t, absent, policy.ErrDenied)
	want(t, forbidden, policy.ErrDenied)
	if absent.Error() != forbidden.Error() {
		t.Errorf("%q and %q tell a stranger which keys exist", absent, forbidden)
	}
	want(t, n.sign(bob, "other"), policy.ErrDenied)
	nobody := policy.Caller{Cluster: n.cluster, Role: fsm.RoleAdministrator, Name: "root", Serial: "0badc0de"}
	want(t, n.sign(nobody, "pay"), policy.ErrUnauthenticated)
	impostor := n.admin
	impostor.Name = "somebody"
	want(t, n.sign(impostor, "pay"), policy.ErrUnauthenticated)
}

func TestOperationFitsTheKey(t *testing.T) {
	n := newNode(t)
	n.create("mac", hsm.HMACSHA256, "")
	want(t, n.sign(n.admin, "mac"), guard.ErrWrongKey)
}

// TestWrongBlobIsRefused: a version whose binding does not verify never reaches a signature.
func TestWrongBlobIsRefused(t *testing.T) {
	n := newNode(t)
	a, b := n.newKey("a", hsm.ECDSAP256, ""), n.newKey("b", hsm.ECDSAP256, "")
	a.Material.Blob = b.Material.Blob
	n.apply(a)
	want(t, n.sign(n.admin, "a"), hsm.ErrWrappedKey)
	want(t, n.sign(n.admin, "a"), hsm.ErrWrappedKey) // and a failure is not cached as a success
}

func TestForgetAndEviction(t *testing.T) {
	n := newNode(t)
	for _, name := range []fsm.KeyName{"a", "b", "c"} {
		n.create(name, hsm.Ed25519, "")
		want(t, n.sign(n.admin, name), nil)
	}
	want(t, n.sign(n.admin, "a"), nil) // the cache holds two: a was evicted
	if got := n.opened.Load(); got != 4 {
		t.Errorf("unwrapped %d times, want 4", got)
	}
	n.apply(fsm.ChangeKey{Name: "a", Action: fsm.ActionDeactivate, Reason: "old"})
	n.apply(fsm.ChangeKey{Name: "a", Action: fsm.ActionDestroy})
	n.guard.Forget(n.machine.State())
	want(t, n.sign(n.admin, "a"), guard.ErrKeyState)
	n.guard.Purge()
	want(t, n.sign(n.admin, "c"), nil)
	if got := n.opened.Load(); got != 5 {
		t.Errorf("unwrapped %d times after a purge, want 5", got)
	}
}

// TestConcurrentUse: many at once share one unwrap, and copies that are evicted under way still work.
func TestConcurrentUse(t *testing.T) {
	n := newNode(t)
	names := []fsm.KeyName{"a", "b", "c", "d"}
	for _, name := range names {
		n.create(name, hsm.Ed25519, "")
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				if err := n.sign(n.admin, names[(i+j)%len(names)]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkUse is the cost of both checks and of a cached working copy, without the HSM's work.
func BenchmarkUse(b *testing.B) {
	n := newNode(b)
	n.create("mac", hsm.HMACSHA256, "")
	ctx, req := context.Background(), guard.Request{Caller: n.admin, Op: fsm.OpMAC, Name: "mac"}
	for b.Loop() {
		if _, err := n.guard.Use(ctx, req, func(context.Context, guard.Key, guard.Selected) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
