package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/policy"
)

// defaultCeremony is how long a ceremony stays open unless its starter says otherwise: people gather within an hour.
const defaultCeremony = time.Hour

// firstGeneration: a genesis makes generation 1; further generations come from rekeys.
const firstGeneration = 1

// dealing is what the dealing node holds of a genesis, in memory only: a restart aborts the ceremony.
type dealing struct {
	random    []byte
	entropies map[fsm.CustodianName][]byte
}

func (d *dealing) wipe() {
	clear(d.random)
	for _, e := range d.entropies {
		clear(e)
	}
}

// StartGenesis opens the genesis ceremony with this node as the dealing one. Its HSM commits to its random before any custodian
// commits.
func (v *Vault) StartGenesis(ctx context.Context, c policy.Caller, id fsm.RequestID, threshold uint32, custodians []fsm.Custodian, ttl time.Duration) (fsm.Ceremony, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return fsm.Ceremony{}, 0, err
	}
	if err := policy.Administer(s, c); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	cmd := fsm.StartGenesis{
		ID: fsm.CeremonyID(uuid.NewString()), Nonce: make([]byte, 32), Dealer: v.cfg.Node, DealerBoot: v.cfg.Boot, TTL: orDefault(ttl, defaultCeremony),
		Roster: fsm.Roster{Version: 1, ClusterID: s.Cluster().ID, Threshold: threshold, Custodians: custodians, Nodes: rosterNodes(s)},
	}
	d := &dealing{random: make([]byte, ceremony.EntropySize), entropies: map[fsm.CustodianName][]byte{}}
	if err := errors.Join(v.cfg.Token.Random(cmd.Nonce), v.cfg.Token.Random(d.random)); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	commitment := ceremony.DealerCommitment(cmd.ID, cmd.Nonce, cmd.Dealer, d.random)
	cmd.DealerCommitment = commitment[:]
	v.hold(cmd.ID, d)
	started, index, err := v.ceremonyWrite(ctx, c, id, genesisHash(threshold, custodians, ttl), cmd)
	var r *Refused
	if errors.As(err, &r) || err == nil && started.ID != cmd.ID { // refused, or an earlier request's ceremony
		v.letGo(cmd.ID) // what is merely unknown is kept: deal looks at the state
	}
	return started, index, err
}

func genesisHash(threshold uint32, custodians []fsm.Custodian, ttl time.Duration) [32]byte {
	fields := []string{fmt.Sprint(threshold), ttl.String()}
	for _, c := range custodians {
		fields = append(fields, string(c.Name), c.Recipient, string(c.SigningKey))
	}
	return requestHash("ceremonies.genesis", fields...)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func rosterNodes(s *fsm.State) []fsm.RosterNode {
	var all []fsm.RosterNode
	for _, n := range s.Nodes() {
		all = append(all, fsm.RosterNode{ID: n.ID, ExchangeKey: n.ExchangeKey})
	}
	return all
}

func (v *Vault) hold(id fsm.CeremonyID, d *dealing) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dealing[id] = d
}

func (v *Vault) letGo(id fsm.CeremonyID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.dealing[id]; d != nil {
		d.wipe()
		delete(v.dealing, id)
	}
}

// ceremonyWrite proposes a ceremony's command and returns the ceremony as it is then.
func (v *Vault) ceremonyWrite(ctx context.Context, c policy.Caller, id fsm.RequestID, hash [32]byte, cmd fsm.Command) (fsm.Ceremony, uint64, error) {
	r, err := v.write(ctx, c, id, hash, cmd)
	if err != nil {
		return fsm.Ceremony{}, 0, err
	}
	found, _ := v.state().Ceremony(r.Ceremony)
	return found, r.Index, nil
}

// CommitEntropy records a custodian's commitment and its signature over the roster.
func (v *Vault) CommitEntropy(ctx context.Context, c policy.Caller, id fsm.RequestID, cmd fsm.CommitEntropy) (fsm.Ceremony, uint64, error) {
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.commit", string(cmd.Ceremony), string(cmd.Custodian), string(cmd.Commitment)), cmd)
}

// AcknowledgeShare records a custodian's signed word that it holds its share.
func (v *Vault) AcknowledgeShare(ctx context.Context, c policy.Caller, id fsm.RequestID, cmd fsm.AcknowledgeShare) (fsm.Ceremony, uint64, error) {
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.acknowledge", string(cmd.Ceremony), string(cmd.Custodian)), cmd)
}

// deliveredEntropy is a custodian's value on its way to the dealing node, sealed to it: the log never sees it.
type deliveredEntropy struct {
	Ceremony  fsm.CeremonyID    `json:"ceremony"`
	Custodian fsm.CustodianName `json:"custodian"`
	Sealed    []byte            `json:"sealed"`
	Signature []byte            `json:"signature"`
}

// RevealEntropy relays a custodian's sealed value to the dealing node and returns when that node has checked it.
func (v *Vault) RevealEntropy(ctx context.Context, c policy.Caller, id fsm.CeremonyID, who fsm.CustodianName, sealed, signature []byte) (fsm.Ceremony, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return fsm.Ceremony{}, 0, err
	}
	if err := policy.Identify(s, c); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	open, found := s.Ceremony(id)
	if !found || open.Purpose != fsm.PurposeGenesis {
		return fsm.Ceremony{}, 0, fmt.Errorf("%w: there is no genesis %q", ErrCeremony, id)
	}
	if _, err := askNode[struct{}](ctx, v, open.Dealer, kindEntropy, deliveredEntropy{id, who, sealed, signature}); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	return v.Ceremony(ctx, c, id, "")
}

// receiveEntropy is the dealing node's side: check the value against its commitment and record the finding. Only a value that the
// custodian itself signed can end the ceremony; anybody else's is refused and changes nothing.
func (v *Vault) receiveEntropy(ctx context.Context, e deliveredEntropy) error {
	s, err := v.current(ctx)
	if err != nil {
		return err
	}
	c, found := s.Ceremony(e.Ceremony)
	if !found || c.Phase != fsm.PhaseReveal || c.Dealer != v.cfg.Node || c.DealerBoot != v.cfg.Boot {
		return fmt.Errorf("%w: %s does not take entropy now (phase %q)", ErrCeremony, e.Ceremony, c.Phase)
	}
	place, err := ceremony.Place(c.Roster, e.Custodian)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrShare, err)
	}
	signed := ceremony.RevealMessage(c.ID, c.Nonce, e.Custodian, e.Sealed)
	if err := ceremony.VerifySignature(c.Roster.Custodians[place-1].SigningKey, signed, e.Signature); err != nil {
		return fmt.Errorf("%w: a contribution in the name of custodian %s: %w", ErrShare, e.Custodian, err)
	}
	matches, reason := v.takeEntropy(s, c, e)
	if _, err := v.report(ctx, fsm.RecordReveal{Ceremony: c.ID, Boot: v.cfg.Boot, Custodian: e.Custodian, Matches: matches, Reason: reason}); err != nil {
		return err
	}
	if !matches {
		return fmt.Errorf("%w: custodian %s: %s; the ceremony is aborted", ErrShare, e.Custodian, reason)
	}
	return nil
}

// takeEntropy opens and checks a value. It fails only for a reason that the log may show.
func (v *Vault) takeEntropy(s *fsm.State, c fsm.Ceremony, e deliveredEntropy) (bool, string) {
	info := ceremony.Info{ClusterID: s.Cluster().ID, Ceremony: c.ID, Node: v.cfg.Node, Custodian: e.Custodian, Purpose: ceremony.PurposeEntropy}
	value, err := ceremony.OpenAtNode(v.cfg.Token.Exchange(), info, e.Sealed)
	if err != nil {
		return false, "the value does not open on the dealing node"
	}
	i := slices.IndexFunc(c.Commitments, func(known fsm.EntropyCommitment) bool { return known.Custodian == e.Custodian })
	if i < 0 || ceremony.CheckEntropy(c.Commitments[i].Commitment, c.ID, c.Nonce, e.Custodian, value) != nil {
		clear(value)
		return false, "the value is not the one that was committed to"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.dealing[c.ID]; d != nil { // if it is lost, followDealing aborts and blames nobody
		d.entropies[e.Custodian] = value
	}
	return true, ""
}

// followDealing does what the state asks of a dealing node, whoever's call brought it there and however that call ended: deal when
// every value is in, abort what this process cannot deal, and forget what is over.
func (v *Vault) followDealing(s *fsm.State) {
	v.forgetDealing(s)
	c, open := s.OpenCeremony(fsm.PurposeGenesis)
	if !open || c.Dealer != v.cfg.Node {
		return
	}
	d := v.dealt(c)
	switch {
	case d == nil:
		v.once(&v.genesis, func(ctx context.Context) { v.abandon(ctx, c.ID) })
	case c.Phase == fsm.PhaseDeal:
		v.once(&v.genesis, func(ctx context.Context) { v.publish(ctx, c, d) })
	}
}

// dealt returns this process's part of a ceremony in a phase that needs it; nil if it has none, as after a restart. Once the deal
// is published nothing of it is needed any more.
func (v *Vault) dealt(c fsm.Ceremony) *dealing {
	if c.Phase == fsm.PhaseAcknowledge {
		return &dealing{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.dealing[c.ID]
	if d == nil || c.DealerBoot != v.cfg.Boot {
		return nil
	}
	return d
}

// forgetDealing wipes this process's part of every genesis that needs it no more.
func (v *Vault) forgetDealing(s *fsm.State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, d := range v.dealing {
		c, known := s.Ceremony(id)
		over := c.Phase == fsm.PhaseAcknowledge || c.Phase == fsm.PhaseDone || c.Phase == fsm.PhaseAborted
		if known && over {
			d.wipe()
			delete(v.dealing, id)
		}
	}
}

func (v *Vault) abandon(ctx context.Context, id fsm.CeremonyID) {
	_, err := v.report(ctx, fsm.AbortCeremony{Ceremony: id, Reason: "the dealing node " + string(v.cfg.Node) + " lost its part"})
	if err != nil && ctx.Err() == nil {
		v.log.Warn("a genesis that cannot be dealt is not aborted yet", "ceremony", id, "err", err)
	}
}

// publish deals. If its report stays unanswered, the next look at the state finds the phase where it was and deals anew.
func (v *Vault) publish(ctx context.Context, c fsm.Ceremony, d *dealing) {
	deal, err := v.deal(c, d)
	if err == nil {
		_, err = v.report(ctx, fsm.PublishDeal{Ceremony: c.ID, Boot: v.cfg.Boot, Deal: deal})
	}
	if err != nil && ctx.Err() == nil {
		v.log.Warn("the deal is not published yet", "ceremony", c.ID, "err", err)
	}
}

// deal draws the secret from everybody's randomness, shares it, and forgets it. The secret exists here, in this process's
// memory, once: a genesis protects against a bad generator and not against a dishonest dealing node.
func (v *Vault) deal(c fsm.Ceremony, d *dealing) (fsm.Deal, error) {
	v.mu.Lock()
	var entropies [][]byte
	for _, custodian := range c.Roster.Custodians {
		entropies = append(entropies, d.entropies[custodian.Name])
	}
	v.mu.Unlock()
	secret, err := ceremony.HashToSecret(d.random, entropies, ceremony.EntropyTranscript(c))
	if err != nil {
		return fsm.Deal{}, err
	}
	defer secret.Wipe()
	master, err := hsm.DeriveMaster(secret, c.Roster.ClusterID, firstGeneration)
	if err != nil {
		return fsm.Deal{}, err
	}
	defer master.Wipe()
	check, err := master.Check()
	if err != nil {
		return fsm.Deal{}, err
	}
	shares, commitments, err := ceremony.Deal(secret, int(c.Roster.Threshold), len(c.Roster.Custodians))
	if err != nil {
		return fsm.Deal{}, err
	}
	sealed, err := sealShares(c, shares)
	return fsm.Deal{
		Generation: firstGeneration, Commitments: commitments, Shares: sealed, Check: check.List(), Transcript: ceremony.Transcript(c, commitments),
	}, err
}

func sealShares(c fsm.Ceremony, shares []ceremony.Share) ([]fsm.SealedShare, error) {
	var out []fsm.SealedShare
	for i, custodian := range c.Roster.Custodians {
		info := ceremony.Info{ClusterID: c.Roster.ClusterID, Ceremony: c.ID, Custodian: custodian.Name}
		sealed, err := ceremony.SealShareToCustodian(custodian.Recipient, shares[i], info)
		shares[i].Wipe()
		if err != nil {
			return nil, err
		}
		out = append(out, fsm.SealedShare{Custodian: custodian.Name, Ciphertext: sealed})
	}
	return out, nil
}

// AbortCeremony ends an open ceremony on an administrator's order.
func (v *Vault) AbortCeremony(ctx context.Context, c policy.Caller, id fsm.RequestID, which fsm.CeremonyID, reason string) (fsm.Ceremony, uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.abort", string(which), reason), fsm.AbortCeremony{Ceremony: which, Reason: reason})
}

// Ceremony returns one ceremony, or the latest of a purpose ("" for any).
func (v *Vault) Ceremony(ctx context.Context, c policy.Caller, id fsm.CeremonyID, p fsm.Purpose) (fsm.Ceremony, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return fsm.Ceremony{}, 0, err
	}
	if err := policy.Identify(s, c); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	found, ok := s.LatestCeremony(p)
	if id != "" {
		found, ok = s.Ceremony(id)
	}
	if !ok {
		return fsm.Ceremony{}, 0, fmt.Errorf("%w: no such ceremony; the first is started with: conclave ceremony genesis --threshold K --custodian FILE.pub …", ErrNoCeremony)
	}
	return found, s.Applied(), nil
}
