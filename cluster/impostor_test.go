package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clusterpb"
	"github.com/conclave-vault/conclave/cluster/clustertest"
)

// TestImpostor puts somebody else at the address of n2; nobody tells it anything.
func TestImpostor(t *testing.T) {
	uri := func(path string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "test", Path: path}} }
	}
	for name, issue := range map[string]func(t *testing.T, ca *clustertest.Authority) *tls.Certificate{
		"another CA": func(t *testing.T, _ *clustertest.Authority) *tls.Certificate {
			return clustertest.NewAuthority(t, "test").Node(t, "n2")
		},
		"another node": func(t *testing.T, ca *clustertest.Authority) *tls.Certificate { return ca.Node(t, "n3") },
		"a client":     func(t *testing.T, ca *clustertest.Authority) *tls.Certificate { return ca.Issue(t, uri("/user/n2")) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				first := w.form(1)
				cert := issue(t, w.ca)
				l, err := w.net.Host("n2").Listen("n2:1")
				if err != nil {
					t.Fatal(err)
				}
				heard := make(chan int, 100)
				go serveImpostor(tls.NewListener(l, &tls.Config{
					Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAnyClientCert,
					NextProtos: []string{"conclave-node/1", "conclave-raft/1"},
				}), heard)
				w.propose(first, "add n2 n2:1")
				if _, err := first.Call(t.Context(), "n2", "echo", []byte("secret")); !errors.Is(err, cluster.ErrUnreachable) {
					t.Errorf("call: %v", err)
				}
				w.within(10*time.Second, "raft to have tried, too", func() bool { return len(heard) > 3 })
				l.Close()
				for n := range heard {
					if n != 0 {
						t.Errorf("the impostor heard %d bytes", n)
					}
				}
			})
		})
	}
}

// serveImpostor tells how much each connection says.
func serveImpostor(l net.Listener, heard chan<- int) {
	defer close(heard)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := conn.Read(make([]byte, 1024))
		conn.Close()
		select {
		case heard <- n:
		default:
		}
	}
}

// rawPeer speaks to a node as the holder of a certificate, without this package's own client.
func rawPeer(t *testing.T, w *world, as, to cluster.NodeID) clusterpb.PeerClient {
	t.Helper()
	creds := credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"conclave-node/1"},
		Certificates: []tls.Certificate{*w.ca.Node(t, as)},
	})
	conn, err := grpc.NewClient("passthrough:///"+string(to)+":1", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return w.net.Host(string(as)).Dial(ctx, addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return clusterpb.NewPeerClient(conn)
}

func TestNobodyRenewsForAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		_, err := rawPeer(t, w, "n2", "n1").Renew(t.Context(), &clusterpb.RenewRequest{Node: "n3", Boot: "x", Seq: 1, Term: 2, Applied: 1 << 40})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("n2 renewed as n3: %v", err)
		}
		if _, err := rawPeer(t, w, "n9", "n1").Echo(t.Context(), &clusterpb.EchoRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a stranger with a good certificate: %v", err)
		}
	})
}

// TestFollowerDoesNotHandleTheLeadersCalls, whatever the caller believes.
func TestFollowerDoesNotHandleTheLeadersCalls(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.form(3)
		reply, err := rawPeer(t, w, "n3", "n2").Call(t.Context(), &clusterpb.CallRequest{Kind: "echo", LeaderOnly: true})
		if err != nil || reply.GetOutcome() != clusterpb.Outcome_OUTCOME_NOT_LEADER || w.nodes["n2"].calls.count() != 0 {
			t.Errorf("%v, %v, handled %d", reply, err, w.nodes["n2"].calls.count())
		}
		renewed, err := rawPeer(t, w, "n3", "n2").Renew(t.Context(), &clusterpb.RenewRequest{Node: "n3", Boot: "x", Seq: 1, Term: 2})
		if err != nil || renewed.GetOutcome() != clusterpb.Outcome_OUTCOME_NOT_LEADER {
			t.Errorf("renewal at a follower: %v, %v", renewed, err)
		}
	})
}

// raftConn connects to a node's raft as another.
func raftConn(t *testing.T, w *world, as, to cluster.NodeID) net.Conn {
	t.Helper()
	raw, err := w.net.Host(string(as)).Dial(t.Context(), string(to)+":1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"conclave-raft/1"},
		Certificates: []tls.Certificate{*w.ca.Node(t, as)},
	})
}

// lives reports whether the other end keeps a connection open for a second.
func lives(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestRemovedNodeIsCutFromRaft, from a follower too, and also where it was connected before.
func TestRemovedNodeIsCutFromRaft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.form(4)
		before, member := raftConn(t, w, "n4", "n2"), raftConn(t, w, "n3", "n2")
		if !lives(t, before) || !lives(t, member) {
			t.Fatal("a member's connection was closed")
		}
		w.propose(first, "remove n4")
		time.Sleep(time.Second) // of the bubble's clock: n2 has noticed
		if again := raftConn(t, w, "n4", "n2"); lives(t, again) {
			t.Error("a removed node may connect")
		}
		if again := raftConn(t, w, "n3", "n2"); !lives(t, again) {
			t.Error("a member may not connect")
		}
		if raw, ok := before.(*tls.Conn); ok && lives(t, raw.NetConn()) {
			t.Error("a removed node's connection goes on")
		}
	})
}
