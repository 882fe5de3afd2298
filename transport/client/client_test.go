package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// listenAgain binds an address that a server has just left.
func listenAgain(t *testing.T, address string) (net.Listener, error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func TestVerifyReturnsAnErrorForAnInvalidSignature(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", says(&vaultpb.VerifyReply{Key: "k", Node: "n1"}, nil))
	c := connect(t, ca, nil, n1.Addr)
	reply, err := c.Verify(t.Context(), &vaultpb.VerifyRequest{Name: "k"})
	if !errors.Is(err, client.ErrNotVerified) || kind.Of(err) != kind.NotVerified || reply.GetNode() != "n1" {
		t.Errorf("Verify: %v, %v", reply, err)
	}
	if _, err := c.VerifyMac(t.Context(), &vaultpb.VerifyMacRequest{Name: "k"}); !errors.Is(err, client.ErrNotVerified) {
		t.Errorf("VerifyMac: %v", err)
	}
	n1.become(says(&vaultpb.VerifyReply{Valid: true, Key: "k"}, nil))
	if _, err := c.Verify(t.Context(), &vaultpb.VerifyRequest{Name: "k"}); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestGeneratedClientsRunOverIt(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", says(&vaultpb.CeremonyReply{Index: 5}, nil))
	c := connect(t, ca, nil, n1.Addr)
	reply, err := vaultpb.NewCeremoniesClient(c).StartGenesis(t.Context(), &vaultpb.StartGenesisRequest{Threshold: 2})
	if err != nil || reply.GetIndex() != 5 {
		t.Fatalf("StartGenesis: %v, %v", reply, err)
	}
	if n1.received()[0].(*vaultpb.StartGenesisRequest).GetRequestId() == "" {
		t.Error("no request id was filled in")
	}
	if _, err := c.NewStream(t.Context(), &grpc.StreamDesc{}, "/x/y"); kind.Of(err) != kind.Unsupported {
		t.Errorf("NewStream: %v", err)
	}
}

func TestPages(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", func(_ context.Context, req proto.Message) (proto.Message, error) {
		switch token := req.(*vaultpb.ListKeysRequest).GetPageToken(); token {
		case "":
			return &vaultpb.ListKeysReply{Items: []*vaultpb.Key{{Name: "a"}}, NextPageToken: "2"}, nil
		case "2":
			return &vaultpb.ListKeysReply{Items: []*vaultpb.Key{{Name: "b"}}}, nil
		case "loop":
			return &vaultpb.ListKeysReply{NextPageToken: "loop"}, nil
		}
		return nil, kind.New(kind.InvalidArgument, "no such page", nil)
	})
	c := connect(t, ca, nil, n1.Addr)
	list := func(token string) (names []string, failed error) {
		set := func(q *vaultpb.ListKeysRequest, token string) { q.PageToken = token }
		for page, err := range client.Pages(t.Context(), c.ListKeys, &vaultpb.ListKeysRequest{PageToken: token}, set) {
			for _, k := range page.GetItems() {
				names = append(names, k.GetName())
			}
			failed = err
		}
		return names, failed
	}
	if names, err := list(""); err != nil || !cmp.Equal(names, []string{"a", "b"}) {
		t.Errorf("all pages: %v, %v", names, err)
	}
	if _, err := list("nowhere"); kind.Of(err) != kind.InvalidArgument {
		t.Errorf("a bad token: %v", err)
	}
	if _, err := list("loop"); err == nil {
		t.Error("a node that repeats a page was followed for ever")
	}
}

func TestConfigIsChecked(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	for name, cfg := range map[string]client.Config{
		"no address":        {CACert: ca.PEM()},
		"no port":           {CACert: ca.PEM(), Addresses: []string{"localhost"}},
		"no CA":             {Addresses: []string{"localhost:1"}},
		"negative timeout":  {CACert: ca.PEM(), Addresses: []string{"localhost:1"}, Timeout: -1},
		"too many nodes":    {CACert: ca.PEM(), Addresses: make([]string, 65)},
		"CA that is no PEM": {CACert: []byte("x"), Addresses: []string{"localhost:1"}},
	} {
		if _, err := client.New(cfg); !errors.Is(err, client.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadFiles(t *testing.T) {
	ca, dir := clienttest.NewCA(t, clusterID), t.TempDir()
	pair := ca.Issue(t, ca.URI("user", "bob"))
	files := map[string][]byte{"ca": ca.PEM(), "crt": clienttest.CertificatePEM(pair), "key": clienttest.KeyPEM(t, pair)}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	cfg := client.Config{Addresses: []string{"localhost:1"}}
	if err := cfg.LoadFiles(at("ca"), at("crt"), at("key")); err != nil || len(cfg.Certificate.Certificate) != 1 {
		t.Errorf("LoadFiles: %v", err)
	}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%#v", cfg), fmt.Sprintf("%+v", cfg), cfg.LogValue().String()} {
		if strings.Contains(text, "PrivateKey") || !strings.Contains(text, "localhost:1") {
			t.Errorf("a configuration prints itself as %q", text)
		}
	}
	for _, missing := range [][3]string{{at("no"), at("crt"), at("key")}, {at("ca"), at("no"), at("key")}, {at("ca"), at("crt"), ""}} {
		if err := new(client.Config).LoadFiles(missing[0], missing[1], missing[2]); !errors.Is(err, client.ErrConfig) {
			t.Errorf("%v: %v", missing, err)
		}
	}
}

func TestAClosedClientRefuses(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	c := connect(t, ca, nil, closedAddress(t))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context(), &vaultpb.StatusRequest{}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Status after Close: %v", err)
	}
}
