package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
)

// consensus gives vault its ports: cluster's node, with this project's names and errors.
type consensus struct{ node *cluster.Node }

var (
	_ vault.Proposer = consensus{}
	_ vault.Peers    = consensus{}
)

// translate keeps the cause's text and gives it the meaning that vault knows.
func translate(err error) error {
	var pending *cluster.PendingError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pending):
		return &vault.PendingError{Index: pending.Index, Pending: nodeIDs(pending.Pending), Within: pending.Within}
	case errors.Is(err, cluster.ErrNotLeader):
		return fmt.Errorf("%w: %w", vault.ErrNotLeader, err)
	case errors.Is(err, cluster.ErrOutcomeUnknown):
		return fmt.Errorf("%w: %w", vault.ErrOutcomeUnknown, err)
	case errors.Is(err, cluster.ErrNoLeader), errors.Is(err, cluster.ErrUnreachable), errors.Is(err, cluster.ErrStopped),
		errors.Is(err, cluster.ErrUnknownNode), errors.Is(err, cluster.ErrNotMember), errors.Is(err, cluster.ErrBusy):
		return fmt.Errorf("%w: %w", vault.ErrUnavailable, err)
	}
	return err
}

func nodeIDs[T ~string](in []T) []fsm.NodeID {
	out := make([]fsm.NodeID, len(in))
	for i, n := range in {
		out[i] = fsm.NodeID(n)
	}
	return out
}

func (c consensus) Propose(ctx context.Context, entry []byte) (any, error) {
	_, response, err := c.node.Propose(ctx, entry)
	return response, translate(err)
}

func (c consensus) Forward(ctx context.Context, kind string, payload []byte) ([]byte, error) {
	b, err := c.node.CallLeader(ctx, kind, payload)
	return b, translate(err)
}

func (c consensus) Barrier(ctx context.Context) error { return translate(c.node.Barrier(ctx)) }

func (c consensus) ReadIndex(ctx context.Context) (uint64, error) {
	i, err := c.node.ReadIndex(ctx)
	return i, translate(err)
}

func (c consensus) AwaitRestriction(ctx context.Context, index uint64) ([]fsm.NodeID, error) {
	waited, err := c.node.AwaitRestriction(ctx, index)
	return nodeIDs(waited), translate(err)
}

func (c consensus) Latest(id fsm.NodeID, boot string) error {
	err := c.node.Latest(cluster.NodeID(id), boot)
	if errors.Is(err, lease.ErrOlderTwin) {
		return fmt.Errorf("%w: another process of node %s began later; if both run, on copies of one data directory, end one; if it has ended, try again in some seconds", vault.ErrCeremony, id)
	}
	return translate(err)
}

func (c consensus) IsLeader() bool { return c.node.IsLeader() }
func (c consensus) Term() uint64   { return c.node.Term() }

func (c consensus) Leader() (fsm.NodeID, bool) {
	id, ok := c.node.Leader()
	return fsm.NodeID(id), ok
}

func (c consensus) Voters() []fsm.NodeID { return nodeIDs(c.node.Voters()) }

func (c consensus) Call(ctx context.Context, to fsm.NodeID, kind string, payload []byte) ([]byte, error) {
	b, err := c.node.Call(ctx, cluster.NodeID(to), kind, payload)
	return b, translate(err)
}

func (c consensus) Gossip(id fsm.NodeID) string {
	for _, m := range c.node.Gossip() {
		if fsm.NodeID(m.ID) == id {
			return m.State
		}
	}
	return "unknown"
}
