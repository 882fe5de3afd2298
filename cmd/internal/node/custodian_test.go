package node

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

const threshold = 2

// appoint makes three custodians, if there are none yet.
func (w *world) appoint() []fsm.Custodian {
	w.t.Helper()
	if len(w.custodians) == 0 {
		w.newCustodians()
	}
	var cards []fsm.Custodian
	for _, c := range w.custodians {
		cards = append(cards, c.Public())
	}
	return cards
}

func (w *world) newCustodians() {
	w.t.Helper()
	for _, name := range []string{"alice", "bob", "carol"} {
		c, err := ceremony.NewIdentity(name)
		w.must(err)
		w.custodians = append(w.custodians, c)
	}
}

// sitting is a genesis as its custodians hold it.
type sitting struct {
	w       *world
	id      fsm.CeremonyID
	entropy map[fsm.CustodianName][ceremony.EntropySize]byte
}

// convene opens a genesis that a node deals. A life of 0 is the default.
func (w *world) convene(dealer *process, life time.Duration) *sitting {
	w.t.Helper()
	c, _, err := dealer.vault.StartGenesis(w.ctx(), w.admin, request(), threshold, w.appoint(), life)
	w.must(err)
	return &sitting{w: w, id: c.ID, entropy: map[fsm.CustodianName][ceremony.EntropySize]byte{}}
}

func (s *sitting) shown(p *process) fsm.Ceremony {
	s.w.t.Helper()
	c, _, err := p.vault.Ceremony(s.w.ctx(), s.w.admin, s.id, "")
	s.w.must(err)
	return c
}

func (s *sitting) commit(p *process, who *ceremony.Identity) error {
	c := s.shown(p)
	var entropy [ceremony.EntropySize]byte
	_, _ = rand.Read(entropy[:])
	s.entropy[who.Name()] = entropy
	commitment := ceremony.CommitEntropy(c.ID, c.Nonce, who.Name(), entropy)
	_, _, err := p.vault.CommitEntropy(s.w.ctx(), s.w.admin, request(), fsm.CommitEntropy{
		Ceremony: c.ID, Custodian: who.Name(), Commitment: commitment[:],
		Signature:       who.Sign(fsm.CommitmentMessage(c.ID, c.Nonce, who.Name(), commitment[:])),
		RosterSignature: who.Sign(fsm.RosterMessage(fsm.RosterHash(c.Roster))),
	})
	return err
}

func (s *sitting) reveal(p *process, who *ceremony.Identity) error {
	entropy := s.entropy[who.Name()]
	return s.revealValue(p, who, entropy[:])
}

func (s *sitting) revealValue(p *process, who *ceremony.Identity, value []byte) error {
	c := s.shown(p)
	at := slices.IndexFunc(c.Roster.Nodes, func(n fsm.RosterNode) bool { return n.ID == c.Dealer })
	sealed, err := ceremony.SealToNode(c.Roster.Nodes[at].ExchangeKey, ceremony.Info{
		ClusterID: c.Roster.ClusterID, Ceremony: c.ID, Node: c.Dealer, Custodian: who.Name(), Purpose: ceremony.PurposeEntropy,
	}, value)
	if err != nil {
		return err
	}
	signature := who.Sign(ceremony.RevealMessage(c.ID, c.Nonce, who.Name(), sealed))
	_, _, err = p.vault.RevealEntropy(s.w.ctx(), s.w.admin, c.ID, who.Name(), sealed, signature)
	return err
}

// acknowledge opens, checks and stores the share, as a custodian's program does, and says so.
func (s *sitting) acknowledge(p *process, who *ceremony.Identity) error {
	s.w.within(10*time.Second, "the deal is published", func() bool { return s.shown(p).Deal != nil })
	c := s.shown(p)
	at := slices.IndexFunc(c.Deal.Shares, func(d fsm.SealedShare) bool { return d.Custodian == who.Name() })
	if err := who.StoreShare(ceremony.StoredShare{
		ClusterID: c.Roster.ClusterID, Generation: c.Deal.Generation, Ceremony: c.ID, Roster: fsm.RosterHash(c.Roster), Sealed: c.Deal.Shares[at].Ciphertext,
	}); err != nil {
		return err
	}
	_, _, err := p.vault.AcknowledgeShare(s.w.ctx(), s.w.admin, request(), fsm.AcknowledgeShare{
		Ceremony: c.ID, Custodian: who.Name(), Signature: who.Sign(fsm.AcknowledgementMessage(c.ID, who.Name(), c.Deal.Transcript)),
	})
	return err
}

// genesis holds the whole ceremony, each step through another node.
func (w *world) genesis(dealer *process) {
	w.t.Helper()
	w.convene(dealer, 0).finish()
}

// finish takes a sitting that has only begun to its end.
func (s *sitting) finish() {
	w := s.w
	w.t.Helper()
	entry := w.live()
	for _, step := range []func(*process, *ceremony.Identity) error{s.commit, s.reveal, s.acknowledge} {
		for i, who := range w.custodians {
			w.must(step(entry[i%len(entry)], who))
		}
	}
	w.within(10*time.Second, "the master is in force everywhere", func() bool {
		return !slices.ContainsFunc(w.live(), func(p *process) bool { _, ok := p.replica.State().Master(); return !ok })
	})
}

// ask opens the unseal ceremony on a custodian's request, or finds the open one.
func (w *world) ask(p *process, who *ceremony.Identity) (fsm.CeremonyID, error) {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	c, _, err := p.vault.StartUnseal(w.ctx(), w.admin, request(), who.Name(), nonce, who.Sign(fsm.UnsealRequestMessage(w.admin.Cluster, who.Name(), nonce)))
	return c.ID, err
}

// bundle seals a custodian's share to nodes of the roster: all of them, or the named ones.
func (w *world) bundle(p *process, who *ceremony.Identity, id fsm.CeremonyID, only ...fsm.NodeID) []ceremony.NodeShare {
	w.t.Helper()
	share, err := who.Share(w.admin.Cluster, 1)
	w.must(err)
	roster, _ := p.replica.State().Roster()
	var out []ceremony.NodeShare
	for _, n := range roster.Nodes {
		if len(only) > 0 && !slices.Contains(only, n.ID) {
			continue
		}
		sealed, err := ceremony.SealToNode(n.ExchangeKey, w.shareInfo(id, n.ID, who.Name()), share.Encode())
		w.must(err)
		out = append(out, ceremony.NodeShare{Node: n.ID, Sealed: sealed})
	}
	return out
}

func (w *world) shareInfo(id fsm.CeremonyID, to fsm.NodeID, who fsm.CustodianName) ceremony.Info {
	return ceremony.Info{ClusterID: w.admin.Cluster, Ceremony: id, Node: to, Custodian: who, Purpose: ceremony.PurposeShare}
}

func (w *world) submit(p *process, who *ceremony.Identity, id fsm.CeremonyID, bundle []ceremony.NodeShare) ([]vault.ShareVerdict, error) {
	return p.vault.SubmitShare(w.ctx(), w.admin, id, who.Name(), bundle, who.Sign(ceremony.BundleMessage(id, who.Name(), bundle)))
}

// give is all that a custodian does for an unseal, through one node.
func (w *world) give(p *process, who *ceremony.Identity, only ...fsm.NodeID) ([]vault.ShareVerdict, error) {
	w.t.Helper()
	id, err := w.ask(p, who)
	if err != nil {
		return nil, err
	}
	return w.submit(p, who, id, w.bundle(p, who, id, only...))
}

// unseal gives as many shares as are needed, each through another of the named nodes, which must be unsealed then.
func (w *world) unseal(through ...fsm.NodeID) {
	w.t.Helper()
	for i := range threshold {
		_, err := w.give(w.node(through[i%len(through)]), w.custodians[i])
		w.must(err)
	}
	w.within(10*time.Second, "they are unsealed", func() bool {
		return !slices.ContainsFunc(through, func(id fsm.NodeID) bool { return w.node(id).vault.Ready() != nil })
	})
}

// giveShare is give for a caller whose cluster is being disturbed: it fails instead of ending the test.
func (c *campaign) giveShare(ctx context.Context, v *vault.Vault, custodian int) error {
	who := c.w.custodians[custodian]
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	opened, _, err := v.StartUnseal(ctx, c.w.admin, request(), who.Name(), nonce, who.Sign(fsm.UnsealRequestMessage(c.w.admin.Cluster, who.Name(), nonce)))
	if err != nil {
		return err
	}
	bundle := c.w.bundle(c.w.node("n1"), who, opened.ID)
	_, err = v.SubmitShare(ctx, c.w.admin, opened.ID, who.Name(), bundle, who.Sign(ceremony.BundleMessage(opened.ID, who.Name(), bundle)))
	return err
}
