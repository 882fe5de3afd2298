package client_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// demands is a node that answers with an index and remembers what the last call demanded; "" if nothing.
type demands struct {
	*node
	index atomic.Uint64
	last  atomic.Pointer[string]
}

func serveDemands(t *testing.T, ca *clienttest.CA, name string) *demands {
	t.Helper()
	d := &demands{}
	d.node = serve(t, ca, name, func(ctx context.Context, req proto.Message) (proto.Message, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		demanded := strings.Join(md.Get("conclave-min-index"), ",")
		d.last.Store(&demanded)
		if _, status := req.(*vaultpb.StatusRequest); status {
			return &vaultpb.StatusReply{Index: d.index.Load()}, nil
		}
		return &vaultpb.KeyReply{Index: d.index.Load()}, nil
	})
	return d
}

// get calls with the index that the node answers with, and returns what it demanded.
func (d *demands) get(ctx context.Context, t *testing.T, c *client.Client, index uint64) string {
	t.Helper()
	d.index.Store(index)
	if _, err := c.GetKey(ctx, &vaultpb.GetKeyRequest{Name: "k"}); err != nil {
		t.Fatal(err)
	}
	return *d.last.Load()
}

func (d *demands) status(ctx context.Context, t *testing.T, c *client.Client) string {
	t.Helper()
	if _, err := c.Status(ctx, &vaultpb.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	return *d.last.Load()
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: it demanded %q, want %q", what, got, want)
	}
}

func TestASessionDemandsTheHighestIndexItHasSeen(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	d := serveDemands(t, ca, "n1")
	c := connect(t, ca, nil, d.Addr)
	check(t, "the first call", d.get(t.Context(), t, c, 7), "")
	check(t, "the second call", d.get(t.Context(), t, c, 5), "7")
	check(t, "after a lower index", d.get(t.Context(), t, c, 9), "7")
	check(t, "after a higher index", d.get(t.Context(), t, c, 9), "9")
	check(t, "status, which shows a node as it is", d.status(t.Context(), t, c), "")
	check(t, "a token of another process", d.get(client.WithToken(t.Context(), 12), t, c, 9), "12")
	check(t, "a lower token", d.get(client.WithToken(t.Context(), 3), t, c, 9), "9")
	check(t, "status with a token", d.status(client.WithToken(t.Context(), 12), t, c), "12")
	if c.Token() != 9 {
		t.Errorf("the token is %d", c.Token())
	}
}

func TestWithoutASessionOnlyTokensAreDemanded(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	d := serveDemands(t, ca, "n1")
	c := connect(t, ca, func(cfg *client.Config) { cfg.NoSession = true }, d.Addr)
	check(t, "the first call", d.get(t.Context(), t, c, 7), "")
	check(t, "the second call", d.get(t.Context(), t, c, 7), "")
	check(t, "with a token", d.get(client.WithToken(t.Context(), 4), t, c, 7), "4")
	if c.Token() != 7 {
		t.Errorf("the token is %d", c.Token())
	}
	c = connect(t, ca, func(cfg *client.Config) { cfg.NoSession, cfg.Token = true, 20 }, d.Addr)
	check(t, "with a configured token", d.get(t.Context(), t, c, 7), "20")
	check(t, "status with a configured token", d.status(t.Context(), t, c), "20")
	if c.Token() != 20 {
		t.Errorf("the token is %d", c.Token())
	}
}

// TestACommittedWriteIsRemembered: it is not in force everywhere, but who asks next must see it.
func TestACommittedWriteIsRemembered(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", says(nil, kind.New(kind.BarrierPending, "committed at 31", map[string]string{kind.MetaIndex: "31", kind.MetaPending: "n2"})))
	c := connect(t, ca, func(cfg *client.Config) { cfg.Timeout = 300e6 }, n1.Addr)
	if _, err := c.ChangeKey(t.Context(), &vaultpb.ChangeKeyRequest{Name: "k"}); kind.Of(err) != kind.BarrierPending {
		t.Fatal(err)
	}
	if c.Token() != 31 {
		t.Errorf("the token is %d", c.Token())
	}
	n1.become(says(nil, kind.New(kind.NotFound, "no", map[string]string{kind.MetaIndex: "99"})))
	if _, err := c.GetKey(t.Context(), &vaultpb.GetKeyRequest{Name: "k"}); kind.Of(err) != kind.NotFound || c.Token() != 31 {
		t.Errorf("%v; the token is %d", err, c.Token())
	}
}
