package e2e_test

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLies fires every lie about a certificate, and every kind of message that is cut short or too long, at every port of every node.
// Each is refused and is one line in that node's log; then thousands come at once, and neither log nor memory grows with them.
//
// It runs alone: a flood takes processors from tests beside it that measure pauses.
func TestLies(t *testing.T) {
	c := dev(t)
	pids, before := c.pids(), map[string]int{}
	for _, n := range c.nodes {
		before[n.id] = memoryOf(t, n)
		if honest := refusals(t, n); len(honest.lines)+honest.counts != 0 {
			t.Errorf("%s has refused honest nodes and clients: %+v", n.id, honest.lines)
		}
	}
	lies := newLies(t, c)
	for _, n := range c.nodes {
		for _, lie := range lies.at(t, n) {
			lies.tell(t, n, lie)
		}
	}
	c.flood(t, lies, c.nodes[1])
	for _, n := range c.nodes {
		if grown := memoryOf(t, n) - before[n.id]; grown > lieGrowth {
			t.Errorf("%s grew by %d MiB", n.id, grown)
		} else {
			t.Logf("%s grew by %d MiB", n.id, grown)
		}
		if pid, err := n.pid(); err != nil || pid != pids[n.dir] || !alive(pid, n.dir) {
			t.Errorf("%s was process %d and is %d, %v", n.id, pids[n.dir], pid, err)
		}
	}
	c.serving(t, 30*time.Second)
	for _, n := range c.nodes {
		c.admin.at(n.api).ok(t, "sign", "dev/probe", "--in", file(t, []byte("the truth")))
	}
}

// lieGrowth is how many MiB a node may grow by.
const lieGrowth = 64

// lies are what a liar has.
type lies struct {
	cluster string
	ports   func(*testing.T, *member) map[string]string
	known   tls.Certificate // an administrator's
	shown   map[string]*tls.Certificate
	says    map[string]string // by name of the certificate: what the API's log says of it
}

func newLies(t *testing.T, c *devCluster) *lies {
	t.Helper()
	l := &lies{cluster: c.status(t).Cluster, ports: c.ports, shown: map[string]*tls.Certificate{}, says: map[string]string{}}
	l.known = pairOf(t, c.admin)
	stranger := newAuthority(t, "a stranger's authority")
	hour := time.Now().Add(time.Hour)
	show := func(name string, who caller, says string) {
		pair := pairOf(t, who)
		l.shown[name], l.says[name] = &pair, says
	}
	l.shown["no certificate"], l.says["no certificate"] = nil, "didn't provide a certificate"
	show("another CA's administrator", stranger.issue(t, c.admin, "spiffe://"+l.cluster+"/administrator/admin", hour), "unknown authority")
	show("another CA's node", stranger.issue(t, c.admin, "spiffe://"+l.cluster+"/node/n1", hour), "unknown authority")
	show("another CA's, expired", stranger.issue(t, c.admin, "spiffe://"+l.cluster+"/user/demo", time.Now().Add(-time.Minute)), "x509")
	show("another cluster's administrator", elsewhere(t), "unknown authority")
	gone := c.issued(t, "user", "gone")
	c.admin.ok(t, "pki", "revoke", "--role", "user", "--name", "gone", "--reason", "left")
	show("a revoked user", gone, "was revoked")
	return l
}

// elsewhere is the administrator of another cluster, with an authority of the same make.
func elsewhere(t *testing.T) caller {
	t.Helper()
	c := unfounded(t, "ceremony")
	o := c.admin.ok(t, "init", "--config", c.nodes[0].config(), "--out", c.secrets)
	for line := range strings.Lines(o.out) {
		if m := exportLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			c.admin = c.admin.with(m[1], m[2])
		}
	}
	return c.admin
}

func pairOf(t *testing.T, who caller) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(who.env["CONCLAVE_CERT"], who.env["CONCLAVE_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// lie is one connection or packet.
type lie struct {
	name, network, addr, port string
	tls                       *tls.Config // nil: none is spoken
	words                     []byte
	hangUp                    bool
	says                      string // in the one line of the log
}

func (l *lies) config(proto string, c *tls.Certificate) *tls.Config {
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}
	if c != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}
	return cfg
}

const (
	http2Greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	longFrame     = http2Greeting + "\xff\xff\xff\x01\x04\x00\x00\x00\x01"
)

// at lists every lie for every port of a node.
func (l *lies) at(t *testing.T, n *member) (all []lie) {
	t.Helper()
	ports := l.ports(t, n)
	for name, c := range l.shown {
		all = append(all, lie{name: name, port: "api", tls: l.config("h2", c), words: statusCall, says: l.says[name]})
		for _, proto := range []string{"conclave-raft/1", "conclave-node/1"} {
			says := "unknown authority" // a client of this cluster is no node: nodes have an authority of their own
			if c == nil {
				says = l.says[name]
			}
			if strings.Contains(name, "expired") {
				says = "x509"
			}
			all = append(all, lie{name: name, port: "cluster", tls: l.config(proto, c), words: []byte("\x01\x80"), says: says})
		}
	}
	client := &l.known
	all = append(all, lie{name: "a client as a node", port: "cluster", tls: l.config("conclave-node/1", client), words: statusCall, says: "unknown authority"})
	for _, p := range []struct{ port, proto string }{{"api", "h2"}, {"cluster", "conclave-node/1"}, {"cluster", "conclave-join/1"}} {
		old := l.config(p.proto, client)
		old.MaxVersion = tls.VersionTLS12
		all = append(all,
			lie{name: "TLS 1.2", port: p.port, tls: old, says: "unsupported versions"},
			lie{name: "no TLS", port: p.port, words: []byte("GET / HTTP/1.1\r\n\r\n"), says: "does not look like a TLS handshake"},
			lie{name: "half a TLS record", port: p.port, words: []byte{0x16, 3, 1, 1}, hangUp: true, says: "hung up"},
			lie{name: "a long TLS record", port: p.port, words: []byte{0x16, 3, 1, 0xff, 0xff}, says: "oversized record"},
			lie{name: "a hello of 16 MiB", port: p.port, words: []byte{0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}, says: "handshake message"},
			lie{name: "a foreign protocol", port: p.port, tls: l.config("spdy/1", client), says: "unsupported application protocols"},
		)
	}
	for _, p := range []struct{ port, proto string }{{"api", "h2"}, {"cluster", "conclave-join/1"}} {
		all = append(all,
			lie{name: "no HTTP/2", port: p.port, tls: l.config(p.proto, client), words: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), says: "not HTTP/2"},
			lie{name: "half of HTTP/2", port: p.port, tls: l.config(p.proto, client), words: []byte(http2Greeting[:12]), hangUp: true, says: "truncated"},
			lie{name: "a long frame", port: p.port, tls: l.config(p.proto, client), words: []byte(longFrame), says: "16777215"},
		)
	}
	all = append(all, l.ofGossip()...)
	for i := range all {
		all[i].addr = ports[all[i].port]
	}
	return all
}

// ofGossip needs no certificate: gossip has a key.
func (l *lies) ofGossip() (all []lie) {
	label := "\xf4" + string(rune(len(l.cluster))) + l.cluster
	noise := make([]byte, 60000)
	_, _ = rand.Read(noise) // never fails
	for name, c := range map[string]struct{ words, says string }{
		"not encrypted": {label + "\x00\x81\xa5SeqNo\x01" + string(noise[:64]), "not encrypted"}, "another key": {label + "\x01" + string(noise[:100]), "gossip key"},
		"another cluster": {"\xf4\x05other\x01" + string(noise[:100]), "of the cluster"}, "cut": {label + "\x01", "truncated"},
		"a large packet": {label + "\x01" + string(noise), "gossip key"}, "no label": {"\x01" + string(noise[:100]), "no cluster's label"},
	} {
		all = append(all, lie{name: name, network: "udp", port: "gossip", words: []byte(c.words), says: c.says})
	}
	for name, c := range map[string]struct{ words, says string }{
		"not encrypted": {label + "\x06\x83", "not encrypted"}, "another key": {label + "\x0a\x00\x00\x00\x40\x01" + string(noise[:63]), "gossip key"},
		"20 MiB": {label + "\x0a\x01\x40\x00\x00" + string(noise), "at most"}, "4 GiB": {label + "\x0a\xff\xff\xff\xff", "at most"},
		"half a length": {label + "\x0a\x00\x00", "truncated"}, "half a message": {label + "\x0a\x00\x00\x40\x00\x01" + string(noise[:100]), "truncated"},
	} {
		all = append(all, lie{name: name, network: "tcp", port: "gossip", words: []byte(c.words), hangUp: true, says: c.says})
	}
	return all
}

// statusCall is a whole call of Status.
var statusCall = func() []byte {
	var block strings.Builder
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", "/conclave.vault.v1.Cluster/Status"}, {":authority", "x"}, {"te", "trailers"}, {"content-type", "application/grpc"},
	} {
		block.WriteString("\x00" + string(rune(len(h[0]))) + h[0] + string(rune(len(h[1]))) + h[1])
	}
	headers := "\x00\x00" + string([]byte{byte(block.Len())}) + "\x01\x04\x00\x00\x00\x01" + block.String()
	return []byte(http2Greeting + headers + "\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00")
}()

// tell fires one lie, and demands that it is refused and one line.
func (l *lies) tell(t *testing.T, n *member, lie lie) {
	t.Helper()
	log := refusals(t, n)
	heard := lie.fire(t)
	if strings.Contains(heard, "grpc-status0") {
		t.Errorf("%s: %s at %s was served", n.id, lie.name, lie.port)
	}
	eventually(t, 5*time.Second, n.id+": a line for "+lie.name+" at "+lie.port+" "+lie.network, func() error {
		now := refusals(t, n)
		if len(now.lines) == len(log.lines) {
			return fmt.Errorf("no new line")
		}
		return nil
	})
	now := refusals(t, n)
	fresh := now.lines[len(log.lines):]
	if len(fresh) != 1 || fresh[0].port != lie.port || !strings.Contains(fresh[0].err, lie.says) || fresh[0].remote == "" || fresh[0].purpose == "" {
		t.Errorf("%s: %s at %s: want one line that says %q, got %+v", n.id, lie.name, lie.port, lie.says, fresh)
	}
}

// fire returns what the node answers.
func (l lie) fire(t testing.TB) string {
	t.Helper()
	network := l.network
	if network == "" {
		network = "tcp"
	}
	conn, err := net.DialTimeout(network, l.addr, 5*time.Second)
	if err != nil {
		t.Fatalf("%s does not listen any more: %v", l.addr, err)
	}
	defer conn.Close()
	if network == "udp" {
		_, _ = conn.Write(l.words)
		return ""
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	raw := conn
	if l.tls != nil {
		secure := tls.Client(conn, l.tls)
		if secure.Handshake() != nil {
			return ""
		}
		conn = secure
	}
	_, _ = conn.Write(l.words)
	if l.hangUp {
		_ = raw.(*net.TCPConn).CloseWrite()
	}
	heard := make([]byte, 4096)
	n, _ := io.ReadFull(conn, heard) // until it hangs up, or a second
	return string(heard[:n])
}

// refusalLine is a line about a refused connection.
type refusalLine struct {
	port, purpose, remote, err string
}

// logField is a field of a log in slog's text format, which dev writes.
var logField = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S+)`)

type refusalLog struct {
	lines  []refusalLine // one for each
	counts int           // of those that have no line
	size   int           // of the whole log
}

// refusals reads a node's log.
func refusals(t testing.TB, n *member) (log refusalLog) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	log.size = len(b)
	for line := range strings.Lines(string(b)) {
		fields := map[string]string{}
		for _, f := range logField.FindAllStringSubmatch(line, -1) {
			value := f[2]
			if text, err := strconv.Unquote(value); err == nil {
				value = text
			}
			fields[f[1]] = value
		}
		switch fields["msg"] {
		case "connection refused":
			log.lines = append(log.lines, refusalLine{fields["port"], fields["purpose"], fields["remote"], fields["err"]})
		case "more connections refused":
			counted, err := strconv.Atoi(fields["refused"])
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			log.counts += counted
		}
	}
	return log
}
