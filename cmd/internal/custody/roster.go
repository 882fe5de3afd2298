package custody

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// Roster puts nodes into the next roster version, so that custodians' programs give them shares: the first holder starts the ceremony
// if none is open, each of the others signs it. An open ceremony is signed only if it admits exactly the nodes in admit, with the
// exchange keys that the cluster lists: what a custodian signs is what the custodian asked for, not what is shown.
func Roster(ctx context.Context, api vaultpb.CeremoniesClient, nodes vaultpb.ClusterClient, holders []*Holder, admit []string, o Options, say Progress) (*vaultpb.Ceremony, error) {
	o = o.withDefaults()
	s, err := readStanding(ctx, api, o, say)
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		if err := h.CheckPin(s.clusterID(), s.chain); err != nil {
			return nil, err
		}
		if err := ceremony.CheckMember(s.current(), h.Public()); err != nil {
			return nil, err
		}
	}
	next, err := nextRoster(ctx, nodes, s.current(), admit, say)
	if err != nil {
		return nil, err
	}
	f := rosterFlow{api: api, o: o, say: say, next: next}
	return f.run(ctx, holders)
}

// nextRoster is the current one with the named nodes and the keys they have now. A node that is in the roster with another key was
// replaced, and gets the new one.
func nextRoster(ctx context.Context, nodes vaultpb.ClusterClient, current fsm.Roster, admit []string, say Progress) (fsm.Roster, error) {
	reply, err := nodes.ListNodes(ctx, &vaultpb.ListNodesRequest{})
	if err != nil {
		return fsm.Roster{}, fmt.Errorf("listing the nodes: %w", err)
	}
	next := current
	next.Version, next.Previous, next.Signatures = current.Version+1, fsm.RosterHash(current), nil
	next.Nodes = slices.Clone(current.Nodes)
	for _, name := range admit {
		i := slices.IndexFunc(reply.GetItems(), func(n *vaultpb.Node) bool { return n.GetId() == name })
		if i < 0 {
			return fsm.Roster{}, fmt.Errorf("%w: the cluster has no node %q", ErrCeremony, name)
		}
		key := reply.GetItems()[i].GetExchangeKey()
		say.sayf("node %s, exchange key SHA-256 %x: compare it with what the node prints", name, sha256.Sum256(key))
		next.Nodes = withNode(next.Nodes, fsm.RosterNode{ID: fsm.NodeID(name), ExchangeKey: key})
	}
	if slices.EqualFunc(next.Nodes, current.Nodes, sameNode) {
		return fsm.Roster{}, fmt.Errorf("%w: roster version %d has these nodes already", ErrCeremony, current.Version)
	}
	return next, nil
}

func sameNode(a, b fsm.RosterNode) bool {
	return a.ID == b.ID && bytes.Equal(a.ExchangeKey, b.ExchangeKey)
}

func withNode(nodes []fsm.RosterNode, n fsm.RosterNode) []fsm.RosterNode {
	if i := slices.IndexFunc(nodes, func(have fsm.RosterNode) bool { return have.ID == n.ID }); i >= 0 {
		nodes[i] = n
		return nodes
	}
	return append(nodes, n)
}

// rosterFlow signs one proposed roster, and no other.
type rosterFlow struct {
	api  vaultpb.CeremoniesClient
	o    Options
	say  Progress
	next fsm.Roster
}

func (f rosterFlow) run(ctx context.Context, holders []*Holder) (*vaultpb.Ceremony, error) {
	open, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		act := f.sign
		if open == nil {
			act = f.start
		}
		if open, err = act(ctx, h, open); err != nil {
			return nil, fmt.Errorf("custodian %s: %w", h.Name(), err)
		}
		f.say.sayf("%s signed roster version %d (%d of %d)", h.Name(), f.next.Version, len(open.GetRoster().GetSignatures()), f.next.Threshold)
	}
	return open, nil
}

// open finds the ceremony that waits for signatures; nil if there is none.
func (f rosterFlow) open(ctx context.Context) (*vaultpb.Ceremony, error) {
	in := &vaultpb.GetCeremonyRequest{Purpose: string(fsm.PurposeRoster)}
	reply, err := persist(ctx, f.o, f.say, func() (*vaultpb.CeremonyReply, error) { return f.api.GetCeremony(ctx, in) })
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the roster ceremony: %w", err)
	}
	c := reply.GetCeremony()
	if c.GetPhase() != string(fsm.PhaseSign) || c.GetExpiresAt().AsTime().Before(f.o.Now()) {
		return nil, nil
	}
	return c, nil
}

func (f rosterFlow) signature(h *Holder) []byte {
	return h.Sign(fsm.RosterMessage(fsm.RosterHash(f.next)))
}

func (f rosterFlow) start(ctx context.Context, h *Holder, _ *vaultpb.Ceremony) (*vaultpb.Ceremony, error) {
	request, err := newRequestID()
	if err != nil {
		return nil, err
	}
	in := &vaultpb.StartRosterRequest{RequestId: request, Roster: rosterMessage(f.next), Custodian: string(h.Name()), Signature: f.signature(h)}
	reply, err := persist(ctx, f.o, f.say, func() (*vaultpb.CeremonyReply, error) { return f.api.StartRoster(ctx, in) })
	if err != nil {
		return nil, fmt.Errorf("starting the roster ceremony: %w", err)
	}
	return reply.GetCeremony(), nil
}

func (f rosterFlow) sign(ctx context.Context, h *Holder, open *vaultpb.Ceremony) (*vaultpb.Ceremony, error) {
	if shown := rosterOf(open.GetRoster()); fsm.RosterHash(shown) != fsm.RosterHash(f.next) {
		return nil, fmt.Errorf("%w: ceremony %s proposes roster %x with nodes %s, asked for is %x with nodes %s", ErrShown,
			open.GetId(), fsm.RosterHash(shown), nodeNames(shown), fsm.RosterHash(f.next), nodeNames(f.next))
	}
	if open.GetPhase() == string(fsm.PhaseDone) {
		return open, nil // enough have signed
	}
	request, err := newRequestID()
	if err != nil {
		return nil, err
	}
	in := &vaultpb.SignRosterRequest{RequestId: request, Ceremony: open.GetId(), Custodian: string(h.Name()), Signature: f.signature(h)}
	reply, err := persist(ctx, f.o, f.say, func() (*vaultpb.CeremonyReply, error) { return f.api.SignRoster(ctx, in) })
	if err != nil {
		return nil, fmt.Errorf("signing the roster: %w", err)
	}
	return reply.GetCeremony(), nil
}
