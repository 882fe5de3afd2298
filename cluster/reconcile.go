package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/lease"
)

const (
	// reconcilePeriod is how soon raft's configuration follows the state.
	reconcilePeriod = 250 * time.Millisecond
	// maxPromotionLag is how many entries a non-voter may be behind when it gets its vote: with more, the first commits that
	// need it would wait for it.
	maxPromotionLag = 64
	// changeTimeout bounds one change of configuration.
	changeTimeout = 5 * time.Second
)

// change is one step from raft's configuration towards the members.
type change struct {
	kind changeKind
	id   NodeID
	addr string
}

type changeKind uint8

const (
	noChange changeKind = iota
	addNonvoter
	addVoter
	removeServer
	stepDown // this node is the one to remove: somebody else must do it
)

// standings is what a plan needs to know of nodes.
type standings interface {
	CaughtUp(NodeID) bool // has applied nearly all that the leader has
	Drained(NodeID) bool  // can hold no lease any more
	Acked(uint64) bool    // the restriction at the index is in force on every node
}

// plan picks the next change. Raft changes one server at a time; the next look plans again from what came of it.
func plan(self NodeID, servers []raft.Server, members []Member, s standings) change {
	if len(members) == 0 {
		return change{} // not initialised: nobody has said who belongs here
	}
	have := make(map[NodeID]raft.Server, len(servers))
	for _, server := range servers {
		have[NodeID(server.ID)] = server
	}
	want := make(map[NodeID]bool, len(members))
	for _, m := range members {
		want[m.ID] = true
		server, present := have[m.ID]
		voter := present && server.Suffrage == raft.Voter
		switch {
		case m.Leaving != 0:
			if c := leave(self, m, present, s); c.kind != noChange {
				return c
			}
		case !present:
			return change{addNonvoter, m.ID, m.Addr}
		case string(server.Address) != m.Addr && voter, !voter && s.CaughtUp(m.ID):
			return change{addVoter, m.ID, m.Addr}
		case string(server.Address) != m.Addr:
			return change{addNonvoter, m.ID, m.Addr}
		}
	}
	for _, server := range servers {
		switch id := NodeID(server.ID); {
		case want[id]:
		case id == self:
			return change{kind: stepDown, id: id}
		case s.Drained(id):
			return change{kind: removeServer, id: id}
		}
	}
	return change{}
}

// leave removes a member when nobody can act on a state in which it still serves. Not before: a new leader knows whom to wait for
// by raft's configuration.
func leave(self NodeID, m Member, present bool, s standings) change {
	switch {
	case !present:
		return change{}
	case m.ID == self:
		return change{kind: stepDown, id: m.ID}
	case s.Acked(m.Leaving):
		return change{kind: removeServer, id: m.ID}
	default:
		return change{}
	}
}

// tableStandings answers from the lease table of the present term.
type tableStandings struct {
	table   *lease.Table
	applied uint64
	fresh   time.Duration
	serving []string
	reach   func(index uint64) lease.Kind
}

// CaughtUp asks for a fresh report too: a vote for a node that has just died could cost the majority.
func (t tableStandings) CaughtUp(id NodeID) bool {
	report, known := t.table.Reported(string(id))
	return known && report.Age <= t.fresh && report.Applied+maxPromotionLag >= t.applied
}

func (t tableStandings) Drained(id NodeID) bool { return t.table.Drained(string(id)) }

func (t tableStandings) Acked(index uint64) bool {
	return t.applied >= index && t.table.AckedFor(t.reach(index), index, t.serving).Done
}

// reconcileLoop follows the members, on every node, and changes raft's configuration on the leader.
func (n *Node) reconcileLoop(ctx context.Context) error {
	for pause(ctx, reconcilePeriod) {
		n.observeMembers()
		if err := n.reconcile(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("changing raft's configuration failed", "err", err)
		}
	}
	return nil
}

func (n *Node) reconcile(ctx context.Context) error {
	table := n.tenure.Load()
	if table == nil || !n.IsLeader() {
		return nil
	}
	c := plan(n.cfg.ID, n.servers(), n.cfg.Members(), tableStandings{
		table: table, applied: n.cfg.Applied(), fresh: 2 * n.cfg.Lease.Period(), serving: n.serving(), reach: n.cfg.Reach,
	})
	if c.kind == noChange {
		return nil
	}
	n.log.Info("changing raft's configuration", "change", c.kind.String(), "node", string(c.id), "addr", c.addr)
	if c.kind == addNonvoter {
		table.Recount(string(c.id))
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	_, err := n.ask(ctx, c.start)
	table.SetVoters(names(n.Voters()))
	if err == nil {
		n.reported.Broadcast() // whoever waits for it to have left
	}
	return err
}

func (c change) start(r *raft.Raft) raft.Future {
	id, addr := raft.ServerID(c.id), raft.ServerAddress(c.addr)
	switch c.kind {
	case addNonvoter:
		return r.AddNonvoter(id, addr, 0, changeTimeout)
	case addVoter:
		return r.AddVoter(id, addr, 0, changeTimeout)
	case removeServer:
		return r.RemoveServer(id, 0, changeTimeout)
	default:
		return r.LeadershipTransfer()
	}
}

func (k changeKind) String() string {
	return [...]string{"none", "add non-voter", "add voter", "remove", "step down"}[k]
}
