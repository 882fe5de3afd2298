package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// trace is a server's end of a connection that remembers what was done with it.
type trace struct {
	*net.TCPConn
	mu    sync.Mutex
	steps []string
	read  int
}

func (t *trace) step(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, name)
}

func (t *trace) Read(b []byte) (int, error) {
	n, err := t.TCPConn.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read += n
	return n, err
}

func (t *trace) CloseWrite() error {
	t.step("close write")
	return t.TCPConn.CloseWrite()
}

func (t *trace) Close() error {
	t.step("close")
	return t.TCPConn.Close()
}

// connected makes both ends of a loopback connection.
func connected(t *testing.T) (client net.Conn, server *trace) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, &trace{TCPConn: conn.(*net.TCPConn)}
}

// refusing is a server's configuration that refuses whoever has no certificate, and its authority.
func refusing(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	a, err := pki.NewAuthority("c1", "node", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.IssueNode(pki.ID{Cluster: "c1", Role: "node", Name: "n1"}, key.Public(), []string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return TLS(&tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}, func() *x509.CertPool { return pool }), pool
}

// TestARefusedConnectionLingers: a client that goes on writing for as long as it likes, because its own side of the handshake is
// done, still reads the alert: the server ends its sending half at once, takes what comes, and closes only then.
func TestARefusedConnectionLingers(t *testing.T) {
	cfg, roots := refusing(t)
	client, server := connected(t)
	logged := make(chan error, 2)
	creds := lingering{credentials.NewTLS(cfg), func(_ net.Addr, _ string, err error) { logged <- err }}
	done := make(chan error, 1)
	go func() {
		_, _, err := creds.ServerHandshake(server)
		done <- err
	}()
	c := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("in TLS 1.3 a client is done before it is refused: %v", err)
	}
	if err := <-logged; !strings.Contains(err.Error(), "client didn't provide a certificate") {
		t.Errorf("the log says %v", err)
	}
	const afterwards = 32 << 10 // under lingerBytes, with the records around it
	for range 32 {
		if _, err := c.Write(make([]byte, afterwards/32)); err != nil {
			t.Fatalf("writing to a server that has refused: %v", err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("the client reads %v", err)
	}
	client.Close()
	if err := <-done; err == nil {
		t.Error("the handshake succeeded")
	}
	if want := []string{"close write", "close"}; !slices.Equal(server.steps, want) {
		t.Errorf("the server's steps were %v, want %v", server.steps, want)
	}
	if server.read < afterwards || len(logged) != 0 {
		t.Errorf("%d bytes were taken, %d more lines logged", server.read, len(logged))
	}
}

// TestLingeringIsBounded: a refused client that neither writes nor closes is dropped.
func TestLingeringIsBounded(t *testing.T) {
	client, server := connected(t)
	started := time.Now()
	linger(server)
	if took := time.Since(started); took < lingerTime || took > 5*lingerTime {
		t.Errorf("it lingered for %v", took)
	}
	if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client reads %v", err)
	}
}

// TestAFloodIsNotListenedTo: a refused client that writes without end is cut off after lingerBytes.
func TestAFloodIsNotListenedTo(t *testing.T) {
	client, server := connected(t)
	flooded := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = client.Write(make([]byte, 4096))
		}
		flooded <- err
	}()
	linger(server)
	if err := <-flooded; err == nil {
		t.Error("the flood went through")
	}
	if server.read > lingerBytes {
		t.Errorf("%d bytes were taken, at most %d", server.read, lingerBytes)
	}
}

// TestAGoodConnectionIsNotHeld: after its handshake closing a connection closes it.
func TestAGoodConnectionIsNotHeld(t *testing.T) {
	cfg, roots := refusing(t)
	cfg.GetConfigForClient, cfg.ClientAuth = nil, tls.NoClientCert
	client, server := connected(t)
	ended := make(chan error, 1)
	go func() {
		ended <- tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}).Handshake()
	}()
	conn, info, err := lingering{credentials.NewTLS(cfg), func(_ net.Addr, _ string, err error) { t.Error(err) }}.ServerHandshake(server)
	if err != nil || info == nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil || !slices.Equal(server.steps, []string{"close"}) {
		t.Errorf("%v: %v", server.steps, err)
	}
}

func TestTheServerResumesNothing(t *testing.T) {
	cfg, _ := refusing(t)
	each, err := cfg.GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*tls.Config{cfg, each} {
		if c.MinVersion != tls.VersionTLS13 || c.ClientAuth != tls.RequireAndVerifyClientCert || !c.SessionTicketsDisabled {
			t.Errorf("min version %x, client auth %v, tickets disabled %v", c.MinVersion, c.ClientAuth, c.SessionTicketsDisabled)
		}
	}
	if each.ClientCAs == nil || each.GetConfigForClient != nil {
		t.Error("a connection's configuration has no authorities, or asks again")
	}
}

// plain is authentication information that is not TLS.
type plain struct{}

func (plain) AuthType() string { return "plain" }

func connection(info credentials.AuthInfo) context.Context {
	return peer.NewContext(context.Background(), &peer.Peer{AuthInfo: info})
}

func shown(c ...*x509.Certificate) credentials.TLSInfo {
	return credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: c}}
}

func TestCallerNeedsAVerifiedName(t *testing.T) {
	a, err := pki.NewAuthority("c1", "client", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, err := a.IssueClient(pki.ID{Cluster: "c1", Role: "user", Name: "ada"}, key.Public(), [16]byte{15: 9}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	late := *good
	late.NotAfter = time.Now().Add(-time.Second)
	for name, c := range map[string]struct {
		ctx  context.Context
		says string
	}{
		"no connection":                     {context.Background(), "no connection"},
		"not TLS":                           {connection(plain{}), "no certificate"},
		"no certificate":                    {connection(shown()), "no certificate"},
		"no name":                           {connection(shown(a.Certificate)), "exactly one spiffe:// name"},
		"expired since the connection came": {connection(shown(&late)), "it expired on"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := caller(c.ctx); !errors.Is(err, policy.ErrUnauthenticated) || !strings.Contains(err.Error(), c.says) || got != (policy.Caller{}) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	got, err := caller(connection(shown(good, a.Certificate)))
	want := policy.Caller{Cluster: "c1", Role: "user", Name: "ada", Serial: "40000000000000000000000000000009"}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	ran := false
	if _, err := as(context.Background(), func(policy.Caller) (int, error) { ran = true; return 1, nil }); ran || !errors.Is(err, policy.ErrUnauthenticated) {
		t.Errorf("a call without a caller ran: %v, %v", ran, err)
	}
}
