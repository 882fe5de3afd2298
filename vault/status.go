package vault

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// askTimeout bounds how long a status waits for one other node: a status must come quickly when something is wrong.
const askTimeout = 2 * time.Second

// NodeStatus is one node as it sees itself.
type NodeStatus struct {
	ID          fsm.NodeID `json:"id"`
	Addr        string     `json:"addr"`
	Datacenter  string     `json:"datacenter"`
	HSM         string     `json:"hsm"`
	Library     string     `json:"hsm_library"`
	Sealed      bool       `json:"sealed"`
	Role        string     `json:"role"` // leader, follower, nonvoter; unreachable
	Applied     uint64     `json:"applied"`
	Digest      string     `json:"digest"` // hex
	DigestIndex uint64     `json:"digest_index"`
	Lease       bool       `json:"lease"`
	Term        uint64     `json:"term"`
	Error       string     `json:"error,omitempty"`
	Version     string     `json:"version"`
	Understands uint32     `json:"understands"` // newest feature level; 0 from a release that does not say
	Standing    string     `json:"-"`           // serving, draining, drained, removing: the word of the state of the node that was asked
}

// Status is the cluster as one node sees it.
type Status struct {
	Cluster    fsm.Cluster
	Leader     fsm.NodeID
	Node       fsm.NodeID
	Nodes      []NodeStatus
	Roster     uint32
	LogSize    uint64
	Generation uint32
	Index      uint64 // of this node's state
}

// Status asks every node. It is there to say why there is no quorum, so it is the one call that takes this node's own state for
// enough, lease or not: a certificate that was revoked elsewhere a moment ago may still see it here, and nothing else.
func (v *Vault) Status(ctx context.Context, c policy.Caller) (Status, error) {
	if policy.Identify(v.state(), c) != nil {
		s, err := v.current(ctx)
		if err == nil {
			err = policy.Identify(s, c)
		}
		if err != nil {
			return Status{}, err
		}
	}
	s := v.state()
	leader, _ := v.cfg.Proposer.Leader()
	roster, _ := s.Roster()
	st := Status{
		Cluster: s.Cluster(), Leader: leader, Node: v.cfg.Node, Roster: roster.Version, LogSize: s.Tree().Size, Generation: s.Cluster().MasterGeneration,
		Index: s.Applied(),
	}
	st.Nodes = everyNode(ctx, v, s, func(ctx context.Context, n fsm.Node) NodeStatus {
		answer, err := askNode[NodeStatus](ctx, v, n.ID, kindStatus, struct{}{})
		if err != nil {
			answer = NodeStatus{Role: "unreachable", Sealed: true, Error: err.Error()}
		}
		answer.ID, answer.Addr, answer.Datacenter, answer.HSM, answer.Library = n.ID, n.APIAddr, n.Datacenter, n.Device.HSM, n.Device.Library
		answer.Standing = s.Standing(n).String()
		return answer
	})
	return st, nil
}

// everyNode asks all nodes of a state at once and returns the answers in the state's order.
func everyNode[A any](ctx context.Context, v *Vault, s *fsm.State, query func(context.Context, fsm.Node) A) []A {
	nodes := s.Nodes()
	answers := make([]A, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			answers[i] = query(ctx, n)
		})
	}
	wg.Wait()
	return answers
}

func (v *Vault) localStatus() NodeStatus {
	v.noticeLoss()
	s := v.state()
	digest, index := stateDigest(s)
	return NodeStatus{
		Error:  cmp.Or(v.sealedBy(), v.clockAlarm()),
		Sealed: v.unsealed(s) != nil, Role: v.role(), Applied: s.Applied(), Digest: digest, DigestIndex: index,
		Understands: fsm.FeatureLevel,
		Lease:       v.cfg.Lease().Valid(), Term: v.cfg.Proposer.Term(), Version: v.cfg.Version,
	}
}

// digestWait is how long a status waits for the digest of a large catalog. The first one of a process hashes every key; later ones
// only what changed. Whoever asks again gets it.
const digestWait = time.Second

// stateDigest is the digest of s in hex with its index; empty and 0 while it is still being computed.
func stateDigest(s *fsm.State) (digest string, index uint64) {
	done := make(chan struct{})
	go func() { // it only computes, so it ends by itself; and nothing waits for it when the process ends
		defer close(done)
		s.Digest()
	}()
	select {
	case <-done:
		sum := s.Digest()
		return hex.EncodeToString(sum[:]), s.Applied()
	case <-time.After(digestWait):
		return "", 0
	}
}

func (v *Vault) role() string {
	switch {
	case v.cfg.Proposer.IsLeader():
		return "leader"
	case slices.Contains(v.cfg.Proposer.Voters(), v.cfg.Node):
		return "follower"
	default:
		return "nonvoter"
	}
}

// ListedNode is a member with what is known of it here.
type ListedNode struct {
	fsm.Node
	Gossip   string
	Voter    bool
	InRoster bool
	Standing fsm.Standing
}

// Nodes lists the members.
func (v *Vault) Nodes(ctx context.Context, c policy.Caller) ([]ListedNode, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := policy.Identify(s, c); err != nil {
		return nil, 0, err
	}
	voters := v.cfg.Proposer.Voters()
	roster, _ := s.Roster()
	var out []ListedNode
	for _, n := range s.Nodes() {
		out = append(out, ListedNode{
			Node: n, Standing: s.Standing(n), Gossip: v.cfg.Peers.Gossip(n.ID), Voter: slices.Contains(voters, n.ID),
			InRoster: slices.ContainsFunc(roster.Nodes, func(r fsm.RosterNode) bool { return r.ID == n.ID }),
		})
	}
	return out, s.Applied(), nil
}

// GossipPeers asks the other members where they gossip. Who is a member is the state's word; gossip only learns where to look.
func (v *Vault) GossipPeers(ctx context.Context) []string {
	answers := everyNode(ctx, v, v.state(), func(ctx context.Context, n fsm.Node) string {
		if n.ID == v.cfg.Node {
			return ""
		}
		addr, err := askNode[string](ctx, v, n.ID, kindGossip, struct{}{})
		if err != nil {
			return "" // it is asked again
		}
		return addr
	})
	return slices.DeleteFunc(answers, func(a string) bool { return a == "" })
}

// Ready says why this node does not serve keys right now; nil if it does. It asks nobody.
func (v *Vault) Ready() error {
	v.noticeLoss()
	if err := v.mayUse(v.state()); err != nil {
		return err
	}
	if !v.cfg.Lease().Valid() {
		return guard.ErrNoLease
	}
	return nil
}
