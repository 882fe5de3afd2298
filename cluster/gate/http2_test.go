package gate_test

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/gate"
)

const (
	greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
)

func TestFraming(t *testing.T) {
	largest := "\x00\x40\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 1<<14)
	for name, c := range map[string]struct {
		bytes  string
		err    error
		within bool
	}{
		"nothing":           {"", nil, false},
		"half a preface":    {greeting[:5], nil, true},
		"a greeting":        {greeting + settings, nil, false},
		"the largest frame": {greeting + settings + largest, nil, false},
		"a larger frame":    {greeting + settings + "\x00\x40\x01\x00\x00\x00\x00\x00\x01", gate.ErrFrame, false},
		"half a header":     {greeting + settings[:8], nil, true},
		"half a frame":      {greeting + settings + largest[:100], nil, true},
		"another protocol":  {"GET / HTTP/1.1\r\n", gate.ErrPreface, false},
		"no settings":       {greeting + largest, gate.ErrFrame, false},
	} {
		var f gate.Framing
		err := f.Feed([]byte(c.bytes))
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || err == nil && f.Within() != c.within {
			t.Errorf("%s: %v, within %v", name, err, f.Within())
		}
	}
}

// FuzzFraming: no bytes break it, and how they are cut changes nothing.
func FuzzFraming(f *testing.F) {
	f.Add([]byte(greeting+settings+settings), byte(3))
	f.Add([]byte("GET /"), byte(1))
	f.Add([]byte(greeting+"\xff\xff\xff\x04"), byte(2))
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		var whole, parts gate.Framing
		want := whole.Feed(b)
		var got error
		for rest := b; len(rest) > 0 && got == nil; {
			n := min(len(rest), 1+int(step))
			got, rest = parts.Feed(rest[:n]), rest[n:]
		}
		if (want == nil) != (got == nil) || want == nil && whole.Within() != parts.Within() {
			t.Fatalf("whole: %v, in parts: %v", want, got)
		}
	})
}

// TestConnTellsOnce, of the first thing that is wrong.
func TestConnTellsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		say  string
		want error
	}{
		"noise":     {rand.Text() + rand.Text(), gate.ErrPreface},
		"half":      {greeting[:9], gate.ErrTruncated},
		"nothing":   {"", nil},
		"a message": {greeting + settings, nil},
	} {
		near, far := net.Pipe()
		var told []error
		conn := gate.NewConn(near, func(err error) { told = append(told, err) })
		go func() {
			_, _ = io.WriteString(far, c.say) // the other end may have had enough
			far.Close()
		}()
		for range 3 {
			_, _ = io.Copy(io.Discard, conn)
		}
		near.Close()
		if c.want == nil && len(told) != 0 || c.want != nil && (len(told) != 1 || !errors.Is(told[0], c.want)) {
			t.Errorf("%s: %v", name, told)
		}
	}
}

// TestSilenceIsTold where there was a deadline.
func TestSilenceIsTold(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	var told []error
	conn := gate.NewConn(near, func(err error) { told = append(told, err) })
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if len(told) != 1 || !errors.Is(told[0], gate.ErrSlow) {
		t.Errorf("%v", told)
	}
}
