package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

var errPortFull = errors.New("too many connections")

// port is the listener of the API. It refuses connections that are too many before gRPC spends anything on them.
type port struct {
	net.Listener
	refusals *refusal.Log

	mu       sync.Mutex
	all      int
	unproved int
	perHost  map[netip.Prefix]int // of the unproved
}

func newPort(l net.Listener, refusals *refusal.Log) *port {
	return &port{Listener: l, refusals: refusals, perHost: make(map[netip.Prefix]int)}
}

// Accept implements net.Listener.
func (p *port) Accept() (net.Conn, error) {
	for {
		raw, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, err := p.admit(raw)
		if err == nil {
			return c, nil
		}
		p.refusals.Refused(raw.RemoteAddr(), "handshake", err)
		_ = raw.Close() // refused
	}
}

func (p *port) admit(raw net.Conn) (*apiConn, error) {
	c := &apiConn{Conn: raw, port: p, host: refusal.Source(raw.RemoteAddr())}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.all >= maxConns:
		return nil, fmt.Errorf("%w: %d", errPortFull, maxConns)
	case p.unproved >= maxUnproved:
		return nil, fmt.Errorf("%w: %d without a handshake", errPortFull, maxUnproved)
	case p.perHost[c.host] >= maxUnprovedPerHost:
		return nil, fmt.Errorf("%w: %d of one host without a handshake", errPortFull, maxUnprovedPerHost)
	}
	p.all++
	p.unproved++
	p.perHost[c.host]++
	return c, nil
}

// apiConn has a place at the port until it closes, and one among the strangers until it is proved.
type apiConn struct {
	net.Conn
	port           *port
	host           netip.Prefix
	proved, closed bool // under port.mu
}

// prove ends the connection's time as a stranger.
func (c *apiConn) prove() {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	c.settle()
}

// settle is prove with the lock held.
func (c *apiConn) settle() {
	if c.proved {
		return
	}
	c.proved = true
	c.port.unproved--
	if c.port.perHost[c.host]--; c.port.perHost[c.host] == 0 {
		delete(c.port.perHost, c.host)
	}
}

// Close implements net.Conn.
func (c *apiConn) Close() error {
	c.port.mu.Lock()
	c.settle()
	if !c.closed {
		c.closed = true
		c.port.all--
	}
	c.port.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends what this side says; TCP can.
func (c *apiConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
