package ports_test

import (
	"net"
	"testing"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
)

func reserve(t *testing.T, n int) *ports.Reservation {
	t.Helper()
	r, err := ports.Reserve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if len(r.Addrs) != n {
		t.Fatalf("%d addresses of %d", len(r.Addrs), n)
	}
	return r
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestNoPortIsGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 40 {
		for _, addr := range reserve(t, 9).Addrs {
			if seen[addr] {
				t.Fatalf("%s was given twice", addr)
			}
			seen[addr] = true
		}
	}
}

func TestNobodyElseComesBetween(t *testing.T) {
	mine := map[string]bool{}
	for _, addr := range reserve(t, 20).Addrs {
		mine[addr] = true
	}
	for range 2000 { // each listens at a port of the kernel's choice, and connects from another
		l := listen(t, "127.0.0.1:0")
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if mine[l.Addr().String()] || mine[conn.LocalAddr().String()] {
			t.Errorf("%s or %s was reserved", l.Addr(), conn.LocalAddr())
		}
		conn.Close()
		l.Close()
	}
	for addr := range mine {
		listen(t, addr)
	}
}

func TestKeep(t *testing.T) {
	first := reserve(t, 3)
	addrs := first.Addrs
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	listen(t, addrs[1])
	again, err := ports.Keep(append(addrs, "", "nonsense"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if len(again.Addrs) != 5 || again.Addrs[0] != addrs[0] || again.Addrs[1] == addrs[1] || again.Addrs[2] != addrs[2] {
		t.Errorf("kept %v of %v, of which the second is taken", again.Addrs, addrs)
	}
}

// A port of which UDP is taken does not serve for gossip.
func TestBothProtocols(t *testing.T) {
	r := reserve(t, 1)
	addr := r.Addrs[0]
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	again, err := ports.Keep([]string{addr})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addrs[0] == addr {
		t.Errorf("%s was given, and something has it for UDP", addr)
	}
}
