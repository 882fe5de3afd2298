package transport

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc/tap"

	"github.com/conclave-vault/conclave/cluster/refusal"
	"github.com/conclave-vault/conclave/transport/kind"
)

func silent() *refusal.Log { return refusal.New(slog.New(slog.NewTextHandler(io.Discard, nil)), "api") }

// TestCallsUnderWayHaveLimits: of one client and in all, at the limit and above it, and every end gives a place back.
func TestCallsUnderWayHaveLimits(t *testing.T) {
	f := newInFlight("n1", silent())
	for i := range maxInFlightPerClient {
		if err := f.take("a", "/s/m"); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := f.take("a", "/s/m"); kind.Of(err) != kind.Limit {
		t.Errorf("one too many of a client: %v", err)
	}
	for i := range maxInFlight - maxInFlightPerClient {
		if err := f.take(fmt.Sprint(i), "/s/m"); err != nil {
			t.Fatalf("call %d of others: %v", i, err)
		}
	}
	if err := f.take("z", "/s/m"); kind.Of(err) != kind.Limit {
		t.Errorf("one too many in all: %v", err)
	}
	f.give("a")
	if err := f.take("z", "/s/m"); err != nil {
		t.Errorf("a place was given back: %v", err)
	}
	if err := f.take("a", "nothing"); kind.Of(err) != kind.Unsupported {
		t.Errorf("no method: %v", err)
	}
}

// TestAnEndedCallGivesItsPlaceBack, and a call that goes on for ever has an end.
func TestAnEndedCallGivesItsPlaceBack(t *testing.T) {
	f := newInFlight("n1", silent())
	ctx, cancel := context.WithCancel(t.Context())
	inner, err := f.enter(ctx, &tap.Info{FullMethodName: "/s/m"})
	if err != nil {
		t.Fatal(err)
	}
	if _, bounded := inner.Deadline(); !bounded {
		t.Error("the call has no end")
	}
	cancel()
	for taken := 1; taken != 0; {
		f.mu.Lock()
		taken = f.all + len(f.client)
		f.mu.Unlock()
	}
}

// TestThePortsPlaces: at the limit and above it, with addresses of many hosts.
func TestThePortsPlaces(t *testing.T) {
	p := newPort(nil, silent())
	var open []*apiConn
	from := func(host int) (*apiConn, error) {
		c, err := p.admit(remoteConn{addr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(host>>8), byte(host)), Port: 1}})
		if err == nil {
			open = append(open, c)
		}
		return c, err
	}
	for i := range maxUnproved {
		if _, err := from(i); err != nil {
			t.Fatalf("stranger %d: %v", i, err)
		}
	}
	if _, err := from(maxUnproved); err == nil {
		t.Error("one stranger too many")
	}
	for len(open) < maxConns {
		for _, c := range open {
			c.prove()
		}
		if _, err := from(len(open)); err != nil {
			t.Fatalf("connection %d: %v", len(open), err)
		}
	}
	open[len(open)-1].prove()
	if _, err := from(maxConns); err == nil {
		t.Error("one connection too many")
	}
	for _, c := range open {
		for range 2 { // the second changes nothing
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p.all != 0 || p.unproved != 0 || len(p.perHost) != 0 {
		t.Errorf("%d connections, %d strangers, %d hosts are left", p.all, p.unproved, len(p.perHost))
	}
}

// remoteConn is a connection of which only the other end's address matters.
type remoteConn struct {
	net.Conn
	addr net.Addr
}

func (r remoteConn) RemoteAddr() net.Addr { return r.addr }
func (remoteConn) Close() error           { return nil }
