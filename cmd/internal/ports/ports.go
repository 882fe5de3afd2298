// Package ports finds addresses on 127.0.0.1 for servers that another process starts later, and starts again.
//
// A port that was free a moment ago is taken by whoever asks the kernel for any port, and by every outgoing connection. So these come from
// outside the kernel's ephemeral range, which neither gets; and two that look for ports at once cannot find the same ones, because each holds a socket of
// the same number on another loopback address for as long as it needs the port. Where the range leaves no room, and for addresses that are kept
// though they lie in it, that socket still keeps outgoing connections away, and no more.
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
	// lowest port that is given: servers with a number of their own are mostly below. highest is the highest that there is.
	lowest, highest = 10000, 65535
	// leastRoom is how many ports are enough to choose from.
	leastRoom = 500
	// maxTries bounds the search for one port.
	maxTries = 200

	ephemeralFile = "/proc/sys/net/ipv4/ip_local_port_range"
)

// usualEphemeral is Linux's range if nobody has set another.
var usualEphemeral = span{32768, 60999}

// span is the ports from first to last.
type span struct{ first, last int }

func (s span) room() int { return s.last - s.first + 1 }

// Reservation is the addresses that were found, in order. Close gives them up.
type Reservation struct {
	Addrs  []string
	guards []net.Listener
}

// Reserve finds n addresses that are free for TCP and UDP.
func Reserve(n int) (*Reservation, error) { return Keep(make([]string, n)) }

// Keep reserves these addresses, in their places, and another for one that is taken or empty.
func Keep(addrs []string) (*Reservation, error) {
	r := &Reservation{Addrs: make([]string, len(addrs))}
	for i, addr := range addrs { // first those that somebody knows
		if addr != "" {
			_ = r.take(i, addr) // else another is found
		}
	}
	from, _ := choice(ephemeral())
	for i, addr := range r.Addrs {
		if addr != "" {
			continue
		}
		if err := r.search(i, from); err != nil {
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

func (r *Reservation) search(i int, from span) error {
	var err error
	for range maxTries {
		if err = r.take(i, net.JoinHostPort(loopback, strconv.Itoa(from.first+rand.IntN(from.room())))); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no port from %d to %d could be reserved on %s; the last one: %w", from.first, from.last, loopback, err)
}

// take reserves addr if nobody has reserved its port and nobody listens there.
func (r *Reservation) take(i int, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	g, err := net.Listen("tcp", net.JoinHostPort(guard, port))
	if err != nil {
		return err
	}
	if err := free(addr); err != nil {
		return errors.Join(err, g.Close())
	}
	r.Addrs[i], r.guards = addr, append(r.guards, g)
	return nil
}

// free reports an address at which somebody listens.
func free(addr string) error {
	t, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer t.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return u.Close()
}

// ephemeral is what the kernel gives to whoever asks for any port.
func ephemeral() span {
	b, err := os.ReadFile(ephemeralFile)
	if err != nil {
		return usualEphemeral
	}
	var s span
	if _, err := fmt.Sscan(string(b), &s.first, &s.last); err != nil {
		return usualEphemeral
	}
	return s
}

// choice is the ports below the ephemeral ones, or else those above; safe is false if there is room at neither end.
func choice(taken span) (from span, safe bool) {
	below, above := span{lowest, taken.first - 1}, span{max(lowest, taken.last+1), highest}
	switch {
	case below.room() >= leastRoom:
		return below, true
	case above.room() >= leastRoom:
		return above, true
	default:
		return span{lowest, usualEphemeral.first - 1}, false
	}
}
