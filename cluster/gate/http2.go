package gate

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// preface is what an HTTP/2 client says first (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	// maxFrame is the largest payload of a frame. It is HTTP/2's own default (RFC 9113 §6.5.2), which gRPC's server never raises.
	maxFrame    = 16 << 10
	frameHeader = 9 // bytes: a length of 24 bits, type, flags, stream
	settings    = 4 // the type of the frame that must come first
)

// Errors of what is not HTTP/2 as gRPC speaks it.
var (
	// ErrPreface: the connection does not begin as HTTP/2 does.
	ErrPreface = errors.New("not HTTP/2: the connection preface is wrong")
	// ErrFrame: a frame is longer than allowed, or the first one is not SETTINGS.
	ErrFrame = errors.New("bad HTTP/2 frame")
	// ErrTruncated: the connection ended in the middle of the preface or of a frame.
	ErrTruncated = errors.New("the message was truncated")
	// ErrSlow: the preface did not come in time.
	ErrSlow = errors.New("nothing was said in time")
)

// Framing follows the frames of one direction of an HTTP/2 connection. The zero value is at its beginning.
type Framing struct {
	greeted int               // bytes of the preface so far
	header  [frameHeader]byte // of the frame that is coming
	have    int               // bytes of it so far
	payload int               // bytes of the frame's payload that are still to come
	frames  bool              // one has come
}

// Feed takes the next bytes. The error is ErrPreface or ErrFrame; after it nothing more may be fed.
func (f *Framing) Feed(b []byte) error {
	for len(b) > 0 && f.greeted < len(preface) {
		n := min(len(b), len(preface)-f.greeted)
		if string(b[:n]) != preface[f.greeted:f.greeted+n] {
			return ErrPreface
		}
		f.greeted, b = f.greeted+n, b[n:]
	}
	for len(b) > 0 {
		if f.payload > 0 {
			n := min(len(b), f.payload)
			f.payload, b = f.payload-n, b[n:]
			continue
		}
		n := copy(f.header[f.have:], b)
		f.have, b = f.have+n, b[n:]
		if f.have == frameHeader {
			if err := f.begin(); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin reads a whole header.
func (f *Framing) begin() error {
	size, kind := int(binary.BigEndian.Uint32(f.header[:4])>>8), f.header[3]
	if size > maxFrame {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, size, maxFrame)
	}
	if !f.frames && kind != settings {
		return fmt.Errorf("%w: type %d came first, SETTINGS must", ErrFrame, kind)
	}
	f.frames, f.have, f.payload = true, 0, size
	return nil
}

// Within reports whether the connection may not end here.
func (f *Framing) Within() bool {
	return f.greeted > 0 && f.greeted < len(preface) || f.have > 0 || f.payload > 0
}

// Conn is a server's end of a connection whose incoming frames are followed.
type Conn struct {
	net.Conn
	framing Framing
	refused func(error)
	failed  error
}

// NewConn follows what is read from c. refused is called at most once, with the first thing that is wrong.
func NewConn(c net.Conn, refused func(error)) *Conn { return &Conn{Conn: c, refused: refused} }

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	n, err := c.Conn.Read(b)
	if bad := c.framing.Feed(b[:n]); bad != nil {
		return 0, c.fail(bad)
	}
	switch {
	case err == nil:
	case errors.Is(err, net.ErrClosed): // by this side
	case c.framing.Within(), errors.Is(err, io.ErrUnexpectedEOF): // the latter: in the middle of a TLS record
		c.failed = err
		c.refused(fmt.Errorf("%w: %w", ErrTruncated, ended(err)))
	case broken(err):
		_ = c.fail(err)
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.framing.frames:
		_ = c.fail(ErrSlow)
	}
	return n, err
}

func (c *Conn) fail(err error) error {
	c.failed = err
	c.refused(err)
	return err
}

// broken reports that this side's TLS refused a record.
func broken(err error) bool {
	var op *net.OpError
	var header tls.RecordHeaderError
	return errors.As(err, &op) && op.Op == "local error" || errors.As(err, &header)
}

// ended says EOF in words.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the peer hung up")
	}
	return err
}
