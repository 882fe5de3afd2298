package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/conclave-vault/conclave/cluster"
)

// freePort finds a port that is free for UDP and TCP, also while a node restarts: it is below those that the kernel gives (by default), and a
// listener of the same number on another loopback address, as cmd/internal/ports has them, keeps it for this test.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(22000)
		guard, err := net.Listen("tcp", fmt.Sprintf("127.255.255.254:%d", port))
		if err != nil {
			continue
		}
		t.Cleanup(func() { guard.Close() })
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if u, err := net.ListenPacket("udp", addr); err == nil {
			u.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func gossiping(t *testing.T, id cluster.NodeID, key byte, bind string, peers ...string) *site {
	t.Helper()
	secret := make([]byte, 32)
	secret[0] = key
	return openSite(t, func(c *cluster.Config) {
		c.Gossip = &cluster.GossipConfig{Bind: bind, Key: secret, Datacenter: "dc-" + string(id), APIAddr: "api-" + string(id), Peers: func(context.Context) []string { return peers }}
		// Each is a cluster of its own to raft: gossip finds what it finds and decides nothing.
		c.ID = id
		c.ClusterID = "test"
	})
}

func TestGossipFindsNodes(t *testing.T) {
	noLeak(t)
	a, b, stranger := freePort(t), freePort(t), freePort(t)
	one := gossiping(t, "n1", 1, a)
	two := gossiping(t, "n1b", 1, b, a)
	other := gossiping(t, "n1c", 2, stranger, a)
	two.until("each other", func() bool { return len(one.Gossip()) == 2 && len(two.Gossip()) == 2 })
	for _, m := range one.Gossip() {
		site := map[cluster.NodeID]*site{"n1": one, "n1b": two}[m.ID]
		want := cluster.GossipMember{ID: m.ID, Addr: site.Addr(), Datacenter: "dc-" + string(m.ID), APIAddr: "api-" + string(m.ID), State: "alive"}
		if m != want {
			t.Errorf("%+v, want %+v", m, want)
		}
	}
	if got := other.Gossip(); len(got) != 1 {
		t.Errorf("with another key it found %+v", got)
	}
	if fmt.Sprint(one.Voters()) != "[n1]" {
		t.Errorf("gossip changed raft's configuration: %v", one.Voters())
	}
}

func TestNodeWorksWithoutGossip(t *testing.T) {
	noLeak(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := gossiping(t, "n1", 1, taken.Addr().String())
	s.set("x")
	if got := s.Gossip(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
