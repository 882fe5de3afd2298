package cluster

import (
	"context"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// running returns raft between its start and the end of Run.
func (n *Node) running() (*raft.Raft, error) {
	if r := n.raft.Load(); r != nil {
		return r, nil
	}
	return nil, ErrStopped
}

// Leader returns the node that this one believes to lead; false if it knows none. It may be wrong by the time it is used.
func (n *Node) Leader() (NodeID, bool) {
	r, err := n.running()
	if err != nil {
		return "", false
	}
	_, id := r.LeaderWithID()
	return NodeID(id), id != ""
}

// IsLeader reports whether raft has this node in the leader's state. A leader that was replaced may not know it yet.
func (n *Node) IsLeader() bool {
	r, err := n.running()
	return err == nil && r.State() == raft.Leader
}

// Term is raft's current term; 0 when not running.
func (n *Node) Term() uint64 {
	r, err := n.running()
	if err != nil {
		return 0
	}
	return r.CurrentTerm()
}

// Role is "leader", "follower" (votes, also while it asks for votes) or "nonvoter".
func (n *Node) Role() string {
	switch {
	case n.IsLeader():
		return "leader"
	case slices.Contains(n.Voters(), n.cfg.ID):
		return "follower"
	default:
		return "nonvoter"
	}
}

// Voters of raft's latest configuration, sorted.
func (n *Node) Voters() []NodeID {
	var voters []NodeID
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, NodeID(s.ID))
		}
	}
	slices.Sort(voters)
	return voters
}

// servers of raft's latest configuration, committed or not.
func (n *Node) servers() []raft.Server {
	r, err := n.running()
	if err != nil {
		return nil
	}
	future := r.GetConfiguration() // answers at once, from a copy
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// watchLeadership keeps the tenure in step with raft: a lease table exists exactly while this node leads and has applied
// everything that earlier leaders committed.
func (n *Node) watchLeadership(ctx context.Context) error {
	events := make(chan raft.Observation, 16)
	// Not blocking: a lost event is made good by the next tick.
	observer := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r, err := n.running()
	if err != nil {
		return err
	}
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	for {
		n.settleTenure(ctx, r)
		n.leadership.Broadcast()
		poke(n.renewNow)
		if !waitEither(ctx, events, n.cfg.Lease.Period()) {
			return nil
		}
	}
}

// settleTenure makes or drops the lease table.
func (n *Node) settleTenure(ctx context.Context, r *raft.Raft) {
	if r.State() != raft.Leader {
		n.tenure.Store(nil)
		return
	}
	term := r.CurrentTerm()
	if t := n.tenure.Load(); t != nil && t.Term() == term {
		t.SetVoters(names(n.Voters()))
		return
	}
	elected := n.cfg.Clock.Now() // after the election, so waiting from here is never too short
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timers.Election)
	defer cancel()
	if err := n.Barrier(ctx); err != nil {
		return // the next tick tries again, if this node still leads
	}
	// Terms only grow and a term has one leader, so if both hold now the barrier was of this very term.
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	table := lease.NewTable(n.cfg.Lease, n.cfg.Clock, term, elected, names(n.Voters()))
	if n.cfg.Available() { // an earlier leader may have granted some
		table.AllowAvailable()
	}
	table.Withhold(n.withheld)
	table.Incumbents(n.incumbent)
	n.tenure.Store(table)
	n.log.Info("leading", "term", term)
}

func names(ids []NodeID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
