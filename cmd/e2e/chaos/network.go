package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// network is every way from one node to another, each through a TCP proxy of its own. What is sent from a to b travels on the
// connections that a opened to b and on those that b opened to a, so cutting one direction stops one half of both.
type network struct {
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex
	gates map[route]*gate
	links map[route]*link
}

// route is a direction, from one node to another.
type route struct{ from, to string }

func (r route) back() route { return route{r.to, r.from} }

func newNetwork(ctx context.Context) *network {
	ctx, stop := context.WithCancel(ctx)
	return &network{ctx: ctx, stop: stop, gates: map[route]*gate{}, links: map[route]*link{}}
}

// gate holds back what travels in one direction, or slows it down. What it holds back is not lost, as TCP loses nothing: it
// arrives when the gate opens, however old it is then.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{} // closed when the gate opens; nil: it is open
	delay time.Duration
}

func (g *gate) set(open bool, delay time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = delay
	switch {
	case open && g.shut != nil:
		close(g.shut)
		g.shut = nil
	case !open && g.shut == nil:
		g.shut = make(chan struct{})
	}
}

// pass returns when what arrived at the given time may go on; false if ctx ended first.
func (g *gate) pass(ctx context.Context, arrived time.Time) bool {
	for {
		g.mu.Lock()
		shut, left := g.shut, time.Until(arrived.Add(g.delay))
		g.mu.Unlock()
		if shut == nil && left <= 0 {
			return ctx.Err() == nil
		}
		var wait <-chan time.Time
		if shut == nil {
			wait = time.After(left)
		}
		select {
		case <-shut:
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

// link is the proxy through which one node opens connections to another.
type link struct {
	net      *network
	route    route
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// connect opens a proxy and returns its address.
func (n *network) connect(r route, target string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l := &link{net: n, route: r, listener: listener, target: target, conns: map[net.Conn]bool{}}
	n.mu.Lock()
	n.links[r] = l
	n.mu.Unlock()
	n.work.Go(l.accept)
	return listener.Addr().String(), nil
}

func (n *network) gate(r route) *gate {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gates[r] == nil {
		n.gates[r] = &gate{}
	}
	return n.gates[r]
}

// cut lets nothing through in one direction, until heal.
func (n *network) cut(r route) { n.gate(r).set(false, 0) }

// slow delays everything in one direction, until heal.
func (n *network) slow(r route, delay time.Duration) { n.gate(r).set(true, delay) }

// heal opens everything.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.gates {
		g.set(true, 0)
	}
}

// reset breaks the connections that one node has opened to another.
func (n *network) reset(r route) {
	n.mu.Lock()
	l := n.links[r]
	n.mu.Unlock()
	if l != nil {
		l.drop()
	}
}

// close ends every proxy and waits for it.
func (n *network) close() {
	n.stop()
	n.mu.Lock()
	for _, l := range n.links {
		l.listener.Close()
		l.drop()
	}
	n.mu.Unlock()
	n.work.Wait()
}

func (l *link) accept() {
	for {
		conn, err := l.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue
		}
		l.keep(conn)
		l.net.work.Go(func() { l.serve(conn) })
	}
}

func (l *link) keep(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
}

func (l *link) forget(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.Close()
}

func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
}

// serve carries one connection. Opening one takes both directions.
func (l *link) serve(near net.Conn) {
	defer l.forget(near)
	ctx, there, back := l.net.ctx, l.net.gate(l.route), l.net.gate(l.route.back())
	now := time.Now()
	if !there.pass(ctx, now) || !back.pass(ctx, now) {
		return
	}
	far, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", l.target)
	if err != nil {
		return
	}
	l.keep(far)
	defer l.forget(far)
	var other sync.WaitGroup
	other.Go(func() { carry(ctx, back, far, near) })
	carry(ctx, there, near, far)
	other.Wait()
}

// carry copies from one end to the other until either is gone. The end of a connection has to pass the gate, too.
func carry(ctx context.Context, g *gate, from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !g.pass(ctx, time.Now()) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}
