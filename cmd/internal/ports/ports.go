// Package ports finds addresses on 127.0.0.1 for servers that another process starts later, and starts again.
//
// A port that was free a moment ago is taken by whoever asks the kernel for any port, and by every outgoing connection. So these come from
// below the kernel's ephemeral range, which neither gets; and two that look for ports at once cannot find the same ones, because each holds a socket of
// the same number on another loopback address for as long as it needs the port.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	loopback = "127.0.0.1"
	// guard is where reservations are seen. All of 127.0.0.0/8 is the loopback interface's (RFC 6890).
	guard = "127.255.255.254"
	// lowest port that is given: servers with a number of their own are mostly below.
	lowest = 10000
	// ephemeral is where Linux's range of ephemeral ports begins if nobody has set another.
	ephemeral     = 32768
	ephemeralFile = "/proc/sys/net/ipv4/ip_local_port_range"
	// maxTries bounds the search for one port.
	maxTries = 200
)

// Reservation is the addresses that were found, in order. Close gives them up.
type Reservation struct {
	Addrs  []string
	guards []net.Listener
}

// Reserve finds n addresses that are free for TCP and UDP.
func Reserve(n int) (*Reservation, error) { return Keep(make([]string, n)) }

// Keep reserves these addresses, or another for one that is taken or empty.
func Keep(addrs []string) (*Reservation, error) {
	r := &Reservation{}
	for _, addr := range addrs {
		if addr != "" && r.take(addr) {
			continue
		}
		if err := r.search(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// Close lets others have the addresses.
func (r *Reservation) Close() error {
	var errs []error
	for _, g := range r.guards {
		errs = append(errs, g.Close())
	}
	r.guards = nil
	return errors.Join(errs...)
}

func (r *Reservation) search() error {
	end := firstEphemeral()
	for range maxTries {
		if r.take(net.JoinHostPort(loopback, strconv.Itoa(lowest+rand.IntN(end-lowest)))) {
			return nil
		}
	}
	return fmt.Errorf("no port from %d to %d is free on %s", lowest, end-1, loopback)
}

// take reserves addr if nobody has reserved its port and nobody listens there.
func (r *Reservation) take(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	g, err := net.Listen("tcp", net.JoinHostPort(guard, port))
	if err != nil {
		return false
	}
	if !listens(addr) {
		g.Close()
		return false
	}
	r.Addrs, r.guards = append(r.Addrs, addr), append(r.guards, g)
	return true
}

func listens(addr string) bool {
	t, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer t.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	u.Close()
	return true
}

// firstEphemeral is the first port that the kernel gives to whoever asks for any.
func firstEphemeral() int {
	b, err := os.ReadFile(ephemeralFile)
	if err != nil {
		return ephemeral
	}
	var first int
	if _, err := fmt.Sscan(string(b), &first); err != nil || first < 2*lowest {
		return ephemeral // a range that leaves no room below: then nothing is better than its usual place
	}
	return first
}
