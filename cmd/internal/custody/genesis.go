package custody

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// expiryGrace is how long after a ceremony's end by this machine's clock the program still waits: clocks differ, and the log's
// time is what counts.
const expiryGrace = time.Minute

// Genesis takes part in the open genesis ceremony as each of the holders, until it is done: commit, reveal, verify and store the
// share, acknowledge. Interrupted after the reveal it can be called again; interrupted before, the contribution is lost with the
// process and the ceremony must be started anew.
func Genesis(ctx context.Context, api vaultpb.CeremoniesClient, holders []*Holder, o Options, say Progress) (*vaultpb.Ceremony, error) {
	g := &genesis{api: api, o: o.withDefaults(), say: say}
	shown, err := g.look(ctx)
	if err != nil {
		return nil, err
	}
	g.first = ceremonyOf(shown)
	if err := g.check(holders); err != nil {
		return nil, err
	}
	for _, h := range holders {
		p, err := newParticipant(h)
		if err != nil {
			return nil, err
		}
		defer clear(p.entropy[:])
		g.participants = append(g.participants, p)
	}
	return g.run(ctx, shown)
}

// genesis is one program's part in a ceremony.
type genesis struct {
	api          vaultpb.CeremoniesClient
	o            Options
	say          Progress
	first        fsm.Ceremony // as it was shown at the start
	participants []*participant
	drawn        [32]byte // the entropy transcript, fixed before anything is revealed
	phase        fsm.Phase
}

// look reads the ceremony: the latest genesis, then the one that this program takes part in.
func (g *genesis) look(ctx context.Context) (*vaultpb.Ceremony, error) {
	in := &vaultpb.GetCeremonyRequest{Id: string(g.first.ID)}
	if in.Id == "" {
		in.Purpose = string(fsm.PurposeGenesis)
	}
	reply, err := persist(ctx, g.o, g.say, func() (*vaultpb.CeremonyReply, error) { return g.api.GetCeremony(ctx, in) })
	if err != nil {
		return nil, fmt.Errorf("reading the genesis ceremony: %w", err)
	}
	return reply.GetCeremony(), nil
}

// check decides whether to take part at all.
func (g *genesis) check(holders []*Holder) error {
	c, r := g.first, g.first.Roster
	hash := fsm.RosterHash(r)
	switch {
	case c.Purpose != fsm.PurposeGenesis || c.ID == "" || len(c.Nonce) == 0 || len(c.DealerCommitment) != 32:
		return fmt.Errorf("%w: that is no complete genesis ceremony", ErrShown)
	case r.Version != 1 || r.Previous != [32]byte{} || r.ClusterID == "" || r.Threshold < 1 || int(r.Threshold) > len(r.Custodians):
		return fmt.Errorf("%w: the roster is no genesis roster", ErrShown)
	case g.o.Roster != "" && !strings.EqualFold(g.o.Roster, hex.EncodeToString(hash[:])):
		return fmt.Errorf("%w: the roster's hash is %x, expected is %s", ErrShown, hash, g.o.Roster)
	}
	if _, err := exchangeKeyOf(r, c.Dealer); err != nil {
		return err
	}
	for _, h := range holders {
		if err := ceremony.CheckMember(r, h.Public()); err != nil {
			return err
		}
		if pinned, ok := h.Pinned(r.ClusterID); ok && pinned != hash {
			return fmt.Errorf("%w: %s is a custodian of cluster %s already, under roster %x", ceremony.ErrPin, h.Name(), r.ClusterID, pinned)
		}
	}
	g.say.sayf("genesis %s of cluster %s: %d of %d custodians, nodes %s", c.ID, r.ClusterID, r.Threshold, len(r.Custodians), nodeNames(r))
	g.say.sayf("roster SHA-256 %x: compare it with the other custodians", hash)
	return nil
}

func nodeNames(r fsm.Roster) string {
	names := make([]string, len(r.Nodes))
	for i, n := range r.Nodes {
		names[i] = string(n.ID)
	}
	return strings.Join(names, ", ")
}

func exchangeKeyOf(r fsm.Roster, node fsm.NodeID) ([]byte, error) {
	i := slices.IndexFunc(r.Nodes, func(n fsm.RosterNode) bool { return n.ID == node })
	if i < 0 {
		return nil, fmt.Errorf("%w: node %q is not in the roster", ErrShown, node)
	}
	return r.Nodes[i].ExchangeKey, nil
}

func (g *genesis) run(ctx context.Context, shown *vaultpb.Ceremony) (*vaultpb.Ceremony, error) {
	for {
		c := ceremonyOf(shown)
		if err := g.unchanged(c); err != nil {
			return nil, err
		}
		done, err := g.step(ctx, c)
		if err != nil {
			return nil, err
		}
		if done {
			return shown, g.finish(ctx, c)
		}
		if err := g.o.Pause(ctx); err != nil {
			return nil, fmt.Errorf("waiting in phase %s of ceremony %s: %w", c.Phase, c.ID, err)
		}
		if shown, err = g.look(ctx); err != nil {
			return nil, err
		}
	}
}

// unchanged: what was checked at the start must be what is signed, sealed to and acknowledged later.
func (g *genesis) unchanged(c fsm.Ceremony) error {
	f := g.first
	same := c.ID == f.ID && c.Purpose == f.Purpose && bytes.Equal(c.Nonce, f.Nonce) && c.Dealer == f.Dealer &&
		bytes.Equal(c.DealerCommitment, f.DealerCommitment) && fsm.RosterHash(c.Roster) == fsm.RosterHash(f.Roster)
	if !same {
		return fmt.Errorf("%w: ceremony %s changed under way", ErrShown, f.ID)
	}
	return nil
}

// step does what the phase asks of each participant, and reports whether the ceremony is done.
func (g *genesis) step(ctx context.Context, c fsm.Ceremony) (bool, error) {
	if c.Phase != g.phase {
		g.say.sayf("phase %s", c.Phase)
		g.phase = c.Phase
	}
	switch c.Phase {
	case fsm.PhaseDone:
		return true, nil
	case fsm.PhaseAborted:
		return false, fmt.Errorf("%w: genesis %s was aborted: %s", ErrCeremony, c.ID, c.Reason)
	case fsm.PhaseCommit:
		return false, g.each(c, func(p *participant) error { return g.commit(ctx, c, p) })
	case fsm.PhaseReveal:
		if err := g.fix(c); err != nil {
			return false, err
		}
		return false, g.each(c, func(p *participant) error { return g.reveal(ctx, c, p) })
	case fsm.PhaseAcknowledge:
		return false, g.each(c, func(p *participant) error { return g.acknowledge(ctx, c, p) })
	}
	return false, g.expired(c)
}

// fix remembers what is about to be revealed to: commitments that change afterwards were chosen with knowledge of the others'.
func (g *genesis) fix(c fsm.Ceremony) error {
	drawn := ceremony.EntropyTranscript(c)
	if g.drawn != [32]byte{} && g.drawn != drawn {
		return fmt.Errorf("%w: commitments changed after the reveal began", ErrShown)
	}
	g.drawn = drawn
	return nil
}

func (g *genesis) each(c fsm.Ceremony, act func(*participant) error) error {
	for _, p := range g.participants {
		if err := act(p); err != nil {
			return fmt.Errorf("custodian %s: %w", p.Name(), err)
		}
	}
	return g.expired(c)
}

func (g *genesis) expired(c fsm.Ceremony) error {
	if g.o.Now().After(c.ExpiresAt.Add(expiryGrace)) {
		return fmt.Errorf("%w: genesis %s ran out at %s in phase %s", ErrCeremony, c.ID, c.ExpiresAt.Format(time.RFC3339), c.Phase)
	}
	return nil
}

// finish pins the roster once it is seen in force, with every custodian's signature.
func (g *genesis) finish(ctx context.Context, c fsm.Ceremony) error {
	chain, err := g.chain(ctx)
	if err != nil {
		return err
	}
	if fsm.RosterHash(chain[0]) != fsm.RosterHash(g.first.Roster) {
		return fmt.Errorf("%w: the roster in force is not that of ceremony %s", ErrShown, c.ID)
	}
	for _, p := range g.participants {
		if err := p.CheckPin(chain[0].ClusterID, chain); err != nil {
			return err
		}
		if err := p.pin(chain[0]); err != nil {
			return err
		}
	}
	g.say.sayf("the master is in force; roster %x is pinned", fsm.RosterHash(chain[0]))
	return nil
}

// chain reads the rosters; a node that has not applied the last entry yet is asked again.
func (g *genesis) chain(ctx context.Context) ([]fsm.Roster, error) {
	for {
		reply, err := persist(ctx, g.o, g.say, func() (*vaultpb.GetRostersReply, error) {
			return g.api.GetRosters(ctx, &vaultpb.GetRostersRequest{})
		})
		if err != nil {
			return nil, fmt.Errorf("reading the rosters: %w", err)
		}
		if len(reply.GetRosters()) > 0 {
			chain := rostersOf(reply)
			return chain, verifyChain(chain)
		}
		if err := g.o.Pause(ctx); err != nil {
			return nil, fmt.Errorf("waiting for the roster: %w", err)
		}
	}
}
