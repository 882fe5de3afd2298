package cluster

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// membership remembers who was a member and is not any more.
type membership struct {
	mu     sync.Mutex
	last   map[NodeID]seenMember // of the last look
	former map[formerMember]bool
}

type seenMember struct{ addr, key string }

// formerMember is a machine that was a member; another may be one under its name.
type formerMember struct {
	id  NodeID
	key string
}

func newMembership() *membership {
	return &membership{last: make(map[NodeID]seenMember), former: make(map[formerMember]bool)}
}

// observe takes in the present members and returns those that are gone, have moved, or are another machine since the last look.
func (m *membership) observe(members []Member) (changed []NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := make(map[NodeID]seenMember, len(members))
	for _, member := range members {
		now[member.ID] = seenMember{member.Addr, string(member.Key)}
		delete(m.former, formerMember{member.ID, string(member.Key)})
	}
	for id, before := range m.last {
		current, present := now[id]
		if !present || current.key != before.key {
			m.former[formerMember{id, before.key}] = true
		}
		if !present || current != before {
			changed = append(changed, id)
		}
	}
	m.last = now
	return changed
}

func (m *membership) wasMember(id NodeID, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.former[formerMember{id, key}] || m.former[formerMember{id, ""}]
}

// admitCall decides whether a node whose certificate is good may call this one: members only, once there are any. One that was removed is no
// member when another machine has been admitted under its name.
func (n *Node) admitCall(id NodeID, key string) error {
	members := n.cfg.Members()
	if len(members) == 0 {
		return nil
	}
	switch i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id }); {
	case i < 0:
		return fmt.Errorf("%w: %s", ErrNotMember, id)
	case members[i].Key != nil && string(members[i].Key) != key:
		return fmt.Errorf("%w: %s with this key, which is not the member's", ErrNotMember, id)
	}
	return nil
}

// admitRaft is more lenient than admitCall where this node does not know that its state is the present one: that may be so old that it does
// not know the present leader yet, and it could never learn of it if it refused to listen; after a restart it is the latest snapshot's. There it
// refuses those it knows to have been removed; raft's own rules keep anybody else from harm, since votes and entries count by its configuration.
func (n *Node) admitRaft(id NodeID, key string) error {
	err := n.admitCall(id, key)
	switch {
	case err == nil || n.members.wasMember(id, key):
		return err
	case n.tenure.Load() == nil:
		return nil
	case n.member(id).ID == id: // with another key
		return err
	case slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return NodeID(s.ID) == id }):
		return nil
	}
	return err
}

// keyOf is the key that a node has to prove that is dialled; nil: any that the CA has signed for its name. Raft needs its peers before it
// knows the present members: until this node leads and has applied what was committed before, a member's key may be that of another machine.
func (n *Node) keyOf(proto string, id NodeID) []byte {
	if proto == protoRaft && n.tenure.Load() == nil {
		return nil
	}
	return n.member(id).Key
}

// observeMembers acts on a changed membership: connections with those who left or moved, or are another machine now, are closed. So are
// those whose certificate has expired.
func (n *Node) observeMembers() {
	members := n.cfg.Members()
	n.port.known.name(n.addressesOf(members))
	changed := n.members.observe(members)
	for _, id := range changed {
		n.control.drop(id)
		n.bulk.drop(id)
	}
	if len(changed) > 0 {
		n.port.expel(n.admitRaft)
	}
	n.port.expel(nil)
	if s := n.stream.Load(); s != nil {
		s.expel(func(id NodeID, key string) bool {
			want := n.keyOf(protoRaft, id)
			return want != nil && string(want) != key
		})
	}
}

// addressesOf members, by the operator's word and the state's.
func (n *Node) addressesOf(members []Member) (all []string) {
	for _, m := range members {
		all = append(all, m.Addr)
	}
	return slices.AppendSeq(all, maps.Values(n.cfg.Addresses))
}

// addressOf finds a node: by the operator's word, else by the state, else by raft's configuration, else by what the leader said of itself, which is all that
// a node knows that has only just joined.
func (n *Node) addressOf(id NodeID) (string, error) {
	if addr, moved := n.cfg.Addresses[id]; moved {
		return addr, nil
	}
	for _, m := range n.cfg.Members() {
		if m.ID == id {
			return m.Addr, nil
		}
	}
	for _, s := range n.servers() {
		if NodeID(s.ID) == id {
			return string(s.Address), nil
		}
	}
	if r, err := n.running(); err == nil {
		if addr, leader := r.LeaderWithID(); NodeID(leader) == id {
			_, plain := splitNamedAddr(addr)
			return plain, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrUnknownNode, id)
}

// addressBook is a raft.ServerAddressProvider, so that raft follows a moved member before its configuration does.
type addressBook struct{ node *Node }

func (a addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if NodeID(id) == a.node.cfg.ID {
		return namedAddr(a.node.cfg.ID, a.node.advertise), nil
	}
	addr, err := a.node.addressOf(NodeID(id))
	if err != nil {
		return "", err
	}
	return namedAddr(NodeID(id), addr), nil
}
