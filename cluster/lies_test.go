package cluster_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/clustertest"
)

// lineLog is a node's log, read while it is written.
type lineLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// count of the lines that hold all the words.
func (l *lineLog) count(words ...string) (n int) { return l.since(0, words...) }

// since is count after so many lines.
func (l *lineLog) since(skip int, words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.buf.String()) {
		if skip--; skip >= 0 {
			continue
		}
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		n++
	}
	return n
}

const refusedLine = `"msg":"connection refused"`

// logged is a site whose log is kept, from the level that operators use.
func logged(t *testing.T, change func(*cluster.Config)) (*site, *lineLog) {
	t.Helper()
	l := &lineLog{}
	s := openSite(t, func(c *cluster.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(l, nil))
		if change != nil {
			change(c)
		}
	})
	return s, l
}

// once demands one line of a refusal with these words, and no other line that is new.
func (l *lineLog) once(t *testing.T, what string, before int, words ...string) {
	t.Helper()
	words = append(words, refusedLine)
	for end := time.Now().Add(5 * time.Second); l.since(before, words...) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n, all := l.since(before, words...), l.count(""); n != 1 || all != before+1 {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.Errorf("%s: %d lines with %q, %d new lines in all\n%s", what, n, words, all-before, l.buf.String())
	}
}

// liars are certificates that are no node's of this cluster, and what the log says of each.
func liars(t *testing.T, ca *clustertest.Authority) map[string]struct {
	cert *tls.Certificate
	says string
} {
	t.Helper()
	named := func(text string, change func(*x509.Certificate)) *tls.Certificate {
		return ca.Issue(t, func(c *x509.Certificate) {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
			if change != nil {
				change(c)
			}
		})
	}
	const n2 = "spiffe://test/node/n2"
	foreign := clustertest.NewAuthority(t, "test")
	return map[string]struct {
		cert *tls.Certificate
		says string
	}{
		"none":           {nil, "didn't provide a certificate"},
		"another CA":     {foreign.Node(t, "n2"), "unknown authority"},
		"itself":         {signedByItself(t, n2), "unknown authority"},
		"other cluster":  {named("spiffe://other/node/n2", nil), "of another cluster"},
		"expired":        {named(n2, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "has expired"},
		"not yet valid":  {named(n2, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "not yet valid"},
		"a user":         {named("spiffe://test/user/n2", nil), "not a node's"},
		"a server's use": {named(n2, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "key usage"},
		"a mail's use":   {named(n2, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), "key usage"},
		"no name":        {ca.Issue(t, func(*x509.Certificate) {}), "0 URIs"},
	}
}

func signedByItself(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	key := clustertest.NewAuthority(t, "test").Node(t, "n2").PrivateKey
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.(crypto.Signer).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestLyingCertificates: each is refused at each protocol for nodes, with one line that says who asked for what, and why not. The
// liar reads an alert.
func TestLyingCertificates(t *testing.T) {
	noLeak(t)
	s, l := logged(t, nil)
	for name, liar := range liars(t, s.ca) {
		for _, proto := range []string{"conclave-raft/1", "conclave-node/1"} {
			before := l.count("")
			words := []string{liar.says, `"port":"cluster"`, `"purpose":"` + proto + `"`, `"remote":"127.0.0.1:`}
			if err := s.knock(s.clientTLS(proto, liar.cert)); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("%s at %s: %v", name, proto, err)
			}
			l.once(t, name+" at "+proto, before, words...)
		}
	}
	before := l.count("")
	old := s.clientTLS("conclave-join/1", nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := s.knock(old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	l.once(t, "TLS 1.2", before, "unsupported versions")
	s.set("x")
}

// TestHugeChainIsRefused: crypto/tls reads a quarter of a megabyte of certificates and not more.
func TestHugeChainIsRefused(t *testing.T) {
	noLeak(t)
	s, l := logged(t, nil)
	before := l.count("")
	long := *s.ca.Node(t, "n2")
	for size := 0; size < 1<<20; size += len(long.Certificate[0]) {
		long.Certificate = append(long.Certificate, long.Certificate[0])
	}
	if err := s.knock(s.clientTLS("conclave-node/1", &long)); err == nil {
		t.Error("it was let in")
	}
	l.once(t, "a chain of 1 MiB", before)
	s.set("x")
}

// said writes to a port and reads until the node hangs up.
func said(t *testing.T, conn net.Conn, words []byte, hangUp bool) {
	t.Helper()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write(words) // refused at some point, which is the point
	if half, ok := conn.(interface{ CloseWrite() error }); ok && hangUp {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
}

// TestHalfSentencesAtTheClusterPort: TLS that is none, HTTP/2 that is none, raft that is none, each cut short or too long.
func TestHalfSentencesAtTheClusterPort(t *testing.T) {
	noLeak(t)
	s, l := logged(t, nil)
	huge := binary.BigEndian.AppendUint32([]byte{0xdb}, 1<<32-1)
	vote := append([]byte("\x01\x81\xa4Term"), huge...)
	for _, c := range []struct {
		name, proto string
		words       []byte
		hangUp      bool
		says        string
	}{
		{"no TLS", "", []byte("GET / HTTP/1.1\r\n\r\n"), false, "first record does not look like a TLS handshake"},
		{"nothing", "", nil, true, "the handshake was not finished: the peer hung up"},
		{"half a record", "", []byte{0x16, 3, 1, 2}, true, "hung up"},
		{"a record that is too long", "", []byte{0x16, 3, 1, 0xff, 0xff}, false, "oversized record"},
		{"a hello of 16 MiB", "", []byte{0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}, false, "handshake message of length"},
		{"raft of no kind", "conclave-raft/1", []byte{9}, false, "kind 9"},
		{"raft of 4 GiB", "conclave-raft/1", vote, false, "at most"},
		{"half of raft", "conclave-raft/1", []byte("\x00\x81"), true, "truncated"},
		{"raft with a text for a term", "conclave-raft/1", []byte("\x01\x81\xa4Term\xa3abc"), false, "could not decode"},
		{"a call that is none", "conclave-node/1", []byte("GET / HTTP/1.1\r\n\r\n1234567890"), false, "not HTTP/2"},
		{"half a call", "conclave-node/1", []byte("PRI * HTTP/2.0\r\n"), true, "truncated"},
		{"a join that is none", "conclave-join/1", bytes.Repeat([]byte{0xff}, 1<<16), false, "not HTTP/2"},
		{"a frame of 16 MiB", "conclave-join/1", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00"), false, "16777215"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := l.count("")
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if c.proto != "" {
				conn = tls.Client(conn, s.clientTLS(c.proto, s.ca.Node(t, "n2")))
			}
			said(t, conn, c.words, c.hangUp)
			purpose := c.proto
			if purpose == "" {
				purpose = "unknown"
			}
			l.once(t, c.name, before, c.says, `"purpose":"`+purpose)
		})
	}
	s.set("x")
}

// TestRaftAllocatesNothingForALie: what a member of the cluster declares costs neither memory nor a connection that waits for ever.
func TestRaftAllocatesNothingForALie(t *testing.T) {
	noLeak(t)
	s, l := logged(t, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	lies := 0
	for range 20 {
		for _, words := range []string{
			"\x01\x81\xa4Term\xdb\xff\xff\xff\xff",                                    // a text of 4 GiB
			"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff",                                 // as many entries
			"\x00\x81\xa7Entries\xdd\x00\x01\x00\x00" + strings.Repeat("\x80", 1<<16), // empty ones, of a hundred bytes each
			"\x02\x82\xa4Size\xd3\x7f\xff\xff\xff\xff\xff\xff\xff\xadConfiguration\xc6\xff\xff\xff\xff",
		} {
			said(t, tls.Client(dialed(t, s.addr), s.clientTLS("conclave-raft/1", s.ca.Node(t, "n2"))), []byte(words), false)
			lies++
		}
	}
	runtime.ReadMemStats(&after)
	if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 80 { // 256 KiB of buffer for each connection of raft's, and TLS
		t.Errorf("%d lies cost %d MiB", lies, grown)
	}
	s.until("a line for each", func() bool { return l.count(refusedLine) == lies })
	s.set("x")
}

func dialed(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestAMembersOldestConnectionsEnd: broken networks leave connections behind, and a compromised member opens many.
func TestAMembersOldestConnectionsEnd(t *testing.T) {
	noLeak(t)
	s, _ := logged(t, nil)
	const kept = 12
	open := make([]*tls.Conn, kept+1)
	for i := range open {
		open[i] = tls.Client(dialed(t, s.addr), s.clientTLS("conclave-raft/1", s.ca.Node(t, "n2")))
		defer open[i].Close()
		if err := open[i].HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := open[0].SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := open[0].Read(make([]byte, 1)); err == nil || asTimeout(err, &timeout) {
		t.Errorf("the oldest lives: %v", err)
	}
	for i, c := range open[1:] {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !asTimeout(err, &timeout) {
			t.Errorf("connection %d: %v", i+1, err)
		}
	}
	s.set("x")
}

func asTimeout(err error, into *net.Error) bool {
	e, ok := err.(net.Error)
	if ok {
		*into = e
	}
	return ok && e.Timeout()
}

// TestExpiryEndsConnections: of raft, and of calls, that were opened while the certificate was good.
func TestExpiryEndsConnections(t *testing.T) {
	noLeak(t)
	s, _ := logged(t, nil)
	short := s.ca.Issue(t, func(c *x509.Certificate) {
		c.URIs = []*url.URL{cluster.NodeURI("test", "n2")}
		c.NotAfter = time.Now().Add(2 * time.Second)
	})
	conn := tls.Client(dialed(t, s.addr), s.clientTLS("conclave-raft/1", short))
	defer conn.Close()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Read(make([]byte, 1)); err == nil || asTimeout(err, &timeout) {
		t.Errorf("it outlives its certificate: %v", err)
	}
}

// TestSlowHandshakesEnd: one byte at a time is as good as silence.
func TestSlowHandshakesEnd(t *testing.T) {
	noLeak(t)
	s, l := logged(t, nil)
	before := l.count("")
	conn := dialed(t, s.addr)
	defer conn.Close()
	began := time.Now()
	for _, b := range []byte{0x16, 3, 1, 1, 0} {
		_, _ = conn.Write([]byte{b})
	}
	if err := conn.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Read(make([]byte, 1)); asTimeout(err, &timeout) || time.Since(began) > 10*time.Second {
		t.Errorf("it lives on: %v after %s", err, time.Since(began))
	}
	l.once(t, "a slow handshake", before, "not finished within 5s")
}

// TestLiesOfGossip: at UDP and TCP, from whoever can reach the port: refused, one line each, few places, two seconds.
func TestLiesOfGossip(t *testing.T) {
	noLeak(t)
	addr := freePort(t)
	key := make([]byte, 32)
	s, l := logged(t, func(c *cluster.Config) { c.Gossip = &cluster.GossipConfig{Bind: addr, Key: key} })
	s.until("gossip", func() bool { return len(s.Gossip()) == 1 })
	label := "\xf4\x04test"
	for i, words := range []string{
		"hello", "\xf4", label, "\xf4\x05other\x01" + strings.Repeat("x", 100), label + "\x00" + strings.Repeat("x", 100),
		label + "\x01" + strings.Repeat("x", 100), label + "\x01" + strings.Repeat("x", 60000), label + "\x09\x81\xa3Buf\xdb\xff\xff\xff\xff",
	} {
		before, lines := l.count(""), l.count(refusedLine, `"purpose":"udp"`)
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(words)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		s.until("a line", func() bool { return l.count(refusedLine, `"purpose":"udp"`, `"port":"gossip"`) == lines+1 })
		if n := l.count(""); n != before+1 {
			t.Errorf("packet %d: %d lines", i, n-before)
		}
	}
	for i, words := range []string{
		"hello", "\xf4", label, label + "\x0a", label + "\x0a\x00\x04\x00\x01", label + "\x0a\xff\xff\xff\xff" + strings.Repeat("x", 1000),
		label + "\x0a\x00\x00\x00\x40" + strings.Repeat("\x01", 64), label + "\x0a\x00\x00\x00\x40\x01", label + "\x06\x83", "\xf4\x05other\x0a\x00\x00\x00\x40",
	} {
		before, lines := l.count(""), l.count(refusedLine, `"purpose":"tcp"`)
		said(t, dialed(t, addr), []byte(words), true)
		s.until("a line", func() bool { return l.count(refusedLine, `"purpose":"tcp"`, `"port":"gossip"`) == lines+1 })
		if n := l.count(""); n != before+1 {
			t.Errorf("stream %d: %d lines", i, n-before)
		}
	}
	s.gossipPlaces(l, addr)
	s.set("x")
}

// gossipPlaces: connections that say nothing have sixteen places and two seconds.
func (s *site) gossipPlaces(l *lineLog, addr string) {
	s.t.Helper()
	const places = 16
	var silent []net.Conn
	before := l.count(refusedLine)
	for range places + 1 {
		c := dialed(s.t, addr)
		defer c.Close()
		silent = append(silent, c)
	}
	s.until("the last is refused", func() bool { return l.count(refusedLine, "16 of one host") == 1 })
	s.until("all are refused", func() bool { return l.count(refusedLine) == before+places+1 })
	if n := l.count(refusedLine, "not complete within 2s"); n != places {
		s.t.Errorf("%d were too slow", n)
	}
	for _, c := range silent {
		if _, err := fmt.Fprint(c, "x"); err != nil {
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			s.t.Fatal(err)
		}
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); err == nil || asTimeout(err, &timeout) {
			s.t.Error("a silent connection lives")
		}
	}
}
