package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// echoes listens and answers every line with itself.
func echoes(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if _, err := fmt.Fprintln(c, lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// caller is a connection of a to b through the network.
type caller struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, addr string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &caller{c, bufio.NewReader(c)}
}

// say sends a line and returns when its echo is here.
func (c *caller) say(line string, within time.Duration) (time.Duration, error) {
	start := time.Now()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return 0, err
	}
	return c.hear(line, start, within)
}

func (c *caller) hear(line string, start time.Time, within time.Duration) (time.Duration, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return 0, err
	}
	got, err := c.lines.ReadString('\n')
	if err == nil && got != line+"\n" {
		err = fmt.Errorf("heard %q", got)
	}
	return time.Since(start), err
}

const patience = 10 * time.Second

func link2(t *testing.T) (*network, route, string) {
	t.Helper()
	n, r := newNetwork(t.Context()), route{"a", "b"}
	t.Cleanup(n.close)
	addr, err := n.connect(r, echoes(t))
	if err != nil {
		t.Fatal(err)
	}
	return n, r, addr
}

// TestACutHoldsBackOneDirection: either half of a connection can be cut, nothing comes through, and all of it when it is healed.
func TestACutHoldsBackOneDirection(t *testing.T) {
	for _, back := range []bool{false, true} {
		n, r, addr := link2(t)
		if back {
			r = r.back()
		}
		c := dial(t, addr)
		if _, err := c.say("one", patience); err != nil {
			t.Fatal(err)
		}
		n.cut(r)
		if _, err := c.say("two", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("back %t: through a cut came %v", back, err)
		}
		other := dial(t, addr)
		if _, err := other.say("new", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("back %t: a new connection through a cut: %v", back, err)
		}
		n.heal()
		if _, err := c.hear("two", time.Now(), patience); err != nil {
			t.Errorf("back %t: after the cut: %v", back, err)
		}
		if _, err := other.hear("new", time.Now(), patience); err != nil {
			t.Errorf("back %t: a new connection after the cut: %v", back, err)
		}
	}
}

func TestASlowLinkDelays(t *testing.T) {
	n, r, addr := link2(t)
	c := dial(t, addr)
	n.slow(r, 60*time.Millisecond)
	n.slow(r.back(), 60*time.Millisecond)
	if took, err := c.say("one", patience); err != nil || took < 120*time.Millisecond {
		t.Errorf("an echo took %s: %v", took, err)
	}
}

func TestAResetBreaksConnectionsAndNotTheLink(t *testing.T) {
	n, r, addr := link2(t)
	c := dial(t, addr)
	if _, err := c.say("one", patience); err != nil {
		t.Fatal(err)
	}
	n.reset(r)
	if _, err := c.say("two", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the reset: %v", err)
	}
	if _, err := dial(t, addr).say("three", patience); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
