package custody_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/custody"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// people are the custodians of a test, each with a file.
type people struct {
	paths   map[string]string
	cards   []fsm.Custodian
	holders []*custody.Holder
}

func newPeople(t *testing.T, names ...string) *people {
	t.Helper()
	p := &people{paths: map[string]string{}}
	for _, name := range names {
		id, err := ceremony.NewIdentity(name)
		if err != nil {
			t.Fatal(err)
		}
		p.paths[name] = filepath.Join(t.TempDir(), name)
		if err := id.Create(p.paths[name], nil); err != nil {
			t.Fatal(err)
		}
		p.cards = append(p.cards, id.Public())
		p.holders = append(p.holders, p.open(t, name))
	}
	return p
}

// open reads the identity's file anew, as another run of the program would.
func (p *people) open(t *testing.T, name string) *custody.Holder {
	t.Helper()
	h, err := custody.OpenHolder(p.paths[name], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Wipe)
	return h
}

// quick waits for nothing: what a custodian waits for happens in other goroutines or in its own calls.
func quick() custody.Options {
	return custody.Options{Pause: func(ctx context.Context) error { return ctx.Err() }}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, c *cluster, threshold uint32, p *people) *vaultpb.Ceremony {
	t.Helper()
	started, err := custody.StartGenesis(within(t), c.api(), threshold, p.cards, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func hold(t *testing.T, c *cluster, threshold uint32, p *people) {
	t.Helper()
	start(t, c, threshold, p)
	if _, err := custody.Genesis(within(t), c.api(), p.holders, quick(), nil); err != nil {
		t.Fatal(err)
	}
}

// TestGenesisAndUnseal is the main story: three custodians in three programs, then two of them unseal every node.
func TestGenesisAndUnseal(t *testing.T) {
	c, p := newCluster(t, "n1", "n2", "n3"), newPeople(t, "alice", "bob", "carol")
	start(t, c, 2, p)
	c.outage = 5 // leaders change; nobody notices but for the progress
	var programs sync.WaitGroup
	for _, h := range p.holders {
		programs.Go(func() {
			done, err := custody.Genesis(within(t), c.api(), []*custody.Holder{h}, quick(), nil)
			if err != nil || done.GetPhase() != string(fsm.PhaseDone) {
				t.Errorf("%s: phase %s, %v", h.Name(), done.GetPhase(), err)
			}
		})
	}
	programs.Wait()

	var said []string
	tell := func(text string) { said = append(said, text) }
	first, err := custody.Unseal(within(t), c.api(), []*custody.Holder{p.open(t, "carol")}, quick(), tell)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range first.Nodes {
		if n.Unsealed || n.Have != 1 || n.Need != 2 || n.Missing() != 1 {
			t.Errorf("after one share: %+v", n)
		}
	}
	if !strings.Contains(strings.Join(said, "\n"), "node n2 needs 1 more of 2 shares") {
		t.Errorf("it is not said what is missing: %q", said)
	}
	second, err := custody.Unseal(within(t), c.api(), []*custody.Holder{p.open(t, "alice")}, quick(), tell)
	if err != nil || second.Ceremony != first.Ceremony {
		t.Fatalf("ceremony %s after %s: %v", second.Ceremony, first.Ceremony, err)
	}
	for _, id := range c.order {
		if !bytes.Equal(c.nodes[id].opened, c.secret) {
			t.Errorf("node %s did not recover the secret", id)
		}
	}
}

func TestGenesisPinsOnlyWhenDone(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	hold(t, c, 2, p)
	id := p.open(t, "alice")
	if _, ok := id.Pinned(clusterID); !ok || len(id.Shares()) != 1 {
		t.Fatal("no pin, or no share")
	}
	// A cluster of the same name with another roster, as an impostor would show it.
	other := newCluster(t, "n1")
	start(t, other, 1+1, p)
	_, err := custody.Genesis(within(t), other.api(), []*custody.Holder{id}, quick(), nil)
	if !errors.Is(err, ceremony.ErrPin) {
		t.Errorf("a second genesis of the same cluster: %v", err)
	}
}

// An aborted genesis leaves nothing that stands in the way of the next one.
func TestGenesisAfterAnAbortedOne(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	started := start(t, c, 2, p)
	c.deal = func(d *fsm.Deal) { d.Shares[1].Ciphertext = []byte("damaged") }
	_, err := custody.Genesis(within(t), c.api(), p.holders, quick(), nil)
	if !errors.Is(err, ceremony.ErrOpen) || !strings.Contains(err.Error(), "custodian bob") || !strings.Contains(err.Error(), "ceremony abort "+started.GetId()) {
		t.Fatalf("a damaged share: %v", err)
	}
	if len(p.open(t, "bob").Shares()) != 0 {
		t.Error("bob stored what does not verify")
	}
	c.deal = nil
	c.apply(fsm.AbortCeremony{Ceremony: fsm.CeremonyID(started.GetId()), Reason: "damaged share"})
	if _, err := custody.Genesis(within(t), c.api(), p.holders, quick(), nil); !errors.Is(err, custody.ErrCeremony) {
		t.Errorf("taking part in an aborted one: %v", err)
	}
	hold(t, c, 2, p)
	report, err := custody.Unseal(within(t), c.api(), p.holders, quick(), nil)
	if err != nil || !report.Nodes[0].Unsealed {
		t.Errorf("%+v, %v", report, err)
	}
}

// What the dealing node may try at the deal, and what it must not get: an acknowledgement.
func TestGenesisRefusesBadDeals(t *testing.T) {
	for name, lie := range map[string]struct {
		deal func(*fsm.Deal)
		want error
	}{
		"transcript":  {func(d *fsm.Deal) { d.Transcript[0] ^= 1 }, custody.ErrShown},
		"commitments": {func(d *fsm.Deal) { d.Commitments[1] = d.Commitments[0] }, custody.ErrShown},
		"swapped": {func(d *fsm.Deal) {
			d.Shares[0].Ciphertext, d.Shares[1].Ciphertext = d.Shares[1].Ciphertext, d.Shares[0].Ciphertext
		}, ceremony.ErrOpen},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
			start(t, c, 2, p)
			c.deal = lie.deal
			if _, err := custody.Genesis(within(t), c.api(), p.holders, quick(), nil); !errors.Is(err, lie.want) {
				t.Fatalf("%v, want %v", err, lie.want)
			}
			latest, _ := c.machine.State().LatestCeremony(fsm.PurposeGenesis)
			for _, e := range latest.Commitments {
				if e.Acknowledged {
					t.Errorf("%s acknowledged", e.Custodian)
				}
			}
		})
	}
}

// A consistent deal of wrong shares: the transcript is right, the share is not on the polynomial.
func TestGenesisRefusesAShareOffThePolynomial(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	started := start(t, c, 2, p)
	c.deal = func(d *fsm.Deal) {
		shares, _, err := ceremony.Deal(c.secret, 2, 2)
		if err != nil {
			t.Error(err)
			return
		}
		info := ceremony.Info{ClusterID: clusterID, Ceremony: fsm.CeremonyID(started.GetId()), Custodian: "alice"}
		if d.Shares[0].Ciphertext, err = ceremony.SealShareToCustodian(p.cards[0].Recipient, shares[0], info); err != nil {
			t.Error(err)
		}
	}
	if _, err := custody.Genesis(within(t), c.api(), p.holders, quick(), nil); !errors.Is(err, ceremony.ErrShare) {
		t.Fatal(err)
	}
}

func TestGenesisRefusesAChangingCeremony(t *testing.T) {
	for name, lie := range map[string]func(*vaultpb.Ceremony){
		"nonce":  func(m *vaultpb.Ceremony) { m.Nonce = make([]byte, 32) },
		"dealer": func(m *vaultpb.Ceremony) { m.Dealer = "n2" },
		"node":   func(m *vaultpb.Ceremony) { m.Roster.Nodes[0].ExchangeKey = make([]byte, 65) },
		"commitment": func(m *vaultpb.Ceremony) {
			if m.GetPhase() == string(fsm.PhaseAcknowledge) {
				m.Commitments[1].Commitment = make([]byte, 32)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newCluster(t, "n1", "n2"), newPeople(t, "alice", "bob")
			start(t, c, 2, p)
			looks := 0
			o := quick()
			o.Pause = func(ctx context.Context) error {
				if looks++; looks == 1 {
					c.mu.Lock()
					c.lie = lie
					c.mu.Unlock()
				}
				return ctx.Err()
			}
			if _, err := custody.Genesis(within(t), c.api(), p.holders, o, nil); !errors.Is(err, custody.ErrShown) {
				t.Fatal(err)
			}
		})
	}
}

func TestGenesisChecksTheRosterFirst(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	started := start(t, c, 2, p)
	stranger := newPeople(t, "alice")
	take := func(h *custody.Holder, o custody.Options) error {
		_, err := custody.Genesis(within(t), c.api(), []*custody.Holder{h}, o, nil)
		return err
	}
	if err := take(stranger.holders[0], quick()); !errors.Is(err, ceremony.ErrNotInRoster) {
		t.Errorf("same name, other keys: %v", err)
	}
	o := quick()
	o.Roster = strings.Repeat("0", 64)
	if err := take(p.holders[0], o); !errors.Is(err, custody.ErrShown) {
		t.Errorf("another roster than agreed: %v", err)
	}
	open, _ := c.machine.State().Ceremony(fsm.CeremonyID(started.GetId()))
	if len(open.Commitments) != 0 {
		t.Error("somebody committed")
	}
	c.lie = func(m *vaultpb.Ceremony) { m.Dealer = "elsewhere" }
	if err := take(p.holders[0], quick()); !errors.Is(err, custody.ErrShown) {
		t.Errorf("a dealer outside the roster: %v", err)
	}
	c.lie = func(m *vaultpb.Ceremony) { m.Roster.Version = 2 }
	if err := take(p.holders[0], quick()); !errors.Is(err, custody.ErrShown) {
		t.Errorf("no genesis roster: %v", err)
	}
}

func TestGenesisWithTheAgreedRoster(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	start(t, c, 2, p)
	open, _ := c.machine.State().OpenCeremony(fsm.PurposeGenesis)
	hash := fsm.RosterHash(open.Roster)
	o := quick()
	o.Roster = strings.ToUpper(hex.EncodeToString(hash[:]))
	if _, err := custody.Genesis(within(t), c.api(), p.holders, o, nil); err != nil {
		t.Fatal(err)
	}
}

// A program that was interrupted after it committed has lost its contribution, and says so.
func TestGenesisInterruptedBeforeTheReveal(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	start(t, c, 2, p)
	ctx, cancel := context.WithCancel(within(t))
	o := quick()
	o.Pause = func(ctx context.Context) error { cancel(); return ctx.Err() }
	alice := []*custody.Holder{p.holders[0]}
	if _, err := custody.Genesis(ctx, c.api(), alice, o, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	_, err := custody.Genesis(within(t), c.api(), alice, quick(), nil)
	if !errors.Is(err, custody.ErrCeremony) || !strings.Contains(err.Error(), "ceremony abort") {
		t.Fatal(err)
	}
}

func TestGenesisEndsWithTheCeremony(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	start(t, c, 2, p)
	o := quick()
	o.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err := custody.Genesis(within(t), c.api(), []*custody.Holder{p.holders[0]}, o, nil)
	if !errors.Is(err, custody.ErrCeremony) || !strings.Contains(err.Error(), "ran out") {
		t.Fatal(err)
	}
}

func TestUnsealNamesTheCustodianOfABadShare(t *testing.T) {
	c, p := newCluster(t, "n1", "n2"), newPeople(t, "alice", "bob")
	hold(t, c, 2, p)
	// The nodes have other keys than the roster says: what reaches them is not a share to them.
	for _, n := range c.nodes {
		n.key = mustKey(t)
	}
	report, err := custody.Unseal(within(t), c.api(), p.holders, quick(), nil)
	if !errors.Is(err, custody.ErrRefused) || !strings.Contains(err.Error(), "custodian alice") || !strings.Contains(err.Error(), "node n2") {
		t.Fatal(err)
	}
	if !strings.Contains(err.Error(), "custodian bob") {
		t.Error("bob had no turn after alice was refused")
	}
	if report == nil || len(report.Nodes) != 2 {
		t.Errorf("%+v", report)
	}
}

func TestUnsealReportsNodesThatAreAway(t *testing.T) {
	c, p := newCluster(t, "n1", "n2"), newPeople(t, "alice", "bob")
	hold(t, c, 2, p)
	c.nodes["n2"].down = true
	report, err := custody.Unseal(within(t), c.api(), p.holders, quick(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Nodes[0].Unsealed || report.Nodes[1].Unsealed || report.Nodes[1].Reason != "connection refused" {
		t.Errorf("%+v", report.Nodes)
	}
	// It comes back: the same flow unseals it while the other goes on.
	c.nodes["n2"].down = false
	if report, err = custody.Unseal(within(t), c.api(), p.holders, quick(), nil); err != nil || !report.Nodes[1].Unsealed {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestUnsealTrustsOnlyThePinnedChain(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	if _, err := custody.Unseal(within(t), c.api(), p.holders, quick(), nil); !errors.Is(err, custody.ErrCeremony) {
		t.Errorf("before a genesis: %v", err)
	}
	hold(t, c, 2, p)
	impostor := newCluster(t, "n1")
	again := newPeople(t, "alice", "bob")
	hold(t, impostor, 2, again)
	report, err := custody.Unseal(within(t), impostor.api(), p.holders, quick(), nil)
	if !errors.Is(err, ceremony.ErrPin) || len(impostor.nodes["n1"].shares) != 0 || report.Ceremony != "" {
		t.Errorf("an impostor: %v, %d shares", err, len(impostor.nodes["n1"].shares))
	}
}

// A share that does not fit the master that the cluster shows is not given away.
func TestUnsealChecksTheShareFirst(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	hold(t, c, 2, p)
	for name, lie := range map[string]struct {
		master func(*vaultpb.Master)
		want   error
	}{
		"commitments": {func(m *vaultpb.Master) { m.Commitments[1] = m.Commitments[0] }, custody.ErrShown},
		"threshold":   {func(m *vaultpb.Master) { m.Threshold = 1 }, custody.ErrShown},
		"generation":  {func(m *vaultpb.Master) { m.Generation = 2 }, ceremony.ErrNoShare},
	} {
		c.master = lie.master
		if _, err := custody.Unseal(within(t), c.api(), p.holders, quick(), nil); !errors.Is(err, lie.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(c.nodes["n1"].shares) != 0 {
		t.Error("a share was given")
	}
}

func TestRosterAdmitsANode(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob", "carol")
	hold(t, c, 2, p)
	c.join("n2")
	nodes := vaultpb.NewClusterClient(c.conn)
	admit := func(who string, names ...string) (*vaultpb.Ceremony, error) {
		return custody.Roster(within(t), c.api(), nodes, []*custody.Holder{p.open(t, who)}, names, quick(), nil)
	}
	if _, err := admit("alice", "n9"); !errors.Is(err, custody.ErrCeremony) {
		t.Errorf("a node that is not there: %v", err)
	}
	if _, err := admit("alice", "n1"); !errors.Is(err, custody.ErrCeremony) {
		t.Errorf("a node that is in the roster: %v", err)
	}
	open, err := admit("alice", "n2")
	if err != nil || open.GetPhase() != string(fsm.PhaseSign) {
		t.Fatalf("phase %s, %v", open.GetPhase(), err)
	}
	c.join("n3")
	if _, err := admit("bob", "n3"); !errors.Is(err, custody.ErrShown) {
		t.Errorf("signing another roster than asked for: %v", err)
	}
	done, err := admit("bob", "n2")
	if err != nil || done.GetPhase() != string(fsm.PhaseDone) || done.GetId() != open.GetId() {
		t.Fatalf("phase %s, %v", done.GetPhase(), err)
	}
	report, err := custody.Unseal(within(t), c.api(), p.holders[:2], quick(), nil)
	if err != nil || len(report.Nodes) != 2 || !report.Nodes[1].Unsealed {
		t.Errorf("%+v, %v", report, err)
	}
	if len(c.nodes["n3"].shares) != 0 {
		t.Error("a node outside the roster got a share")
	}
}

func TestStartGenesisChecksWhatWasStarted(t *testing.T) {
	c, p := newCluster(t, "n1"), newPeople(t, "alice", "bob")
	c.lie = func(m *vaultpb.Ceremony) { m.Roster.Threshold = 1 }
	if _, err := custody.StartGenesis(within(t), c.api(), 2, p.cards, 0); !errors.Is(err, custody.ErrShown) {
		t.Fatal(err)
	}
}
