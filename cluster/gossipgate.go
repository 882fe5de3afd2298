package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

const (
	// maxGossipStreams bounds the TCP connections that are being read or answered; with maxGossipStream it bounds their memory to
	// 16 MiB. A node opens one now and then.
	maxGossipStreams = 64
	// maxGossipStreamsPerHost keeps one stranger from taking all.
	maxGossipStreamsPerHost = 16
)

var errGossipFull = errors.New("too many gossip connections")

// gossipGate is memberlist's transport: UDP and TCP as always, but what comes in is opened, looked at and counted first.
type gossipGate struct {
	*memberlist.NetTransport
	seal     *gossipSeal
	refusals *refusal.Log
	packets  chan *memberlist.Packet
	streams  chan net.Conn

	done    chan struct{}
	once    sync.Once
	running sync.WaitGroup

	mu     sync.Mutex
	open   map[*gossipConn]struct{}
	closed bool
}

var _ memberlist.NodeAwareTransport = (*gossipGate)(nil)

// openGossip listens on the address of c, and becomes its transport.
func openGossip(c *memberlist.Config, refusals *refusal.Log, logger *log.Logger) (*gossipGate, error) {
	seal, err := newGossipSeal(c.SecretKey, c.Label)
	if err != nil {
		return nil, err
	}
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: logger})
	if err != nil {
		return nil, err
	}
	g := &gossipGate{
		NetTransport: inner, seal: seal, refusals: refusals, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		done: make(chan struct{}), open: make(map[*gossipConn]struct{}),
	}
	if c.BindPort == 0 {
		c.BindPort = inner.GetAutoBindPort()
		c.AdvertisePort = c.BindPort
	}
	g.running.Go(g.listenPackets)
	g.running.Go(g.listenStreams)
	c.Transport = g
	return g, nil
}

// PacketCh implements memberlist.Transport.
func (g *gossipGate) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gossipGate) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown implements memberlist.Transport: it ends every connection and waits for whoever read from them. The listeners of the
// inner transport hand over what they hold until they end.
func (g *gossipGate) Shutdown() error {
	g.once.Do(func() {
		close(g.done)
		g.mu.Lock()
		g.closed = true
		open := g.open
		g.open = nil
		g.mu.Unlock()
		for c := range open {
			c.Conn.Close()
		}
	})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = g.NetTransport.Shutdown() // it has no failures
	}()
	for {
		select {
		case <-g.NetTransport.PacketCh():
		case c := <-g.NetTransport.StreamCh():
			c.Close()
		case <-stopped:
			g.running.Wait()
			return nil
		}
	}
}

func (g *gossipGate) listenPackets() {
	for {
		select {
		case p := <-g.NetTransport.PacketCh():
			if err := g.seal.packet(p.Buf); err != nil {
				g.refuse(p.From, "udp", err)
				continue
			}
			p.Buf = bytes.Clone(p.Buf) // memberlist keeps it in a queue, and below it are 64 KiB
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case <-g.done:
			return
		}
	}
}

func (g *gossipGate) listenStreams() {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		select {
		case raw := <-g.NetTransport.StreamCh():
			c, err := g.admit(raw)
			if err != nil {
				g.refuse(raw.RemoteAddr(), "tcp", err)
				raw.Close()
				continue
			}
			readers.Go(func() { g.greet(c) })
		case <-g.done:
			return
		}
	}
}

func (g *gossipGate) refuse(from net.Addr, purpose string, err error) {
	select {
	case <-g.done: // this node's own end
	default:
		g.refusals.Refused(from, purpose, err)
	}
}

// admit gives a connection a place, which it has until it closes.
func (g *gossipGate) admit(raw net.Conn) (*gossipConn, error) {
	c := &gossipConn{Conn: raw, gate: g, host: hostOf(raw.RemoteAddr())}
	g.mu.Lock()
	defer g.mu.Unlock()
	same := 0
	for o := range g.open {
		if o.host == c.host {
			same++
		}
	}
	switch {
	case g.closed:
		return nil, net.ErrClosed
	case len(g.open) >= maxGossipStreams:
		return nil, fmt.Errorf("%w: %d", errGossipFull, maxGossipStreams)
	case same >= maxGossipStreamsPerHost:
		return nil, fmt.Errorf("%w: %d of one host", errGossipFull, maxGossipStreamsPerHost)
	}
	g.open[c] = struct{}{}
	return c, nil
}

// greet reads the one message of a connection and hands it on, or logs once why not.
func (g *gossipGate) greet(c *gossipConn) {
	message, err := g.read(c)
	if err != nil {
		g.refuse(c.RemoteAddr(), "tcp", err)
		c.Close()
		return
	}
	c.message = bytes.NewReader(message)
	select {
	case g.streams <- c:
	case <-g.done:
		c.Close()
	}
}

// read returns the whole message: label, type, length of 32 bits, sealed text.
func (g *gossipGate) read(c *gossipConn) ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(gossipTimeout)); err != nil {
		return nil, err
	}
	var message bytes.Buffer
	more := func(n int) error {
		if _, err := io.CopyN(&message, c.Conn, int64(n)); err != nil {
			return cutShort(err)
		}
		return nil
	}
	if err := more(2); err != nil {
		return nil, err
	}
	if message.Bytes()[0] != gossipLabel {
		return nil, fmt.Errorf("%w: it has no cluster's label", errGossip)
	}
	if err := more(int(message.Bytes()[1])); err != nil {
		return nil, err
	}
	labelled := message.Len()
	if _, err := g.seal.unlabel(message.Bytes()); err != nil {
		return nil, err
	}
	if err := more(1); err != nil {
		return nil, err
	}
	if kind := message.Bytes()[labelled]; kind != gossipEncrypted {
		return nil, fmt.Errorf("%w: not encrypted", errGossip)
	}
	if err := more(4); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(message.Bytes()[labelled+1:])
	if size > maxGossipStream {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errGossip, size, maxGossipStream)
	}
	if err := more(int(size)); err != nil {
		return nil, err
	}
	header, sealed := message.Bytes()[labelled:labelled+5], message.Bytes()[labelled+5:]
	plain, err := g.seal.open(sealed, append(bytes.Clone(header), g.seal.label...))
	if err != nil {
		return nil, err
	}
	return message.Bytes(), g.seal.stream(plain)
}

func cutShort(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: not complete within %s", errGossip, gossipTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: truncated: the peer hung up", errGossip)
	}
	return err
}

// gossipConn is an inbound connection. It gives its message again, and then ends: nobody says two things.
type gossipConn struct {
	net.Conn
	gate    *gossipGate
	host    string
	message *bytes.Reader
}

// Read implements net.Conn.
func (c *gossipConn) Read(b []byte) (int, error) { return c.message.Read(b) }

// Close implements net.Conn.
func (c *gossipConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.open, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
