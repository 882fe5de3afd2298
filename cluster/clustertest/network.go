package clustertest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Network connects hosts in memory. A cut link loses nothing: like TCP, it delivers late, when the link is healed; until then
// nothing arrives, not even the end of a connection, and no new connection comes about.
type Network struct {
	mu        sync.Mutex
	listeners map[string][]*listener // by address: one that is reached, and those of hosts that are unplugged
	cut       map[link]bool
	delay     map[link]time.Duration
	base      time.Duration
	conns     map[*conn]struct{}
	changed   chan struct{} // closed at every change of links or listeners
	lastPort  int
}

// link is one direction between two hosts.
type link struct{ from, to string }

// NewNetwork returns a network without delays.
func NewNetwork() *Network {
	return &Network{
		listeners: make(map[string][]*listener), cut: make(map[link]bool), delay: make(map[link]time.Duration),
		conns: make(map[*conn]struct{}), changed: make(chan struct{}), lastPort: 10000,
	}
}

// Host returns the network as a machine of that name sees it, with its cable plugged in.
func (n *Network) Host(name string) *Host { return &Host{net: n, name: name} }

// Cut stops everything from one host to another; the other direction goes on.
func (n *Network) Cut(from, to string) {
	n.change(func() { n.cut[link{from, to}] = true })
}

// Isolate cuts a host off from the others, both ways.
func (n *Network) Isolate(name string, others ...string) {
	n.change(func() {
		for _, o := range others {
			n.cut[link{name, o}], n.cut[link{o, name}] = true, true
		}
	})
}

// Partition lets hosts talk within their group only.
func (n *Network) Partition(groups ...[]string) {
	n.change(func() {
		for i, a := range groups {
			for j, b := range groups {
				if i != j {
					n.cutAll(a, b)
				}
			}
		}
	})
}

func (n *Network) cutAll(from, to []string) {
	for _, a := range from {
		for _, b := range to {
			n.cut[link{a, b}] = true
		}
	}
}

// Heal restores every link.
func (n *Network) Heal() { n.change(func() { clear(n.cut) }) }

// SetLatency delays everything between different hosts, each way.
func (n *Network) SetLatency(d time.Duration) { n.change(func() { n.base = d }) }

// Delay delays one direction by d more. What was sent before is not affected.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.change(func() { n.delay[link{from, to}] = d })
}

// Crash resets every connection of the host that is plugged in and lets nobody reach its listeners any more, as when its process is killed. The
// process itself notices nothing of its listeners: it is for the test to end it.
func (n *Network) Crash(name string) {
	n.change(func() {
		for addr, all := range n.listeners {
			n.listeners[addr] = slices.DeleteFunc(all, func(l *listener) bool { return l.host.name == name && !l.host.unplugged })
		}
	})
	n.resetAll(func(c *conn) bool { return c.out.link.from == name || c.out.link.to == name })
}

// Reset breaks every connection between two hosts. New ones come about.
func (n *Network) Reset(a, b string) {
	n.resetAll(func(c *conn) bool { return c.out.link == link{a, b} || c.out.link == link{b, a} })
}

func (n *Network) resetAll(which func(*conn) bool) {
	n.mu.Lock()
	var victims []*conn
	for c := range n.conns {
		if which(c) {
			victims = append(victims, c)
		}
	}
	n.mu.Unlock()
	for _, c := range victims {
		c.reset()
	}
}

// change runs f under the lock and wakes everybody.
func (n *Network) change(f func()) {
	n.mu.Lock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
	conns := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.in.wake()
	}
}

func (n *Network) open(l link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[l]
}

func (n *Network) latency(l link) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.from == l.to {
		return 0
	}
	return n.base + n.delay[l]
}

func (n *Network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// Host is a machine on a network, a cluster.Network. More than one may have a name: copies of a machine, of which one is plugged in at a time.
type Host struct {
	net       *Network
	name      string
	unplugged bool // guarded by the network's mu
}

// Unplug takes a machine off the network, and nobody else of its name: its connections are reset, nobody reaches its listeners, and its dials
// wait. The machine itself goes on, and another of its name may listen at its addresses.
func (h *Host) Unplug() {
	h.net.change(func() { h.unplugged = true })
	h.net.resetAll(func(c *conn) bool { return c.at == h })
}

// Plug puts a machine back on the network.
func (h *Host) Plug() { h.net.change(func() { h.unplugged = false }) }

// Listen implements cluster.Network. An address that ends in ":0" or is only a port gets the host's name and a free port.
func (h *Host) Listen(addr string) (net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasSuffix(addr, ":0") {
		n.lastPort++
		addr = fmt.Sprintf("%s:%d", h.name, n.lastPort)
	}
	if n.reached(addr) != nil && !h.unplugged {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: memAddr(addr), Err: errInUse}
	}
	l := &listener{net: n, host: h, addr: addr, queue: make(chan net.Conn, 64), done: make(chan struct{})}
	n.listeners[addr] = append(n.listeners[addr], l)
	close(n.changed)
	n.changed = make(chan struct{})
	return l, nil
}

// Dial implements cluster.Network. Where nobody listens it is refused at once; where a link is cut it waits.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for {
		l, plugged, changed := h.look(addr)
		if plugged && l == nil {
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(addr), Err: errRefused}
		}
		if plugged && h.net.open(link{h.name, l.host.name}) && h.net.open(link{l.host.name, h.name}) {
			return h.connect(l)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Host) look(addr string) (l *listener, plugged bool, changed <-chan struct{}) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.net.reached(addr), !h.unplugged, h.net.changed
}

// reached is the listener at an address, of a host that is plugged in.
func (n *Network) reached(addr string) *listener {
	for _, l := range n.listeners[addr] {
		if !l.host.unplugged {
			return l
		}
	}
	return nil
}

func (h *Host) connect(l *listener) (net.Conn, error) {
	near, far := pipe(h, l.host, l.addr)
	select {
	case <-l.done:
	case l.queue <- far:
		return near, nil
	default: // the backlog is full
	}
	near.Close()
	far.Close()
	return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(l.addr), Err: errRefused}
}

type listener struct {
	net   *Network
	host  *Host
	addr  string
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	l.net.listeners[l.addr] = slices.DeleteFunc(l.net.listeners[l.addr], func(other *listener) bool { return other == l })
	l.net.mu.Unlock()
	l.end()
	return nil
}

// end resets the connections that nobody has accepted.
func (l *listener) end() {
	l.once.Do(func() { close(l.done) })
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return
		}
	}
}

func (l *listener) Addr() net.Addr { return memAddr(l.addr) }

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }
