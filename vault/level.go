package vault

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// RaiseFeatureLevel takes the cluster to a feature level, the next one, after every node has said that it understands it. Every node must
// answer: one that is down may be of an older release, and would have to stop when it comes back. A level that is in force already
// is no error. It returns the level in force and the index of the state that has it.
func (v *Vault) RaiseFeatureLevel(ctx context.Context, c policy.Caller, id fsm.RequestID, level uint32) (inForce uint32, index uint64, err error) {
	if err := v.administer(ctx, c); err != nil {
		return 0, 0, err
	}
	if s := v.state(); s.FeatureLevel() >= level {
		return s.FeatureLevel(), s.Applied(), nil
	}
	cmd := fsm.RaiseFeatureLevel{Level: level}
	if level > fsm.FeatureLevel {
		return 0, 0, fmt.Errorf("%w: feature level %d, and the newest that node %s understands is %d: upgrade the nodes first", ErrInvalid, level, v.cfg.Node, fsm.FeatureLevel)
	}
	if cmd.Nodes, err = v.understood(ctx, v.state()); err != nil {
		return 0, 0, err
	}
	if _, err := v.write(ctx, c, id, requestHash("cluster.level", fmt.Sprint(level)), cmd); err != nil {
		return 0, 0, err
	}
	s := v.state()
	return s.FeatureLevel(), s.Applied(), nil
}

// understood asks every member for the newest level that it understands.
func (v *Vault) understood(ctx context.Context, s *fsm.State) ([]fsm.NodeLevel, error) {
	answers := everyNode(ctx, v, s, func(ctx context.Context, n fsm.Node) NodeStatus {
		answer, err := askNode[NodeStatus](ctx, v, n.ID, kindStatus, struct{}{})
		if err != nil {
			answer = NodeStatus{Error: err.Error()}
		}
		answer.ID = n.ID
		return answer
	})
	var all []fsm.NodeLevel
	for _, a := range answers {
		if a.Understands == 0 && a.Error != "" {
			return nil, fmt.Errorf("%w: node %s does not answer (%s), and it may be of an older release: bring it back, or remove it (conclave node remove %s)", ErrUnavailable, a.ID, a.Error, a.ID)
		}
		all = append(all, fsm.NodeLevel{Node: a.ID, Understands: a.Understands})
	}
	return all, nil
}
