package client_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func TestFailoverKeepsToTheGivenOrder(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1, n2, n3 := serve(t, ca, "n1", signs("n1")), serve(t, ca, "n2", signs("n2")), serve(t, ca, "n3", signs("n3"))
	c := connect(t, ca, nil, n1.Addr, n2.Addr, n3.Addr)
	var got []string
	ask := func() { got = append(got, signer(t, c)) }

	ask() // the first
	n1.become(says(nil, kind.New(kind.Unavailable, "no lease", nil)))
	ask() // the next
	n1.become(signs("n1"))
	ask() // sticky
	n2.Stop()
	ask() // back to order: the first, not the third
	n1.Stop()
	ask()
	if diff := cmp.Diff([]string{"n1", "n2", "n2", "n1", "n3"}, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}

func TestEveryAttemptCarriesTheSameRequestID(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", says(nil, kind.New(kind.Unavailable, "no quorum", nil)))
	n2 := serve(t, ca, "n2", says(nil, kind.New(kind.BarrierPending, "committed at 7, pending on n3", nil)))
	n3 := serve(t, ca, "n3", says(nil, kind.New(kind.Sealed, "sealed", nil)))
	n3.become(func(_ context.Context, req proto.Message) (proto.Message, error) {
		if len(n1.received()) < 3 {
			return nil, kind.New(kind.Sealed, "sealed", nil)
		}
		return &vaultpb.KeyReply{Index: 9}, nil
	})
	c := connect(t, ca, nil, n1.Addr, n2.Addr, n3.Addr)
	for _, chosen := range []string{"", "0190a5a0-0000-7000-8000-000000000001"} {
		req := &vaultpb.CreateKeyRequest{Name: "k", RequestId: chosen}
		before := len(n1.received())
		if _, err := c.CreateKey(t.Context(), req); err != nil {
			t.Fatalf("CreateKey: %v", err)
		}
		if req.GetRequestId() != chosen {
			t.Errorf("the caller's message was changed to %q", req.GetRequestId())
		}
		first := n1.received()[before].(*vaultpb.CreateKeyRequest).GetRequestId()
		if id, err := uuid.Parse(first); err != nil || id.Version() != 7 || chosen != "" && first != chosen {
			t.Errorf("request id %q (chosen %q) is not the UUIDv7 expected: %v", first, chosen, err)
		}
		for _, m := range append(n1.received()[before:], n2.received()[len(n2.received())-1], n3.received()[len(n3.received())-1]) {
			if got := m.(*vaultpb.CreateKeyRequest).GetRequestId(); got != first {
				t.Errorf("an attempt carried %q, the first %q", got, first)
			}
		}
		c.Close()
		c = connect(t, ca, nil, n1.Addr, n2.Addr, n3.Addr)
	}
	if len(n1.received()) < 4 {
		t.Errorf("n1 was asked %d times: no second round took place", len(n1.received()))
	}
}

func TestARefusalThatEveryNodeWouldRepeatIsNotRetried(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1, n2 := serve(t, ca, "n1", nil), serve(t, ca, "n2", signs("n2"))
	final := map[kind.Kind]bool{}
	for _, k := range kind.All() {
		switch k {
		case kind.Unavailable, kind.Sealed, kind.Uninitialised, kind.BarrierPending, kind.Deadline:
		default:
			final[k] = true
		}
	}
	for k := range final {
		n1.become(says(nil, kind.New(k, "no", map[string]string{"node": "n1"})))
		c := connect(t, ca, nil, n1.Addr, n2.Addr)
		before := len(n1.received())
		_, err := c.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
		if kind.Of(err) != k || err.Error() != "no" || kind.Metadata(err)["node"] != "n1" {
			t.Errorf("%s arrived as %s: %v", k, kind.Of(err), err)
		}
		if n := len(n1.received()) - before; n != 1 {
			t.Errorf("%s: n1 was asked %d times", k, n)
		}
	}
	if n := len(n2.received()); n != 0 {
		t.Errorf("n2 was asked %d times", n)
	}
}

func TestASealedClusterAnswersAtOnce(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	sealed := says(nil, kind.New(kind.Sealed, "the node is sealed", map[string]string{kind.MetaTry: "conclave ceremony unseal"}))
	n1, n2 := serve(t, ca, "n1", sealed), serve(t, ca, "n2", sealed)
	c := connect(t, ca, nil, n1.Addr, n2.Addr)
	_, err := c.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
	if kind.Of(err) != kind.Sealed || kind.Metadata(err)[kind.MetaTry] != "conclave ceremony unseal" {
		t.Errorf("%s, %v: %v", kind.Of(err), kind.Metadata(err), err)
	}
	if want := n1.Addr + ": the node is sealed; " + n2.Addr + ": the node is sealed"; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
	if len(n1.received()) != 1 || len(n2.received()) != 1 {
		t.Errorf("asked %d and %d times, once each is enough", len(n1.received()), len(n2.received()))
	}
}

func TestTheMostInformativeKindIsReported(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	pending := kind.New(kind.BarrierPending, "committed at 7, pending on n3", map[string]string{kind.MetaPending: "n3"})
	for _, c := range []struct {
		name   string
		first  error
		second error
		want   kind.Kind
	}{
		{"pending over unavailable", kind.New(kind.Unavailable, "no quorum", nil), pending, kind.BarrierPending},
		{"pending over sealed", pending, kind.New(kind.Sealed, "sealed", nil), kind.BarrierPending},
		{"sealed over unavailable", kind.New(kind.Unavailable, "no quorum", nil), kind.New(kind.Sealed, "sealed", nil), kind.Sealed},
		{"uninitialised over unavailable", kind.New(kind.Uninitialised, "no cluster", nil), kind.New(kind.Unavailable, "no quorum", nil), kind.Uninitialised},
	} {
		t.Run(c.name, func(t *testing.T) {
			n1, n2 := serve(t, ca, "n1", says(nil, c.first)), serve(t, ca, "n2", says(nil, c.second))
			api := connect(t, ca, nil, n1.Addr, n2.Addr)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := api.ChangeKey(ctx, &vaultpb.ChangeKeyRequest{Name: "k"})
			if kind.Of(err) != c.want {
				t.Errorf("%s: %v", kind.Of(err), err)
			}
			sent := n1.received()[0].(*vaultpb.ChangeKeyRequest).GetRequestId()
			if got := kind.Metadata(err)[client.MetaRequestID]; got != sent {
				t.Errorf("the error names request %q, sent was %q", got, sent)
			}
		})
	}
}

func TestUnreachableNodesAreNamed(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	a, b := closedAddress(t), closedAddress(t)
	c := connect(t, ca, func(cfg *client.Config) { cfg.Timeout = 300 * time.Millisecond }, a, b)
	_, err := c.Status(t.Context(), &vaultpb.StatusRequest{})
	if kind.ExitCode(err) != kind.ExitUnavailable || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
}

func TestANodeThatComesBackIsFound(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	l := clienttest.Listen(t)
	address := l.Addr().String()
	n1 := serveAs(t, ca, l, ca.Issue(t, ca.URI("node", "n1")), signs("n1"))
	c := connect(t, ca, nil, address)
	signer(t, c)
	n1.Stop()
	back := make(chan error, 1)
	go func() {
		_, err := c.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
		back <- err
	}()
	l, err := listenAgain(t, address)
	if err != nil {
		t.Fatal(err)
	}
	serveAs(t, ca, l, ca.Issue(t, ca.URI("node", "n1")), signs("n1"))
	if err := <-back; err != nil {
		t.Errorf("Sign: %v", err)
	}
}

func TestASilentNodeIsPassedOver(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	silent := func(ctx context.Context, _ proto.Message) (proto.Message, error) { <-ctx.Done(); return nil, ctx.Err() }
	n1, n2 := serve(t, ca, "n1", silent), serve(t, ca, "n2", signs("n2"))
	c := connect(t, ca, func(cfg *client.Config) { cfg.AttemptTimeout = 200 * time.Millisecond }, n1.Addr, n2.Addr)
	if got := signer(t, c); got != "n2" {
		t.Errorf("signed by %s", got)
	}
	alone := connect(t, ca, nil, n1.Addr)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := alone.Sign(ctx, &vaultpb.SignRequest{Name: "k"}); kind.Of(err) != kind.Deadline {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
}

func TestDiscoveryIsOptIn(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n2 := serve(t, ca, "n2", signs("n2"))
	n1 := serve(t, ca, "n1", func(_ context.Context, req proto.Message) (proto.Message, error) {
		if _, ok := req.(*vaultpb.ListNodesRequest); ok {
			return &vaultpb.ListNodesReply{Items: []*vaultpb.Node{{Id: "n0"}, {Id: "n2", Addr: n2.Addr}}}, nil
		}
		return &vaultpb.SignReply{Node: "n1"}, nil
	})
	plain := connect(t, ca, func(cfg *client.Config) { cfg.Timeout = 500 * time.Millisecond }, n1.Addr)
	finds := connect(t, ca, func(cfg *client.Config) { cfg.Discover = true }, n1.Addr)
	signer(t, plain)
	signer(t, finds)
	n1.Stop()
	if got := signer(t, finds); got != "n2" {
		t.Errorf("signed by %s", got)
	}
	if _, err := plain.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"}); kind.Of(err) != kind.Unavailable {
		t.Errorf("without discovery: %v", err)
	}
	if n := len(n2.received()); n != 1 {
		t.Errorf("n2 was asked %d times", n)
	}
}
