package cluster_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
)

// clientTLS is what a good node would dial with.
func (s *site) clientTLS(proto string, cert *tls.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	if proto != "" {
		c.NextProtos = []string{proto}
	}
	if cert != nil {
		// Also where the node has named its CA, and this is another one's: crypto/tls would keep it back.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

// knock connects and reports whether the port lets the connection live. A TLS 1.3 client learns only from its first read that
// its certificate was refused.
func (s *site) knock(c *tls.Config) error {
	s.t.Helper()
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, c)
	if err := raw.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		s.t.Fatal(err)
	}
	if err := conn.Handshake(); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil // it waits for us to speak
	}
	if err == nil {
		return nil // it speaks: gRPC's settings
	}
	return err
}

func TestWhoMayConnect(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	foreign := clustertest.NewAuthority(t, "test")
	uri := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
	good := s.ca.Node(t, "n2")
	expired := s.ca.Issue(t, func(c *x509.Certificate) {
		uri("spiffe://test/node/n2")(c)
		c.NotAfter = time.Now().Add(-time.Hour)
	})
	serverOnly := s.ca.Issue(t, func(c *x509.Certificate) {
		uri("spiffe://test/node/n2")(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	twoURIs := s.ca.Issue(t, func(c *x509.Certificate) {
		uri("spiffe://test/node/n2")(c)
		uri("spiffe://test/node/n3")(c)
	})
	for name, c := range map[string]struct {
		cert *tls.Certificate
		ok   bool
	}{
		"a node":             {good, true},
		"no certificate":     {nil, false},
		"another CA":         {foreign.Node(t, "n2"), false},
		"another cluster":    {s.ca.Issue(t, uri("spiffe://other/node/n2")), false},
		"a client":           {s.ca.Issue(t, uri("spiffe://test/user/n2")), false},
		"an administrator":   {s.ca.Issue(t, uri("spiffe://test/administrator/n2")), false},
		"no URI":             {s.ca.Issue(t, func(*x509.Certificate) {}), false},
		"two URIs":           {twoURIs, false},
		"another scheme":     {s.ca.Issue(t, uri("https://test/node/n2")), false},
		"a longer path":      {s.ca.Issue(t, uri("spiffe://test/node/n2/x")), false},
		"a query":            {s.ca.Issue(t, uri("spiffe://test/node/n2?x=1")), false},
		"a user in the URI":  {s.ca.Issue(t, uri("spiffe://u@test/node/n2")), false},
		"an escaped path":    {s.ca.Issue(t, uri("spiffe://test/node/n%32")), false},
		"expired":            {expired, false},
		"for servers only":   {serverOnly, false},
		"an empty node name": {s.ca.Issue(t, uri("spiffe://test/node/")), false},
	} {
		for _, proto := range []string{"conclave-raft/1", "conclave-node/1"} {
			if err := s.knock(s.clientTLS(proto, c.cert)); (err == nil) != c.ok {
				t.Errorf("%s on %s: %v", name, proto, err)
			}
		}
	}
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no protocol":      func(c *tls.Config) { c.NextProtos = nil },
		"unknown protocol": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
	} {
		cfg := s.clientTLS("conclave-node/1", good)
		change(cfg)
		if err := s.knock(cfg); err == nil {
			t.Errorf("%s was let in", name)
		}
	}
	// Offering the protocol without a certificate beside another one is no way around the certificate.
	both := s.clientTLS("conclave-join/1", nil)
	both.NextProtos = append(both.NextProtos, "conclave-node/1")
	if err := s.knock(both); err == nil {
		t.Error("join and node together were let in without a certificate")
	}
	s.set("x")
}

// TestGarbageOnThePort: nothing that arrives ends the node, and none of it holds it up.
func TestGarbageOnThePort(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	good := s.clientTLS("conclave-raft/1", s.ca.Node(t, "n2"))
	grpc := s.clientTLS("conclave-node/1", s.ca.Node(t, "n2"))
	huge := make([]byte, 1<<20)
	for i := range huge {
		huge[i] = byte(i * 7)
	}
	send := func(conn net.Conn, data []byte) {
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(data) // refused at some point, which is the point
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	for _, data := range [][]byte{{}, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), {0x16, 3, 1, 0xff, 0xff}, huge} {
		raw, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			raw.Close()
			continue
		}
		if tcp, ok := raw.(*net.TCPConn); ok {
			_, _ = tcp.Write(data)
			_ = tcp.CloseWrite()
		}
		send(raw, nil)
	}
	for _, cfg := range []*tls.Config{good, grpc} {
		for _, data := range [][]byte{{0xff}, huge} {
			conn, err := tls.Dial("tcp", s.addr, cfg)
			if err != nil {
				t.Fatal(err)
			}
			send(conn, data)
		}
	}
	silent, err := net.Dial("tcp", s.addr) // says nothing, and is still there when the node stops
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.set("x")
}

func TestJoin(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	ctx := t.Context()
	got, err := cluster.JoinCall(ctx, nil, s.addr, s.ca.Fingerprint(), []byte("n2"))
	if err != nil || string(got) != "welcome n2" {
		t.Errorf("%q, %v", got, err)
	}
	var remote *cluster.RemoteError
	if _, err := cluster.JoinCall(ctx, nil, s.addr, s.ca.Fingerprint(), []byte("bad")); !errors.As(err, &remote) || remote.Message != "token is spent" {
		t.Errorf("refused join: %v", err)
	}
	if _, err := cluster.JoinCall(ctx, nil, s.addr, sha256.Sum256([]byte("another CA")), nil); !errors.Is(err, cluster.ErrPeer) {
		t.Errorf("wrong fingerprint: %v", err)
	}
	if _, err := cluster.JoinCall(ctx, nil, s.addr, s.ca.Fingerprint(), make([]byte, cluster.MaxJoinBytes+1)); !errors.Is(err, cluster.ErrTooLarge) {
		t.Errorf("oversized join: %v", err)
	}
	s.end()
	if _, err := cluster.JoinCall(ctx, nil, s.addr, s.ca.Fingerprint(), nil); !errors.Is(err, cluster.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}

// TestJoinNeedsANodesCertificate: a client of the right CA that listens there learns no token.
func TestJoinNeedsANodesCertificate(t *testing.T) {
	noLeak(t)
	ca := clustertest.NewAuthority(t, "test")
	client := ca.Issue(t, func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "test", Path: "/user/mallory"}}
	})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*client}, NextProtos: []string{"conclave-join/1"}})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan int, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			heard <- -1
			return
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 1024))
		heard <- n
	}()
	_, err = cluster.JoinCall(t.Context(), nil, l.Addr().String(), ca.Fingerprint(), []byte("token"))
	if !errors.Is(err, cluster.ErrPeer) {
		t.Errorf("join at a client's: %v", err)
	}
	if n := <-heard; n != 0 {
		t.Errorf("it heard %d bytes", n)
	}
	l.Close()
}

func TestNobodyJoinsWithoutHandler(t *testing.T) {
	noLeak(t)
	s := openSite(t, func(c *cluster.Config) { c.JoinHandler = nil })
	var remote *cluster.RemoteError
	if _, err := cluster.JoinCall(t.Context(), nil, s.addr, s.ca.Fingerprint(), nil); !errors.As(err, &remote) {
		t.Errorf("%v", err)
	}
}

// TestStrangersCannotFillThePort: silent connections and joiners have few places, and members keep theirs.
func TestStrangersCannotFillThePort(t *testing.T) {
	noLeak(t)
	s := openSite(t, nil)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 200 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	var refused atomic.Int32
	for _, c := range open {
		go func() {
			_, _ = c.Read(make([]byte, 1)) // until the port hangs up, or the test
			refused.Add(1)
		}()
	}
	s.until("all but 32 silent connections are refused", func() bool { return refused.Load() >= 200-32 })
	if n := refused.Load(); n != 200-32 {
		t.Errorf("%d of 200 silent connections were refused", n)
	}
	for _, c := range open {
		c.Close()
	}
	// joins opens one joiner's connection and reports whether it has a place: gRPC greets it with its settings.
	joins := func() bool {
		c, err := tls.Dial("tcp", s.addr, s.clientTLS("conclave-join/1", nil))
		if err != nil {
			return false
		}
		open = append(open, c)
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1))
		return err == nil
	}
	joining := 0
	s.until("32 joiners, when the silent ones are gone", func() bool {
		if joins() {
			joining++
		}
		return joining == 32
	})
	for range 10 {
		if joins() {
			t.Error("one joiner too many")
		}
	}
	if err := s.knock(s.clientTLS("conclave-node/1", s.ca.Node(t, "n2"))); err != nil {
		t.Errorf("a member found no place: %v", err)
	}
}
