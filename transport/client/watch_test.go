package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// watched is a node with a log of events of which it sends some and then ends the stream in its own way.
type watched struct {
	vaultpb.UnimplementedLogServer
	vaultpb.UnimplementedClusterServer
	asked []uint64
	some  int // events a stream
	end   error
}

const logSize = 12

func (w *watched) Watch(r *vaultpb.WatchRequest, s grpc.ServerStreamingServer[vaultpb.WatchReply]) error {
	w.asked = append(w.asked, r.GetFromLeaf())
	for i := range w.some {
		leaf := r.GetFromLeaf() + uint64(i)
		if leaf >= logSize {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if err := s.Send(&vaultpb.WatchReply{Items: []*vaultpb.Event{{Leaf: leaf}}, NextLeaf: leaf + 1, Index: 100 + leaf}); err != nil {
			return err
		}
	}
	return w.end
}

func (w *watched) serve(t *testing.T, ca *clienttest.CA, name string) string {
	t.Helper()
	s := ca.Serve(t, clienttest.Listen(t), ca.Issue(t, ca.URI("node", name)), func(r grpc.ServiceRegistrar) {
		vaultpb.RegisterLogServer(r, w)
		vaultpb.RegisterClusterServer(r, w)
	})
	return s.Addr
}

// TestWatchGoesOnWhereItWas: at another node when one fails, at the same when it ended in good order, without a leaf twice or left out.
func TestWatchGoesOnWhereItWas(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1, n2 := &watched{some: 3, end: kind.New(kind.Unavailable, "no lease", nil)}, &watched{some: 2}
	c := connect(t, ca, nil, n1.serve(t, ca, "n1"), closedAddress(t), n2.serve(t, ca, "n2"))
	var leaves []uint64
	for reply, err := range c.Watch(t.Context(), &vaultpb.WatchRequest{FromNow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, reply.GetItems()[0].GetLeaf())
		if len(leaves) == logSize {
			break
		}
	}
	if !slices.Equal(leaves, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) {
		t.Errorf("leaves %v", leaves)
	}
	if c.Token() != 111 {
		t.Errorf("the session is at index %d", c.Token())
	}
}

func TestWatchEnds(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	last := func(c *client.Client, ctx context.Context) (err error) {
		for _, err = range c.Watch(ctx, &vaultpb.WatchRequest{}) {
		}
		return err
	}
	denied := &watched{end: kind.New(kind.Unauthenticated, "revoked", nil)}
	if err := last(connect(t, ca, nil, denied.serve(t, ca, "n1")), t.Context()); kind.Of(err) != kind.Unauthenticated || len(denied.asked) != 1 {
		t.Errorf("%v after %d tries: nothing can mend it", err, len(denied.asked))
	}
	short := func(c *client.Config) { c.Timeout = 300 * time.Millisecond }
	if err := last(connect(t, ca, short, closedAddress(t)), t.Context()); kind.Of(err) != kind.Unavailable {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	endless := &watched{some: logSize + 1}
	c := connect(t, ca, nil, endless.serve(t, ca, "n1"))
	var err error
	for _, err = range c.Watch(ctx, &vaultpb.WatchRequest{FromLeaf: logSize - 1}) {
		cancel()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("its context ended, and it with %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := last(c, t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("a closed client: %v", err)
	}
}
