package clustertest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset by peer")
	errInUse   = errors.New("address already in use")
	errFull    = errors.New("too much is under way")
)

// maxUnderWay bounds what one direction holds. A write never blocks, because a writer that blocks under a mutex would keep the
// clock of a bubble from moving.
const maxUnderWay = 64 << 20

// half is one direction of a connection.
type half struct {
	net  *Network
	link link

	mu       sync.Mutex
	segments []segment
	held     int // bytes in segments
	fin      bool
	finAt    time.Time
	broken   bool // the reader's side was reset
	closed   bool // the reader has closed
	deadline time.Time
	changed  chan struct{}
}

type segment struct {
	at   time.Time
	data []byte
}

func newHalf(n *Network, l link) *half {
	return &half{net: n, link: l, changed: make(chan struct{})}
}

func (h *half) update(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) wake() { h.update(func() {}) }

func (h *half) read(b []byte) (int, error) {
	for {
		n, again, changed, err := h.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		await(changed, again)
	}
}

// await waits for a change, or for a moment unless it is zero.
func await(changed <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

// take reads what has arrived, or says when to look again.
func (h *half) take(b []byte) (n int, again time.Time, changed <-chan struct{}, err error) {
	open := h.net.open(h.link)
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.closed:
		return 0, again, nil, net.ErrClosed
	case !h.deadline.IsZero() && !now.Before(h.deadline):
		return 0, again, nil, os.ErrDeadlineExceeded
	case open && h.broken:
		return 0, again, nil, errReset
	case open && len(h.segments) > 0 && !now.Before(h.segments[0].at):
		return h.pop(b), again, nil, nil
	case open && len(h.segments) == 0 && h.fin && !now.Before(h.finAt):
		return 0, again, nil, io.EOF
	}
	again = h.deadline
	if open && len(h.segments) > 0 {
		again = earlier(again, h.segments[0].at)
	} else if open && h.fin {
		again = earlier(again, h.finAt)
	}
	return 0, again, h.changed, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func (h *half) pop(b []byte) int {
	s := &h.segments[0]
	n := copy(b, s.data)
	s.data = s.data[n:]
	h.held -= n
	if len(s.data) == 0 {
		h.segments = h.segments[1:]
	}
	return n
}

func (h *half) write(b []byte) (err error) {
	at := time.Now().Add(h.net.latency(h.link))
	open := h.net.open(h.link)
	h.update(func() {
		switch {
		case h.fin:
			err = net.ErrClosed
		case open && (h.closed || h.broken):
			err = errReset
		case h.held+len(b) > maxUnderWay:
			err = errFull
		default:
			h.segments = append(h.segments, segment{at, append([]byte{}, b...)})
			h.held += len(b)
		}
	})
	return err
}

// conn is one end of a connection.
type conn struct {
	net           *Network
	at            *Host
	in, out       *half
	local, remote memAddr
}

// pipe makes a connection from one host to a listener's address.
func pipe(from, to *Host, addr string) (near, far *conn) {
	n := from.net
	there, back := newHalf(n, link{from.name, to.name}), newHalf(n, link{to.name, from.name})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastPort++
	source := memAddr(fmt.Sprintf("%s:%d", from.name, n.lastPort))
	near = &conn{net: n, at: from, in: back, out: there, local: source, remote: memAddr(addr)}
	far = &conn{net: n, at: to, in: there, out: back, local: memAddr(addr), remote: source}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

func (c *conn) Read(b []byte) (int, error) { return c.in.read(b) }

func (c *conn) Write(b []byte) (int, error) {
	if err := c.out.write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *conn) Close() error {
	at := time.Now().Add(c.net.latency(c.out.link))
	c.in.update(func() { c.in.closed = true })
	c.out.update(func() { c.out.fin, c.out.finAt = true, at })
	c.net.forget(c)
	return nil
}

// reset makes the other end see a reset, and this end a closed connection.
func (c *conn) reset() {
	c.in.update(func() { c.in.broken = true })
	c.out.update(func() { c.out.broken = true })
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.deadline = t })
	return nil
}

// SetWriteDeadline does nothing: a write never waits.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
