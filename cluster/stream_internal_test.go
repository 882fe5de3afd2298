package cluster

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestStreamExpels: raft keeps its connections for as long as they live, whoever the peer is by now.
func TestStreamExpels(t *testing.T) {
	far := map[NodeID]net.Conn{}
	s := newRaftStream(t.Context(), newConnQueue(streamAddr("n1:1")), "n1:1", func(_ context.Context, id NodeID, _ string) (net.Conn, error) {
		near, other := net.Pipe()
		far[id] = other
		return near, nil
	})
	for _, id := range []NodeID{"n2", "n3"} {
		if _, err := s.Dial(namedAddr(id, string(id)+":1"), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(id NodeID) bool {
		_ = far[id].SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := far[id].Read(make([]byte, 1))
		timeout, is := err.(net.Error)
		return !is || !timeout.Timeout()
	}
	s.expel(func(id NodeID, _ string) bool { return id == "n2" })
	if !ended("n2") || ended("n3") || len(s.out) != 1 {
		t.Errorf("n2 ended %t, n3 ended %t, %d are kept", ended("n2"), ended("n3"), len(s.out))
	}
	s.shut()
	if !ended("n3") {
		t.Error("a connection outlives the stream")
	}
}
