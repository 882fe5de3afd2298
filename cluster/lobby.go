package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
)

const (
	// maxHandshakes bounds connections that have not proved anything yet. Hosts of members have so many places, and strangers have so many.
	maxHandshakes = 128
	// maxHandshakesPerHost keeps one host from taking all of these with connections that stay silent.
	maxHandshakesPerHost = 32
	// maxGreetings bounds the goroutines for them: a connection that has lost its place needs a moment to end.
	maxGreetings = 4 * maxHandshakes
)

var errPortFull = errors.New("cluster: too many connections")

// enter gives a connection a place among those that have proved nothing. Where there is none it takes another one's, which the caller must
// close: whoever is refused at the door while silent ones sit inside is as likely a member as they are not.
func (p *port) enter(c *trackedConn) (evicted *trackedConn, err error) {
	known := p.known.has(c.host)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return nil, net.ErrClosed
	}
	waiting := p.matching(func(o *trackedConn) bool { return o.proto == "" && o.known == known })
	evicted, why := surplus(waiting, c.host)
	if evicted != nil {
		evicted.evicted = why
		delete(p.conns, evicted)
	}
	if len(p.conns) >= maxPortConns {
		return evicted, fmt.Errorf("%w: %d", errPortFull, maxPortConns)
	}
	p.count++
	c.number, c.known = p.count, known
	p.conns[c] = struct{}{}
	return evicted, nil
}

// surplus is whose place a new connection of a host takes, and why; nil if there is a free one. It is the oldest of the host with the most, the
// new one included: a handshake takes milliseconds, so the oldest is the least likely to be an honest one, and who has few
// addresses evicts itself.
func surplus(waiting []*trackedConn, host string) (*trackedConn, error) {
	of := map[string]int{}
	for _, c := range waiting {
		of[c.host]++
	}
	switch {
	case of[host] >= maxHandshakesPerHost:
		mine := slices.DeleteFunc(waiting, func(c *trackedConn) bool { return c.host != host })
		return slices.MinFunc(mine, byArrival), fmt.Errorf("%w: %d of one host without a handshake", errPortFull, maxHandshakesPerHost)
	case len(waiting) >= maxHandshakes:
		of[host]++
		return slices.MinFunc(waiting, func(a, b *trackedConn) int {
			return cmp.Or(cmp.Compare(of[b.host], of[a.host]), byArrival(a, b))
		}), fmt.Errorf("%w: %d without a handshake", errPortFull, maxHandshakes)
	}
	return nil, nil
}

func byArrival(a, b *trackedConn) int { return cmp.Compare(a.number, b.number) }
