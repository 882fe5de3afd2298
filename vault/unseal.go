package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/policy"
)

// gathering is the shares that this node holds for the open unseal ceremony, in memory only.
type gathering struct {
	ceremony fsm.CeremonyID
	shares   map[fsm.CustodianName]ceremony.Share
}

func (g *gathering) reset(id fsm.CeremonyID) {
	for _, s := range g.shares {
		s.Wipe()
	}
	*g = gathering{ceremony: id, shares: map[fsm.CustodianName]ceremony.Share{}}
}

// StartUnseal opens the unseal ceremony on a custodian's signed request, or returns the open one.
func (v *Vault) StartUnseal(ctx context.Context, c policy.Caller, id fsm.RequestID, who fsm.CustodianName, nonce, signature []byte) (fsm.Ceremony, uint64, error) {
	cmd := fsm.StartUnseal{ID: fsm.CeremonyID(uuid.NewString()), Nonce: nonce, Custodian: who, Signature: signature, TTL: defaultCeremony}
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.unseal", string(who), string(nonce)), cmd)
}

// deliveredShare is a custodian's share on its way to one node, sealed to it, with the whole signed bundle that it is part of.
type deliveredShare struct {
	Ceremony  fsm.CeremonyID       `json:"ceremony"`
	Custodian fsm.CustodianName    `json:"custodian"`
	Bundle    []ceremony.NodeShare `json:"bundle"`
	Signature []byte               `json:"signature"`
}

// ShareVerdict is what one node says of a share.
type ShareVerdict struct {
	Node     fsm.NodeID `json:"node"`
	Accepted bool       `json:"accepted"`
	Unsealed bool       `json:"unsealed"`
	Have     int        `json:"have"`
	Need     int        `json:"need"`
	Reason   string     `json:"reason,omitempty"`
}

// maxBundle bounds a bundle: as many parts as a cluster has nodes.
const maxBundle = 64

// SubmitShare checks this node's own part of a custodian's bundle first, so that a wrong share is refused at once, then relays
// the others, which this node cannot read. Nodes that do not answer are named in their verdicts; they are no error.
func (v *Vault) SubmitShare(ctx context.Context, c policy.Caller, id fsm.CeremonyID, who fsm.CustodianName, bundle []ceremony.NodeShare, signature []byte) ([]ShareVerdict, error) {
	s, err := v.current(ctx)
	if err != nil {
		return nil, err
	}
	if err := policy.Identify(s, c); err != nil {
		return nil, err
	}
	if len(bundle) == 0 || len(bundle) > maxBundle {
		return nil, fmt.Errorf("%w: a bundle of %d shares, 1 to %d", ErrInvalid, len(bundle), maxBundle)
	}
	d := deliveredShare{Ceremony: id, Custodian: who, Bundle: bundle, Signature: signature}
	own := slices.IndexFunc(bundle, func(n ceremony.NodeShare) bool { return n.Node == v.cfg.Node })
	if own < 0 {
		return nil, fmt.Errorf("%w: the bundle has no share for node %s, which was called", ErrInvalid, v.cfg.Node)
	}
	first, err := v.receiveShare(ctx, d)
	if err != nil {
		return nil, err
	}
	return v.relay(ctx, d, own, first), nil
}

func (v *Vault) relay(ctx context.Context, d deliveredShare, own int, first ShareVerdict) []ShareVerdict {
	verdicts := make([]ShareVerdict, len(d.Bundle))
	var wg sync.WaitGroup
	for i, part := range d.Bundle {
		if i == own {
			verdicts[i] = first
			continue
		}
		wg.Go(func() {
			answer, err := askNode[ShareVerdict](ctx, v, part.Node, kindShare, d)
			if err != nil {
				answer = ShareVerdict{Reason: err.Error()}
				if errors.Is(err, ErrShare) { // it answered, and refused
					answer.Need = first.Need
				}
			}
			answer.Node = part.Node
			verdicts[i] = answer
		})
	}
	wg.Wait()
	return verdicts
}

// receiveShare is each node's side: check, record the verdict, and unseal with the last share that was needed. A share that does
// not verify is recorded as refused, with its custodian's name, and is an error.
func (v *Vault) receiveShare(ctx context.Context, d deliveredShare) (ShareVerdict, error) {
	s, err := v.current(ctx)
	if err != nil {
		return ShareVerdict{}, err
	}
	m, roster, err := v.openUnseal(s, d)
	if err != nil {
		return ShareVerdict{}, err
	}
	v.noticeLoss()
	verdict := ShareVerdict{Node: v.cfg.Node, Need: int(m.Threshold)}
	if v.unsealed(s) == nil {
		verdict.Accepted, verdict.Unsealed, verdict.Have = true, true, verdict.Need
		return verdict, nil
	}
	share, reason := v.openShare(s, m, roster, d)
	if reason != "" {
		_, err := v.report(ctx, fsm.RecordShareVerdict{Ceremony: d.Ceremony, Custodian: d.Custodian, Node: v.cfg.Node, Reason: reason})
		return verdict, errors.Join(fmt.Errorf("%w: the share of custodian %s on node %s: %s", ErrShare, d.Custodian, v.cfg.Node, reason), err)
	}
	if _, err := v.report(ctx, fsm.RecordShareVerdict{Ceremony: d.Ceremony, Custodian: d.Custodian, Node: v.cfg.Node, Accepted: true}); err != nil {
		share.Wipe()
		return verdict, err
	}
	verdict.Accepted = true
	verdict.Have, err = v.gather(ctx, s, m, d, share)
	verdict.Unsealed = v.unsealed(v.state()) == nil
	return verdict, err
}

// openUnseal checks that the ceremony is open and that the bundle is signed by the custodian it names.
func (v *Vault) openUnseal(s *fsm.State, d deliveredShare) (fsm.Master, fsm.Roster, error) {
	c, found := s.Ceremony(d.Ceremony)
	m, mastered := s.Master()
	roster, _ := s.Roster()
	switch {
	case !mastered:
		return m, roster, fmt.Errorf("%w: there is no master yet; first: conclave ceremony genesis", ErrCeremony)
	case !found || c.Purpose != fsm.PurposeUnseal:
		return m, roster, fmt.Errorf("%w: there is no unseal ceremony %q", ErrCeremony, d.Ceremony)
	case c.Phase == fsm.PhaseAborted:
		return m, roster, fmt.Errorf("%w: ceremony %s was aborted: %s", ErrCeremony, c.ID, c.Reason)
	}
	place, err := ceremony.Place(roster, d.Custodian)
	if err != nil {
		return m, roster, fmt.Errorf("%w: %w", ErrShare, err)
	}
	if err := ceremony.VerifyBundle(roster.Custodians[place-1].SigningKey, d.Ceremony, d.Custodian, d.Bundle, d.Signature); err != nil {
		return m, roster, fmt.Errorf("%w: custodian %s: %w", ErrShare, d.Custodian, err)
	}
	return m, roster, nil
}

// openShare opens and verifies this node's part. The reason is for the log.
func (v *Vault) openShare(s *fsm.State, m fsm.Master, roster fsm.Roster, d deliveredShare) (ceremony.Share, string) {
	own := slices.IndexFunc(d.Bundle, func(n ceremony.NodeShare) bool { return n.Node == v.cfg.Node })
	if own < 0 {
		return ceremony.Share{}, "the bundle has no share for this node"
	}
	info := ceremony.Info{ClusterID: s.Cluster().ID, Ceremony: d.Ceremony, Node: v.cfg.Node, Custodian: d.Custodian, Purpose: ceremony.PurposeShare}
	clear1, err := ceremony.OpenAtNode(v.cfg.Token.Exchange(), info, d.Bundle[own].Sealed)
	if err != nil {
		return ceremony.Share{}, "it does not open here"
	}
	defer clear(clear1)
	share, err := ceremony.DecodeShare(clear1)
	if err != nil {
		return ceremony.Share{}, "it is malformed"
	}
	place, _ := ceremony.Place(roster, d.Custodian)
	if share.Number != place || share.Verify(m.Commitments, int(m.Threshold)) != nil {
		share.Wipe()
		return ceremony.Share{}, "it does not verify against the genesis commitments"
	}
	return share, ""
}

// gather keeps a verified share, and unseals when there are enough. One at a time, so that the last share unseals once.
func (v *Vault) gather(ctx context.Context, s *fsm.State, m fsm.Master, d deliveredShare, share ceremony.Share) (int, error) {
	if err := v.unsealing.take(ctx); err != nil {
		share.Wipe()
		return 0, fmt.Errorf("waiting for an unseal that is under way, so custodian %s gives the share to node %s again if it is still sealed then: %w", d.Custodian, v.cfg.Node, err)
	}
	defer v.unsealing.give()
	v.noticeLossLocked()
	if v.unsealed(v.state()) == nil { // meanwhile
		share.Wipe()
		return int(m.Threshold), nil
	}
	if v.gathering.ceremony != d.Ceremony {
		v.gathering.reset(d.Ceremony)
	}
	if old, again := v.gathering.shares[d.Custodian]; again {
		old.Wipe()
	}
	v.gathering.shares[d.Custodian] = share
	have := len(v.gathering.shares)
	if have < int(m.Threshold) {
		return have, nil
	}
	defer v.gathering.reset(d.Ceremony)
	return have, v.unsealWith(ctx, s, m, d.Ceremony)
}

// unsealWith recovers the secret, checks the keys against what the genesis recorded, gives them to the HSM, and reports. Only
// the committed report opens the guard.
func (v *Vault) unsealWith(ctx context.Context, s *fsm.State, m fsm.Master, id fsm.CeremonyID) error {
	var shares []ceremony.Share
	for _, share := range v.gathering.shares {
		shares = append(shares, share)
	}
	secret, err := ceremony.Combine(shares, m.Commitments, int(m.Threshold))
	if err != nil {
		return fmt.Errorf("recovering the master: %w", err)
	}
	defer secret.Wipe()
	master, err := hsm.DeriveMaster(secret, s.Cluster().ID, m.Generation)
	if err != nil {
		return err
	}
	defer master.Wipe()
	if err := checkMaster(master, m); err != nil {
		return err
	}
	if err := v.importMaster(ctx, s, master); err != nil {
		return err
	}
	return v.reportUnsealed(ctx, s, m.Generation, id)
}

func checkMaster(master *hsm.Master, m fsm.Master) error {
	check, err := master.Check()
	if err != nil {
		return err
	}
	if !slices.EqualFunc(check.List(), m.Check, func(a, b []byte) bool { return string(a) == string(b) }) {
		return errors.New("the recovered master does not have the recorded check values")
	}
	return nil
}

func (v *Vault) importMaster(ctx context.Context, s *fsm.State, master *hsm.Master) error {
	v.guard.Purge()
	var keep *hsm.Persistence
	if v.cfg.PersistMaster {
		keep = &hsm.Persistence{ClusterID: master.ClusterID, Generation: master.Generation, UnsealedAt: s.Applied()}
	}
	if err := v.cfg.Token.ImportMaster(ctx, master, keep); err != nil {
		return fmt.Errorf("importing the master into the HSM: %w", err)
	}
	return nil
}

// reportUnsealed tells the cluster. If a seal order came between, the state machine refuses and the node seals again.
func (v *Vault) reportUnsealed(ctx context.Context, s *fsm.State, generation uint32, id fsm.CeremonyID) error {
	r, err := v.report(ctx, fsm.RecordNodeUnsealed{
		Node: v.cfg.Node, Boot: v.cfg.Boot, Generation: generation, Ceremony: id, Seen: s.Applied(),
	})
	if err != nil {
		// Only a seal order that came between ends a kept master; an outage does not, and restore tries again.
		var r *Refused
		overtaken := errors.As(err, &r) && r.Code == fsm.CodeConflict
		return errors.Join(fmt.Errorf("reporting the unseal: %w", err), v.cfg.Token.Seal(context.WithoutCancel(ctx), overtaken))
	}
	v.unsealedAt.Store(r.Index)
	v.loss.Store(nil)
	v.log.Info("unsealed", "generation", generation, "index", r.Index)
	return nil
}
