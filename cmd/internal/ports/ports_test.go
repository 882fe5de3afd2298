package ports

import (
	"net"
	"strings"
	"testing"
)

func reserve(t *testing.T, n int) *Reservation {
	t.Helper()
	r, err := Reserve(n)
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
	if _, safe := choice(ephemeral()); !safe {
		t.Skipf("this machine's ephemeral ports are %v, which leaves none that are safe", ephemeral())
	}
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
	again, err := Keep(append(addrs, "", "nonsense"))
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
	again, err := Keep([]string{addr})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addrs[0] == addr {
		t.Errorf("%s was given, and something has it for UDP", addr)
	}
}

func TestChoice(t *testing.T) {
	for taken, want := range map[span]span{
		{32768, 60999}: {10000, 32767}, {10500, 65535}: {10000, 10499}, {10000, 30000}: {30001, 65535}, {1024, 65000}: {65001, 65535}, {1024, 5000}: {10000, 65535},
	} {
		if got, safe := choice(taken); got != want || !safe {
			t.Errorf("with ephemeral ports %v: %v, want %v", taken, got, want)
		}
	}
	if from, safe := choice(span{1024, 65535}); safe || from.room() < leastRoom {
		t.Errorf("without room: %v, said to be safe: %t", from, safe)
	}
}

// TestKeepTakesTheKnownFirst: whatever is drawn for the others.
func TestKeepTakesTheKnownFirst(t *testing.T) {
	r := reserve(t, 1)
	addr := r.Addrs[0]
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Keep([]string{"", addr})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addrs[1] != addr || again.Addrs[0] == "" || again.Addrs[0] == addr {
		t.Errorf("%v, and %s was to be kept as the second", again.Addrs, addr)
	}
}

// TestTheReasonIsTold of a search that finds nothing.
func TestTheReasonIsTold(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	port := l.Addr().(*net.TCPAddr).Port
	r := &Reservation{Addrs: make([]string, 1)}
	if err := r.search(0, span{port, port}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v", err)
	}
}
