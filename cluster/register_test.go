package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
)

// registerState is the visible state of a register: a value, who belongs to the cluster, and two indexes.
type registerState struct {
	Value   string
	Applied uint64
	Floor   uint64
	Members map[cluster.NodeID]string
	Orders  map[cluster.NodeID]cluster.Member // what members were ordered, beside being members
}

// register is a small state machine: "set X", "forbid X" (a restriction), "add ID ADDR", "remove ID" (a restriction), "drain ID" (a
// restriction), "drained ID" (it is in force), "undrain ID", "leave ID" (a restriction).
type register struct {
	t     testing.TB
	state atomic.Pointer[registerState]
	stall atomic.Pointer[chan struct{}] // when set, applying waits for it
}

func newRegister(t testing.TB) *register {
	r := &register{t: t}
	r.state.Store(&registerState{})
	return r
}

func (r *register) applied() uint64 { return r.state.Load().Applied }
func (r *register) floor() uint64   { return r.state.Load().Floor }

func (r *register) members() []cluster.Member {
	s := r.state.Load()
	var all []cluster.Member
	for _, id := range slices.Sorted(maps.Keys(s.Members)) {
		m := s.Orders[id]
		m.ID, m.Addr = id, s.Members[id]
		all = append(all, m)
	}
	return all
}

func (r *register) Apply(l *raft.Log) any { return r.ApplyBatch([]*raft.Log{l})[0] }

func (r *register) ApplyBatch(logs []*raft.Log) []any {
	if wait := r.stall.Load(); wait != nil {
		<-*wait
	}
	next := *r.state.Load()
	next.Members, next.Orders = maps.Clone(next.Members), maps.Clone(next.Orders)
	out := make([]any, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			r.t.Errorf("the state machine was fed %v at %d", l.Type, l.Index)
		}
		if l.Index <= next.Applied {
			r.t.Errorf("entry %d after %d", l.Index, next.Applied)
		}
		next.apply(l)
		out[i] = fmt.Sprintf("%d %s", l.Index, l.Data)
	}
	r.state.Store(&next)
	return out
}

func (s *registerState) apply(l *raft.Log) {
	words := strings.Fields(string(l.Data))
	s.Applied = l.Index
	switch words[0] {
	case "set":
		s.Value = words[1]
	case "forbid":
		s.Value, s.Floor = words[1], l.Index
	case "add":
		if s.Members == nil {
			s.Members = make(map[cluster.NodeID]string)
		}
		s.Members[cluster.NodeID(words[1])] = words[2]
	case "remove":
		delete(s.Members, cluster.NodeID(words[1]))
		delete(s.Orders, cluster.NodeID(words[1]))
		s.Floor = l.Index
	default:
		s.order(words[0], cluster.NodeID(words[1]), l.Index)
	}
}

func (s *registerState) order(what string, id cluster.NodeID, index uint64) {
	if s.Orders == nil {
		s.Orders = make(map[cluster.NodeID]cluster.Member)
	}
	m := s.Orders[id]
	switch what {
	case "drain":
		m.Withheld, s.Floor = true, index
	case "drained":
		m.Drained = true
	case "undrain":
		m = cluster.Member{}
	case "leave":
		m.Withheld, m.Leaving, s.Floor = true, index, index
	}
	s.Orders[id] = m
}

func (r *register) Snapshot() (raft.FSMSnapshot, error) { return registerSnapshot{r.state.Load()}, nil }

func (r *register) Restore(in io.ReadCloser) error {
	defer in.Close()
	var s registerState
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return err
	}
	r.state.Store(&s)
	return nil
}

type registerSnapshot struct{ state *registerState }

func (s registerSnapshot) Release() {}

func (s registerSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s.state); err != nil {
		return err
	}
	return sink.Close()
}
