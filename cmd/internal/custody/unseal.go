package custody

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// requestNonceBytes is the size of the nonce in a signed unseal request, which keeps an overheard one from being used again.
const requestNonceBytes = 32

// UnsealReport says what became of the shares.
type UnsealReport struct {
	Ceremony string       `json:"ceremony"`
	Nodes    []NodeReport `json:"nodes"`
}

// NodeReport is a node's last word. A node that did not answer has neither Have nor Need, and says why in Reason.
type NodeReport struct {
	Node     string `json:"node"`
	Unsealed bool   `json:"unsealed"`
	Have     uint32 `json:"have"`
	Need     uint32 `json:"need"`
	Reason   string `json:"reason,omitempty"`
}

// Missing is how many shares the node still needs.
func (n NodeReport) Missing() uint32 {
	if n.Unsealed || n.Have >= n.Need {
		return 0
	}
	return n.Need - n.Have
}

// Unseal gives the share of each holder to every node of the roster in force. Nodes that do not answer are reported and are no
// error; a refused share is one that names its custodian, after the other holders had their turn.
func Unseal(ctx context.Context, api vaultpb.CeremoniesClient, holders []*Holder, o Options, say Progress) (*UnsealReport, error) {
	o = o.withDefaults()
	s, err := readStanding(ctx, api, o, say)
	if err != nil {
		return nil, err
	}
	u := &unseal{api: api, o: o, say: say, standing: s, report: &UnsealReport{}}
	var failed []error
	for _, h := range holders {
		if err := u.give(ctx, h); err != nil {
			failed = append(failed, fmt.Errorf("custodian %s: %w", h.Name(), err))
		}
	}
	u.sayMissing()
	return u.report, errors.Join(failed...)
}

type unseal struct {
	api      vaultpb.CeremoniesClient
	o        Options
	say      Progress
	standing standing
	report   *UnsealReport
}

// give takes one holder through: check the cluster, open the ceremony, seal the share to each node, hand over the bundle.
func (u *unseal) give(ctx context.Context, h *Holder) error {
	share, err := u.share(h)
	if err != nil {
		return err
	}
	defer share.Wipe()
	if err := h.pin(u.standing.chain[0]); err != nil {
		return err
	}
	id, err := u.start(ctx, h)
	if err != nil {
		return err
	}
	bundle, err := u.bundle(h, id, share)
	if err != nil {
		return err
	}
	reply, err := u.submit(ctx, h, id, bundle)
	if err != nil {
		return err
	}
	u.report.Ceremony = string(id)
	return u.judge(h.Name(), ceremonyOf(reply.GetCeremony()), reply.GetVerdicts())
}

// share opens the holder's share, once the roster chain starts at its pin, and checks it against the master in force: a node that
// shows another master would only learn a share of no use to it, but the custodian should hear of it.
func (u *unseal) share(h *Holder) (ceremony.Share, error) {
	s := u.standing
	if err := h.CheckPin(s.clusterID(), s.chain); err != nil {
		return ceremony.Share{}, err
	}
	if err := ceremony.CheckMember(s.current(), h.Public()); err != nil {
		return ceremony.Share{}, err
	}
	share, err := h.Share(s.clusterID(), s.master.GetGeneration())
	if err != nil {
		return ceremony.Share{}, err
	}
	if err := share.Verify(s.master.GetCommitments(), int(s.master.GetThreshold())); err != nil {
		share.Wipe()
		return ceremony.Share{}, fmt.Errorf("%w: the share in the identity is not of the master in force: %w", ErrShown, err)
	}
	return share, nil
}

// start opens the ceremony on the custodian's signed request, or joins the one that is open.
func (u *unseal) start(ctx context.Context, h *Holder) (fsm.CeremonyID, error) {
	nonce := make([]byte, requestNonceBytes)
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	request, err := newRequestID()
	if err != nil {
		return "", err
	}
	in := &vaultpb.StartUnsealRequest{
		RequestId: request, Custodian: string(h.Name()), Nonce: nonce,
		Signature: h.Sign(fsm.UnsealRequestMessage(u.standing.clusterID(), h.Name(), nonce)),
	}
	reply, err := persist(ctx, u.o, u.say, func() (*vaultpb.CeremonyReply, error) { return u.api.StartUnseal(ctx, in) })
	if err != nil {
		return "", fmt.Errorf("starting the unseal: %w", err)
	}
	c := reply.GetCeremony()
	if c.GetId() == "" || c.GetPurpose() != string(fsm.PurposeUnseal) {
		return "", fmt.Errorf("%w: that is no unseal ceremony", ErrShown)
	}
	return fsm.CeremonyID(c.GetId()), nil
}

func (u *unseal) bundle(h *Holder, id fsm.CeremonyID, share ceremony.Share) ([]ceremony.NodeShare, error) {
	encoded := share.Encode()
	defer clear(encoded)
	var bundle []ceremony.NodeShare
	for _, n := range u.standing.current().Nodes {
		sealed, err := ceremony.SealToNode(n.ExchangeKey, ceremony.Info{
			ClusterID: u.standing.clusterID(), Ceremony: id, Node: n.ID, Custodian: h.Name(), Purpose: ceremony.PurposeShare,
		}, encoded)
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, ceremony.NodeShare{Node: n.ID, Sealed: sealed})
	}
	return bundle, nil
}

func (u *unseal) submit(ctx context.Context, h *Holder, id fsm.CeremonyID, bundle []ceremony.NodeShare) (*vaultpb.SubmitShareReply, error) {
	in := &vaultpb.SubmitShareRequest{
		Ceremony: string(id), Custodian: string(h.Name()), Signature: h.Sign(ceremony.BundleMessage(id, h.Name(), bundle)),
	}
	for _, s := range bundle {
		in.Shares = append(in.Shares, &vaultpb.SealedNodeShare{Node: string(s.Node), Sealed: s.Sealed})
	}
	reply, err := persist(ctx, u.o, u.say, func() (*vaultpb.SubmitShareReply, error) { return u.api.SubmitShare(ctx, in) })
	if err != nil {
		return nil, fmt.Errorf("handing over the share: %w", err)
	}
	return reply, nil
}

// judge reports each node's verdict. A node of the roster that the answer passes over counts as one that did not answer.
func (u *unseal) judge(who fsm.CustodianName, c fsm.Ceremony, verdicts []*vaultpb.NodeVerdict) error {
	var refused []error
	for _, n := range u.standing.current().Nodes {
		i := slices.IndexFunc(verdicts, func(v *vaultpb.NodeVerdict) bool { return v.GetNode() == string(n.ID) })
		if i < 0 {
			u.note(NodeReport{Node: string(n.ID), Reason: "no answer"})
			continue
		}
		v := verdicts[i]
		u.note(NodeReport{Node: v.GetNode(), Unsealed: v.GetUnsealed(), Have: v.GetHave(), Need: v.GetNeed(), Reason: v.GetReason()})
		switch {
		case v.GetAccepted() && v.GetUnsealed():
			u.say.sayf("%s: node %s accepted the share and is unsealed", who, n.ID)
		case v.GetAccepted():
			u.say.sayf("%s: node %s accepted the share (%d of %d)", who, n.ID, v.GetHave(), v.GetNeed())
		case refusedBy(c, who, v):
			refused = append(refused, fmt.Errorf("%w by node %s: %s", ErrRefused, n.ID, v.GetReason()))
		case v.GetUnsealed():
			u.say.sayf("%s: node %s is unsealed already", who, n.ID)
		default:
			u.say.sayf("%s: node %s did not answer: %s", who, n.ID, v.GetReason())
		}
	}
	return errors.Join(refused...)
}

// refusedBy tells a refusal from silence: a node that judged a share says how many it needs, or the log has its verdict.
func refusedBy(c fsm.Ceremony, who fsm.CustodianName, v *vaultpb.NodeVerdict) bool {
	if v.GetUnsealed() {
		return false
	}
	return v.GetNeed() > 0 || slices.ContainsFunc(c.Verdicts, func(s fsm.ShareVerdict) bool {
		return s.Custodian == who && string(s.Node) == v.GetNode() && !s.Accepted
	})
}

// note keeps the last word of each node, but no silence over an answer.
func (u *unseal) note(n NodeReport) {
	i := slices.IndexFunc(u.report.Nodes, func(have NodeReport) bool { return have.Node == n.Node })
	switch {
	case i < 0:
		u.report.Nodes = append(u.report.Nodes, n)
	case n.Need > 0 || n.Unsealed:
		u.report.Nodes[i] = n
	}
}

func (u *unseal) sayMissing() {
	for _, n := range u.report.Nodes {
		if m := n.Missing(); m > 0 {
			u.say.sayf("node %s needs %d more of %d shares", n.Node, m, n.Need)
		}
	}
}
