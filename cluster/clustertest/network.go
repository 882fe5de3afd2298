package clustertest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// Network connects hosts in memory. A cut link loses nothing: like TCP, it delivers late, when the link is healed; until then
// nothing arrives, not even the end of a connection, and no new connection comes about.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
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
		listeners: make(map[string]*listener), cut: make(map[link]bool), delay: make(map[link]time.Duration),
		conns: make(map[*conn]struct{}), changed: make(chan struct{}), lastPort: 10000,
	}
}

// Host returns the network as a host of that name sees it.
func (n *Network) Host(name string) cluster.Network { return &host{n, name} }

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

// Crash resets every connection of a host and lets nobody reach its listeners any more, as when its process is killed. The
// process itself notices nothing of its listeners: it is for the test to end it.
func (n *Network) Crash(name string) {
	var victims []*conn
	n.change(func() {
		for addr, l := range n.listeners {
			if l.host == name {
				delete(n.listeners, addr)
			}
		}
		for c := range n.conns {
			if c.out.link.from == name || c.out.link.to == name {
				victims = append(victims, c)
			}
		}
	})
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

type host struct {
	net  *Network
	name string
}

// Listen implements cluster.Network. An address that ends in ":0" or is only a port gets the host's name and a free port.
func (h *host) Listen(addr string) (net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasSuffix(addr, ":0") {
		n.lastPort++
		addr = fmt.Sprintf("%s:%d", h.name, n.lastPort)
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: memAddr(addr), Err: errInUse}
	}
	l := &listener{net: n, host: h.name, addr: addr, queue: make(chan net.Conn, 64), done: make(chan struct{})}
	n.listeners[addr] = l
	close(n.changed)
	n.changed = make(chan struct{})
	return l, nil
}

// Dial implements cluster.Network. Where nobody listens it is refused at once; where a link is cut it waits.
func (h *host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for {
		l, changed := h.look(addr)
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(addr), Err: errRefused}
		}
		if h.net.open(link{h.name, l.host}) && h.net.open(link{l.host, h.name}) {
			return h.connect(l)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *host) look(addr string) (*listener, <-chan struct{}) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.net.listeners[addr], h.net.changed
}

func (h *host) connect(l *listener) (net.Conn, error) {
	near, far := pipe(h.net, h.name, l.host, l.addr)
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
	host  string
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
	if l.net.listeners[l.addr] == l {
		delete(l.net.listeners, l.addr)
	}
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
