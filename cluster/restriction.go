package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// AwaitRestriction returns when no node can act any more on a state without the entry at index, and with it the nodes that had
// not reported it: their leases have run out. It works on the leader; ErrNotLeader means that the wait must be repeated on the
// next one. If ctx ends first the error is a *PendingError. A restriction by which a member leaves is in force when it has left.
func (n *Node) AwaitRestriction(ctx context.Context, index uint64) (waited []NodeID, err error) {
	// The leader's own floor must include it first: only then does every later grant carry it.
	if err := n.WaitApplied(ctx, index); err != nil {
		return nil, n.pending(index, lease.Ack{Pending: []string{string(n.cfg.ID)}}, err)
	}
	defer n.putUpFences(ctx, index)()
	for {
		reported, elected := n.reported.Wait(), n.leadership.Wait()
		ack, err := n.acked(index)
		if err != nil {
			return nil, err
		}
		if ack.Done {
			return nodeIDs(ack.Expired), nil
		}
		timer := time.NewTimer(ack.Next)
		select {
		case <-reported:
		case <-elected:
		case <-timer.C:
		case <-n.stopped:
			err = ErrNotLeader
		case <-ctx.Done():
			err = n.pending(index, ack, ctx.Err())
		}
		timer.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// acked evaluates the rule, or says what is waited for until there is a table to evaluate it with.
func (n *Node) acked(index uint64) (lease.Ack, error) {
	if !n.IsLeader() {
		return lease.Ack{}, ErrNotLeader
	}
	serving := n.serving()
	table := n.tenure.Load()
	if table == nil {
		return lease.Ack{Pending: serving, Next: n.cfg.Lease.Period()}, nil
	}
	ack := table.AckedFor(n.cfg.Reach(index), index, serving)
	if id, leaving := n.leaving(index); ack.Done && leaving {
		return lease.Ack{Pending: []string{string(id)}, Next: reconcilePeriod}, nil
	}
	return ack, nil
}

// serving are the nodes that may hold a lease: the members, and whoever is still in raft's configuration, where a removed node
// stays until its lease must have run out, so that a new leader knows of it too. A member that is drained is none of them: whatever
// lease it may have, in each state that it can have with one it was ordered to serve nothing.
func (n *Node) serving() []string {
	var all []string
	drained := map[NodeID]bool{}
	for _, m := range n.cfg.Members() {
		if drained[m.ID] = m.Drained; !m.Drained {
			all = append(all, string(m.ID))
		}
	}
	for _, s := range n.servers() {
		if !drained[NodeID(s.ID)] {
			all = append(all, string(s.ID))
		}
	}
	return all
}

// member of the visible state; the zero Member if it has none of that name.
func (n *Node) member(id NodeID) Member {
	for _, m := range n.cfg.Members() {
		if m.ID == id {
			return m
		}
	}
	return Member{}
}

// withheld reports a node that was ordered to serve nothing.
func (n *Node) withheld(id string) bool { return n.member(NodeID(id)).Withheld }

// incumbent is the process that serves as a node, and since which index; empty if none does.
func (n *Node) incumbent(id string) (boot string, since uint64) {
	m := n.member(NodeID(id))
	return m.Incumbent, m.Since
}

// since is the index at which this process began to serve as its node; 0 if another one does, or none.
func (n *Node) since() uint64 {
	if boot, since := n.incumbent(string(n.cfg.ID)); boot == n.cfg.Boot {
		return since
	}
	return 0
}

// Latest returns nil if a process is the latest one of its node that has renewed with this leader: the only one that the state may have
// begin to serve. ErrNotLeader: this node does not lead, or has not heard of the process yet; ask again. lease.ErrOlderTwin: it has heard of a later
// process, which runs on a copy of the node's storage or has taken its place.
func (n *Node) Latest(id NodeID, boot string) error {
	table := n.tenure.Load()
	if table == nil || table.Term() != n.Term() {
		return ErrNotLeader
	}
	latest, err := table.Latest(string(id), boot)
	if err == nil && !latest {
		return ErrNotLeader
	}
	return err
}

// leaving is the node that is still in raft's configuration and has to leave it for the restriction at index.
func (n *Node) leaving(index uint64) (NodeID, bool) {
	for _, m := range n.cfg.Members() {
		if m.Leaving == index && slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return NodeID(s.ID) == m.ID }) {
			return m.ID, true
		}
	}
	return "", false
}

func (n *Node) pending(index uint64, a lease.Ack, cause error) error {
	if cause == ErrStopped {
		return ErrNotLeader
	}
	return &PendingError{Index: index, Pending: nodeIDs(a.Pending), Within: a.Within, Cause: cause}
}

func nodeIDs(names []string) []NodeID {
	out := make([]NodeID, len(names))
	for i, n := range names {
		out[i] = NodeID(n)
	}
	return out
}

func compacted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
