package vault

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// lead is the leader's side of a write: authorise again, stamp, commit, and wait for a restriction to be in force.
func (v *Vault) lead(ctx context.Context, from fsm.NodeID, p proposal) (fsm.Result, error) {
	ctx, cancel := bounded(ctx) // "pending on n3" must reach the entry node before its own deadline
	defer cancel()
	if err := v.readyToLead(ctx); err != nil {
		return fsm.Result{}, err
	}
	e, err := fsm.DecodeEntry(p.Entry)
	if err != nil {
		return fsm.Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := v.mayPropose(from, p.Caller, e); err != nil {
		return fsm.Result{}, err
	}
	if dated(e.Command) {
		if err := v.clockFit(ctx); err != nil {
			return fsm.Result{}, err
		}
	}
	if r := v.state().Speaks(e.Command); r.Code != fsm.CodeOK {
		return r, nil
	}
	if r := v.foresee(ctx, e); r.Code != fsm.CodeOK {
		return r, nil
	}
	return v.commit(ctx, e)
}

// foresee refuses before the log what the state machine would refuse after it, for commands that any client may send: their right
// is a signature inside, and a log that takes every forgery could be filled by whoever holds a certificate. So could one that takes
// every attempt to use a key whose budget is spent. The state machine decides all the same.
func (v *Vault) foresee(ctx context.Context, e fsm.Entry) fsm.Result {
	switch e.Command.(type) {
	case fsm.CommitEntropy, fsm.AcknowledgeShare, fsm.StartUnseal, fsm.StartRoster, fsm.SignRoster, fsm.ReserveUse:
		return v.state().Preview(e.Stamped(v.stamp(ctx)))
	default:
		return fsm.Result{}
	}
}

// readyToLead makes sure, once a term, that this leader has applied all that earlier leaders committed: it must not authorise
// from a state that lacks a revocation.
func (v *Vault) readyToLead(ctx context.Context) error {
	if !v.cfg.Proposer.IsLeader() {
		return ErrNotLeader
	}
	term := v.cfg.Proposer.Term()
	if v.leadReady.Load() == term {
		return nil
	}
	if err := v.cfg.Proposer.Barrier(ctx); err != nil {
		return err
	}
	v.compareClock(ctx, always) // before the first stamp of the term
	v.leadReady.Store(term)
	return nil
}

// commit proposes. If it is a restriction (or the repeat of one), it waits for its barrier.
func (v *Vault) commit(ctx context.Context, e fsm.Entry) (fsm.Result, error) {
	result, err := v.propose(ctx, e)
	if err != nil || result.Code != fsm.CodeOK || result.Barrier == 0 {
		return result, err
	}
	return result, v.awaitBarrier(ctx, result.Barrier)
}

// propose stamps an entry and returns what the state machine made of it.
func (v *Vault) propose(ctx context.Context, e fsm.Entry) (fsm.Result, error) {
	data, err := fsm.EncodeEntry(e.Stamped(v.stamp(ctx)))
	if err != nil {
		return fsm.Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	response, err := v.cfg.Proposer.Propose(ctx, data)
	if err != nil {
		return fsm.Result{}, err
	}
	result, ok := response.(fsm.Result)
	if !ok {
		return fsm.Result{}, fmt.Errorf("the state machine stopped: %v", response)
	}
	return result, nil
}

// mayPropose authorises an entry from the leader's own state. A client's entry must be proposed in the name of the caller whom
// the entry node verified; a node's own entry in that node's name.
func (v *Vault) mayPropose(from fsm.NodeID, c *policy.Caller, e fsm.Entry) error {
	s := v.state()
	if c == nil {
		return v.mayReport(s, from, e)
	}
	if e.Actor != c.Actor() || e.Credential != c.Serial {
		return fmt.Errorf("%w: an entry in another's name", policy.ErrDenied)
	}
	switch e.Command.(type) {
	case fsm.CommitEntropy, fsm.AcknowledgeShare, fsm.StartUnseal, fsm.StartRoster, fsm.SignRoster:
		return policy.Identify(s, *c) // the custodian's signature inside is what counts, and every replica verifies it
	case fsm.DrainNode, fsm.UndrainNode, fsm.RemoveNode:
		return policy.Administer(s, *c)
	case fsm.CreateKey, fsm.ImportKey, fsm.ExportKey, fsm.RotateKey, fsm.ChangeKey, fsm.CreateJoinToken, fsm.RecordCertificate, fsm.RevokeCertificates,
		fsm.StartGenesis, fsm.AbortCeremony, fsm.SealCluster, fsm.RaiseFeatureLevel,
		fsm.CreateClass, fsm.UpdateClass, fsm.DeleteClass, fsm.SetKeyClass, fsm.UpdateKey, fsm.SetBudget:
		return policy.Administer(s, *c)
	default:
		return fmt.Errorf("%w: %T is no client's command", policy.ErrDenied, e.Command)
	}
}

// mayReport allows what nodes say of themselves, and nothing in another node's name.
func (v *Vault) mayReport(s *fsm.State, from fsm.NodeID, e fsm.Entry) error {
	about := from
	switch cmd := e.Command.(type) {
	case fsm.RecordShareVerdict:
		about = cmd.Node
	case fsm.RecordNodeUnsealed:
		about = cmd.Node
	case fsm.MoveNode:
		about = cmd.Node
	case fsm.DescribeDevice:
		about = cmd.Node
	case fsm.ReserveUse:
		about = cmd.Node
	case fsm.ReturnUse:
		about = cmd.Node
	case fsm.RecordUse:
		about = cmd.Node
	case fsm.RecordErasure:
		about = cmd.Node
	case fsm.RecordReveal, fsm.PublishDeal, fsm.AbortCeremony:
		about = v.dealerOf(s, cmd)
	case fsm.AdmitNode: // the token inside is what counts
	default:
		return fmt.Errorf("%w: %T is not for a node to propose", policy.ErrDenied, e.Command)
	}
	if about != from || e.Actor != fsm.Actor("spiffe://"+s.Cluster().ID+"/node/"+string(from)) {
		return fmt.Errorf("%w: node %s speaks for another", policy.ErrDenied, from)
	}
	if u, unsealed := e.Command.(fsm.RecordNodeUnsealed); unsealed { // which makes the process its node's incumbent
		return v.cfg.Proposer.Latest(u.Node, u.Boot)
	}
	return nil
}

func (v *Vault) dealerOf(s *fsm.State, cmd fsm.Command) fsm.NodeID {
	var id fsm.CeremonyID
	switch cmd := cmd.(type) {
	case fsm.RecordReveal:
		id = cmd.Ceremony
	case fsm.PublishDeal:
		id = cmd.Ceremony
	case fsm.AbortCeremony:
		id = cmd.Ceremony
	}
	c, _ := s.Ceremony(id)
	return c.Dealer
}
