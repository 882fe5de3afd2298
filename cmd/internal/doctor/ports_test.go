package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
)

func apiAt(bind string) port {
	return port{"api", config.Endpoint{Bind: bind, Advertise: bind}, false, "h2"}
}

func TestPortFree(t *testing.T) {
	c := healthy(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	is(t, c.checkPort(t.Context(), apiAt(addr)), OK, "is free")
	l, err = net.Listen("tcp", addr) // the check has let it go
	must(t, err)
	must(t, l.Close())
	c.server = os.Getpid()
	is(t, c.checkPort(t.Context(), apiAt(addr)), Warn, "though the server runs")
	is(t, c.checkPort(t.Context(), apiAt("127.0.0.1:0")), NotApplicable)
}

func TestPortTaken(t *testing.T) {
	c := healthy(t)
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		l, err := net.Listen("tcp", bind)
		if bind == "[::1]:0" && err != nil {
			continue // a host without IPv6; TestListener reads its table all the same
		}
		must(t, err)
		p := apiAt(l.Addr().String())
		comm, err := os.ReadFile("/proc/self/comm")
		must(t, err)
		pid := strconv.Itoa(os.Getpid())
		c.server = 0
		is(t, c.checkPort(t.Context(), p), Fail, p.endpoint.Bind, strings.TrimSpace(string(comm)), "(pid "+pid+")", "another port")
		c.server = os.Getpid()
		is(t, c.checkPort(t.Context(), p), OK, "this node's running server (pid "+pid+")")
		must(t, l.Close())
	}
}

func TestPortOfGossipIsUDPToo(t *testing.T) {
	c := healthy(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0") // of a number that is free for both, whatever else runs here
	must(t, err)
	l, err := net.ListenPacket("udp", tcp.Addr().String())
	must(t, errors.Join(err, tcp.Close()))
	defer l.Close()
	p := port{"gossip", config.Endpoint{Bind: l.LocalAddr().String()}, true, ""}
	is(t, c.checkPort(t.Context(), p), Fail, "/udp is in use", strconv.Itoa(os.Getpid()))
	p.udp = false
	is(t, c.checkPort(t.Context(), p), OK)
}

// TestPortOfAnotherUser: without the right to look into other processes their sockets have no names, as when the server is
// undumpable.
func TestPortOfAnotherUser(t *testing.T) {
	c := healthy(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	table, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	c.root = files(t, map[string]string{"proc/net/tcp": string(table), "proc/77/comm": "x"})
	is(t, c.checkPort(t.Context(), apiAt(l.Addr().String())), Fail, "a process of another user", "ss -lpn")
	gossip := port{"gossip", config.Endpoint{Bind: l.Addr().String()}, true, ""}
	is(t, c.checkPort(t.Context(), gossip), Fail)
	c.shown = true // another port's server is this node's
	is(t, c.checkPort(t.Context(), gossip), OK, "does not show this user")
	c.server = 77
	is(t, c.checkPort(t.Context(), apiAt(l.Addr().String())), OK, "does not show this user")
}

func TestPortNotOurs(t *testing.T) {
	c := healthy(t)
	is(t, c.checkPort(t.Context(), apiAt("192.0.2.1:7443")), Fail, "no interface", "0.0.0.0")
	first, err := c.read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	must(t, err)
	want := Fail
	if first == "0" { // a container's host may give all ports to everybody
		want = OK
	}
	without(t, unix.CAP_NET_BIND_SERVICE, func() { is(t, c.checkPort(context.Background(), apiAt("127.0.0.1:1")), want) })
}

// TestPortOfAServerWithThisCertificate: a server in another pid namespace is known by what it shows.
func TestPortOfAServerWithThisCertificate(t *testing.T) {
	c := healthy(t)
	mine, der := selfSigned(t)
	other, _ := selfSigned(t)
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.Certificate = der })
	for name, k := range map[string]struct {
		shown tls.Certificate
		want  Status
	}{"this node's": {mine, OK}, "another's": {other, Fail}} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{k.shown}, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert})
		must(t, err)
		var serving sync.WaitGroup
		serving.Go(func() {
			conn, err := l.Accept()
			if err != nil {
				return // the port's owner was known before anybody called
			}
			_ = conn.(*tls.Conn).Handshake() // the client leaves in its midst
			_ = conn.Close()
		})
		got := c.checkPort(t.Context(), apiAt(l.Addr().String()))
		must(t, l.Close())
		serving.Wait()
		if want := k.want == OK; c.shown != want {
			t.Errorf("%s: shown is %v", name, c.shown)
		}
		c.shown = false
		if got.Status != k.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAddress(t *testing.T) {
	c := healthy(t)
	names := map[string][]net.IP{"n1.example": {net.IPv4(192, 0, 2, 1)}, "n2.example": {net.IPv4(192, 0, 2, 2)}, "local.example": {net.IPv4(127, 0, 0, 1)}}
	c.lookup = func(_ context.Context, name string) ([]net.IP, error) {
		if ips := names[name]; ips != nil {
			return ips, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	check := func(advertise string) Result {
		return c.checkAddress(t.Context(), port{name: "cluster", endpoint: config.Endpoint{Advertise: advertise}})
	}
	is(t, check("127.0.0.1:7444"), OK, "only this host")
	is(t, check("n1.example:7444"), OK, "192.0.2.1", "no interface of this host has")
	is(t, check("nowhere.example:7444"), Fail, "no such host", "DNS")
	names["empty.example"] = []net.IP{}
	is(t, check("empty.example:7444"), Fail)
	c.cfg.Peers = map[string]string{"n3": "127.0.0.1:7555"}
	is(t, check("127.0.0.1:7444"), OK)
	c.cfg.Peers["n2"] = "n2.example:7444"
	is(t, check("127.0.0.1:7444"), Warn, "n2.example:7444", "cluster.advertise")
	is(t, check("local.example:7444"), Warn)
	is(t, check("n1.example:7444"), OK)
	c.cfg.Peers = nil
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.Peers = []string{"192.0.2.7:7444"} })
	is(t, check("127.0.0.1:7444"), Warn, "192.0.2.7:7444")
}

func TestLockHolder(t *testing.T) {
	c := healthy(t)
	path := node.TokenPath(c.cfg.DataDir)
	if pid := c.lockHolder(path + ".lock"); pid != 0 {
		t.Errorf("no file, and process %d holds it", pid)
	}
	token, err := soft.Create(path, []byte("correct horse"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 8, Threads: 1}})
	must(t, err)
	if pid := c.lockHolder(path + ".lock"); pid != os.Getpid() {
		t.Errorf("process %d holds it, this is %d", pid, os.Getpid())
	}
	must(t, token.Close())
	if pid := c.lockHolder(path + ".lock"); pid != 0 {
		t.Errorf("nobody has it open, and process %d holds it", pid)
	}
	var s unix.Stat_t
	must(t, unix.Stat(path+".lock", &s))
	c.root = files(t, map[string]string{"proc/locks": "1: FLOCK  ADVISORY  WRITE -1 00:00:0 0 EOF\n1: -> FLOCK\nnonsense\n"})
	if pid := c.lockHolder(path + ".lock"); pid != 0 {
		t.Errorf("process %d", pid)
	}
}

// FuzzListener: lines of the kernel's tables are taken apart without panics, and no line of another port is taken for ours.
func FuzzListener(f *testing.F) {
	f.Add("  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1", "tcp", uint16(8080))
	f.Add("  0: 00000000000000000000000001000000:0016 0:0 07 0 0 0 0 0 7", "udp", uint16(22))
	f.Add("a b c d e f g h i j", "tcp", uint16(0))
	f.Fuzz(func(t *testing.T, line, network string, port uint16) {
		inode, ok := listener(line, network, net.IPv4(127, 0, 0, 1), port)
		if ok && !strings.Contains(line, inode) {
			t.Errorf("%q yields %q", line, inode)
		}
	})
}

func TestListener(t *testing.T) {
	const v4 = "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1"
	for name, k := range map[string]struct {
		line, network, ip string
		port              uint16
		want              bool
	}{
		"same": {v4, "tcp", "127.0.0.1", 8080, true}, "every address": {v4, "tcp", "0.0.0.0", 8080, true}, "another address": {v4, "tcp", "127.0.0.2", 8080, false},
		"IPv6":         {strings.Replace(v4, "0100007F", "00000000000000000000000001000000", 1), "tcp", "::1", 8080, true},
		"another IPv6": {strings.Replace(v4, "0100007F", "00000000000000000000000001000000", 1), "tcp", "::2", 8080, false},
		"another port": {v4, "tcp", "127.0.0.1", 8081, false}, "connected": {strings.Replace(v4, " 0A ", " 01 ", 1), "tcp", "127.0.0.1", 8080, false},
		"header": {"  sl  local_address rem_address   st tx_queue", "tcp", "127.0.0.1", 8080, false},
	} {
		inode, ok := listener(k.line, k.network, net.ParseIP(k.ip), k.port)
		if ok != k.want || ok && inode != "42" {
			t.Errorf("%s: %q, %v", name, inode, ok)
		}
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	if got := existing(filepath.Join(dir, "a", "b")); got != dir {
		t.Errorf("%s", got)
	}
	if _, err := os.Stat(existing("/")); errors.Is(err, os.ErrNotExist) {
		t.Error("the root is not there")
	}
}
