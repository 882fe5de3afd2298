package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// answering is a node that knows the status of its cluster.
type answering struct {
	vaultpb.UnimplementedClusterServer
	id    string
	reply *vaultpb.StatusReply
}

func (a *answering) Status(context.Context, *vaultpb.StatusRequest) (*vaultpb.StatusReply, error) {
	reply := proto.CloneOf(a.reply)
	reply.Node = a.id
	return reply, nil
}

func TestReach(t *testing.T) {
	c := healthy(t)
	c.patience = time.Second
	find := func(name string) Result {
		t.Helper()
		for _, r := range c.reach(t.Context()) {
			if r.Name == name {
				return r
			}
		}
		t.Fatalf("no check %q", name)
		return Result{}
	}
	is(t, find("cluster"), NotApplicable)
	dir, ca := t.TempDir(), clienttest.NewCA(t, "c1")
	pair := ca.Issue(t, ca.URI("user", "ada"))
	c.caller = Credentials{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	for path, content := range map[string][]byte{c.caller.CA: ca.PEM(), c.caller.Cert: clienttest.CertificatePEM(pair), c.caller.Key: clienttest.KeyPEM(t, pair)} {
		must(t, os.WriteFile(path, content, 0o600))
	}
	state := &vaultpb.StatusReply{Cluster: "c1", Leader: "n1"}
	servers := map[string]*clienttest.Server{}
	for _, id := range []string{"n1", "n2"} {
		servers[id] = ca.Serve(t, clienttest.Listen(t), ca.Issue(t, ca.URI("node", id)), func(r grpc.ServiceRegistrar) {
			vaultpb.RegisterClusterServer(r, &answering{id: id, reply: state})
		})
		state.Nodes = append(state.Nodes, &vaultpb.NodeStatus{Id: id, Addr: servers[id].Addr, Version: "v1"})
	}
	c.caller.Addresses = []string{servers["n1"].Addr}
	is(t, find("cluster"), OK, "c1, 2 nodes, leader n1")
	is(t, find("node n2"), OK, servers["n2"].Addr)
	is(t, find("versions"), OK, "all of 2 nodes run v1")
	is(t, find("cluster clock"), NotApplicable)

	state.Nodes[1].Version, state.Nodes[0].Sealed, state.Leader = "v2", true, ""
	is(t, find("cluster"), Warn, "leader none", "sealed: n1")
	is(t, find("versions"), Warn, "n1 v1, n2 v2")
	state.Nodes[0].Addr, state.Nodes[1].Addr = state.Nodes[1].Addr, state.Nodes[0].Addr
	is(t, find("node n1"), Warn, "node n2 answers at its address")
	state.Nodes[1].Addr, state.Nodes[1].Error = "", "connection refused"
	is(t, find("node n2"), Warn, "connection refused")
	state.Nodes[1].Addr = servers["n2"].Addr
	servers["n2"].Stop()
	is(t, find("node n2"), Warn, "refused")
	servers["n1"].Stop()
	is(t, find("cluster"), Fail, "refused")
}
