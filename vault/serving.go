package vault

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// mayUse says whether this node may use its master under a state. An order to drain is state like a seal order, and so is who serves as the node: the
// guard's second check sees it at once, whatever lease the node still holds.
func (v *Vault) mayUse(s *fsm.State) error {
	if at := v.unsealedAt.Load(); at != 0 && s.Cluster().SealedAt <= at && v.serves(s) {
		return nil
	}
	if at := s.DrainedAt(v.cfg.Node); at != 0 {
		return fmt.Errorf("%w: node %s was taken out of service at index %d; another node serves", guard.ErrNoLease, v.cfg.Node, at)
	}
	if err := v.unsealed(s); err != nil {
		return err
	}
	// A state of before the unseal, which the leases of now say nothing about.
	return fmt.Errorf("%w: node %s had not applied its own unseal; try again", guard.ErrNoLease, v.cfg.Node)
}

// serves reports whether this process may rest on its leases under a state. Nobody waits for those of a drained node, of a process that has
// not been unsealed, of one beside which another was, on a copy of the node's data, or of one that a former member left.
func (v *Vault) serves(s *fsm.State) bool { return s.Serves(v.cfg.Node, v.cfg.Boot) }

// NodeAction is an order about a node.
type NodeAction string

const (
	NodeDrain   NodeAction = "drain"   // it uses no key any more; it replicates and votes as before
	NodeUndrain NodeAction = "undrain" // it uses keys again
	NodeRemove  NodeAction = "remove"  // it is drained and leaves the cluster
)

// NodeChange is what a caller orders about a node.
type NodeChange struct {
	Node   fsm.NodeID
	Action NodeAction
	Reason string
}

func (ch NodeChange) command() (fsm.Command, error) {
	switch ch.Action {
	case NodeDrain:
		return fsm.DrainNode{Node: ch.Node, Reason: ch.Reason}, nil
	case NodeUndrain:
		if ch.Reason != "" {
			return nil, fmt.Errorf("%w: undrain takes no reason", ErrInvalid)
		}
		return fsm.UndrainNode{Node: ch.Node}, nil
	case NodeRemove:
		return fsm.RemoveNode{Node: ch.Node, Reason: ch.Reason}, nil
	default:
		return nil, fmt.Errorf("%w: %q is no order about a node; use %s, %s or %s", ErrInvalid, ch.Action, NodeDrain, NodeUndrain, NodeRemove)
	}
}

// ChangeNode gives an order about a node. A drain is answered when the node can use no key any more, a removal when it has left the
// cluster too; *PendingError if the deadline ends before. A node that cannot be reached is waited for until its leases must have run
// out, and no longer.
func (v *Vault) ChangeNode(ctx context.Context, c policy.Caller, id fsm.RequestID, ch NodeChange) (uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return 0, err
	}
	command, err := ch.command()
	if err != nil {
		return 0, err
	}
	if ch.Action == NodeRemove && ch.Node == v.cfg.Node {
		// It would be cut off before it hears how that ended.
		return 0, fmt.Errorf("%w: node %s does not remove itself; ask another one", ErrUnavailable, ch.Node)
	}
	r, err := v.write(ctx, c, id, requestHash("nodes.change", string(ch.Node), string(ch.Action), ch.Reason), command)
	if err != nil || r.Barrier == 0 {
		return r.Index, err
	}
	// The completion is a later entry: show the node as drained, or gone, here too.
	s, err := v.cfg.Replica.WaitFor(ctx, func(s *fsm.State) bool { return s.BarrierDone(r.Barrier) })
	if err != nil {
		return 0, &PendingError{Index: r.Barrier, Pending: []fsm.NodeID{v.cfg.Node}}
	}
	return s.Applied(), nil
}
