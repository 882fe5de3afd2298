package client_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const clusterID = "c1"

// answer is what a scripted node does with a request.
type answer func(ctx context.Context, req proto.Message) (proto.Message, error)

// node is a server whose every method is answered by a script.
type node struct {
	*clienttest.Server
	mu     sync.Mutex
	answer answer
	got    []proto.Message
}

func (n *node) received() []proto.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got
}

func (n *node) become(a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = a
}

func (n *node) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	n.mu.Lock()
	n.got = append(n.got, req.(proto.Message))
	a := n.answer
	n.mu.Unlock()
	return a(ctx, req.(proto.Message))
}

type services struct {
	vaultpb.UnimplementedKeysServer
	vaultpb.UnimplementedCryptoServer
	vaultpb.UnimplementedClusterServer
	vaultpb.UnimplementedLogServer
	vaultpb.UnimplementedCeremoniesServer
}

func register(r grpc.ServiceRegistrar) {
	var s services
	vaultpb.RegisterKeysServer(r, s)
	vaultpb.RegisterCryptoServer(r, s)
	vaultpb.RegisterClusterServer(r, s)
	vaultpb.RegisterLogServer(r, s)
	vaultpb.RegisterCeremoniesServer(r, s)
}

// serve starts a node with the identity spiffe://c1/node/NAME.
func serve(t *testing.T, ca *clienttest.CA, name string, a answer) *node {
	t.Helper()
	return serveAs(t, ca, clienttest.Listen(t), ca.Issue(t, ca.URI("node", name)), a)
}

func serveAs(t *testing.T, ca *clienttest.CA, l net.Listener, certificate tls.Certificate, a answer) *node {
	t.Helper()
	n := &node{answer: a}
	n.Server = ca.Serve(t, l, certificate, register, grpc.UnaryInterceptor(n.intercept))
	return n
}

// connect makes a client of an administrator; change may alter its configuration.
func connect(t *testing.T, ca *clienttest.CA, change func(*client.Config), addresses ...string) *client.Client {
	t.Helper()
	cfg := client.Config{
		Addresses: addresses, CACert: ca.PEM(), Certificate: ca.Issue(t, ca.URI("administrator", "ada")), Timeout: 20 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// says answers every request with the same reply or error.
func says(reply proto.Message, err error) answer {
	return func(context.Context, proto.Message) (proto.Message, error) { return reply, err }
}

// signs answers with a signature by the named node.
func signs(name string) answer { return says(&vaultpb.SignReply{Key: "k", Node: name}, nil) }

// signer asks c for a signature and returns the node that made it.
func signer(t *testing.T, c *client.Client) string {
	t.Helper()
	reply, err := c.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return reply.GetNode()
}

// closedAddress is an address on which nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l := clienttest.Listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}
