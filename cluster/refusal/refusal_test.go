package refusal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

// lines is a log that is read line by line.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) of(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		if fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

func from(host string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(host), Port: 4711} }

var errLie = errors.New("a lie")

func inBubble(t *testing.T, f func(t *testing.T, l *refusal.Log, out *lines)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		out := &lines{}
		l := refusal.New(slog.New(slog.NewJSONHandler(out, nil)), "cluster")
		defer l.Close()
		f(t, l, out)
	})
}

func TestEachRefusalIsOneLine(t *testing.T) {
	inBubble(t, func(t *testing.T, l *refusal.Log, out *lines) {
		for range 3 {
			l.Refused(from("192.0.2.1"), "raft", errLie)
		}
		got := out.of(t, refusal.Message)
		if len(got) != 3 {
			t.Fatalf("%d lines", len(got))
		}
		for name, want := range map[string]string{"port": "cluster", "purpose": "raft", "remote": "192.0.2.1:4711", "err": "a lie", "level": "WARN"} {
			if got[0][name] != want {
				t.Errorf("%s is %v, want %s", name, got[0][name], want)
			}
		}
	})
}

// TestAFloodIsCounted: nothing is lost but its text.
func TestAFloodIsCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, l *refusal.Log, out *lines) {
		for range refusal.Burst + 123 {
			l.Refused(from("192.0.2.1"), "raft", errLie)
		}
		if n := len(out.of(t, refusal.Message)); n != refusal.Burst {
			t.Errorf("%d lines, want %d", n, refusal.Burst)
		}
		time.Sleep(refusal.Window + time.Second) // of the bubble's clock
		counts := out.of(t, refusal.CountMessage)
		if len(counts) != 1 || counts[0]["refused"] != float64(123) || counts[0]["remote"] != "192.0.2.1" || counts[0]["within"] != "10s" {
			t.Errorf("%v", counts)
		}
		time.Sleep(time.Hour) // lines have come back, and nothing more is said by itself
		l.Refused(from("192.0.2.1"), "raft", errLie)
		if n := len(out.of(t, refusal.Message)); n != refusal.Burst+1 {
			t.Errorf("%d lines after an hour", n)
		}
		if n := len(out.of(t, refusal.CountMessage)); n != 1 {
			t.Errorf("%d counts", n)
		}
	})
}

// TestOneSourceDoesNotSilenceAnother, and many together are bounded too.
func TestOneSourceDoesNotSilenceAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, l *refusal.Log, out *lines) {
		for range 2 * refusal.Burst {
			l.Refused(from("192.0.2.1"), "raft", errLie)
		}
		l.Refused(from("192.0.2.2"), "raft", errLie)
		if n := len(out.of(t, refusal.Message)); n != refusal.Burst+1 {
			t.Errorf("%d lines", n)
		}
		for i := range 5000 {
			l.Refused(from(fmt.Sprintf("10.0.%d.%d", i/250, i%250)), "raft", errLie)
		}
		written := len(out.of(t, refusal.Message))
		if written > 4*refusal.Burst {
			t.Errorf("%d lines of all sources", written)
		}
		l.Close()
		total := written
		for _, c := range out.of(t, refusal.CountMessage) {
			total += int(c["refused"].(float64))
		}
		if total != 2*refusal.Burst+1+5000 {
			t.Errorf("%d refusals are accounted for", total)
		}
	})
}

// TestSources: an IPv6 host cannot be many.
func TestSources(t *testing.T) {
	a, b := refusal.Source(from("2001:db8:0:1::1")), refusal.Source(from("2001:db8:0:1:ffff::2"))
	if a != b || a == refusal.Source(from("2001:db8:0:2::1")) {
		t.Errorf("%v, %v", a, b)
	}
	if refusal.Source(from("192.0.2.1")) == refusal.Source(from("192.0.2.2")) {
		t.Error("two addresses are one source")
	}
	if refusal.Source(from("::ffff:192.0.2.1")) != refusal.Source(from("192.0.2.1")) {
		t.Error("a mapped address is another source")
	}
	if refusal.Source(nil) != refusal.Source(&net.UnixAddr{Name: "x"}) {
		t.Error("addresses without an IP are told apart")
	}
}

func TestAReasonIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, l *refusal.Log, out *lines) {
		l.Refused(from("192.0.2.1"), strings.Repeat("p", 1<<16), errors.New(strings.Repeat("é", 1<<16)+"\npanic: not really"))
		got := out.of(t, refusal.Message)
		if len(got) != 1 || len(got[0]["err"].(string)) > 300 || len(got[0]["purpose"].(string)) > 300 {
			t.Errorf("%v", got)
		}
		l.Refused(nil, "", errLie)
		if got := out.of(t, refusal.Message); len(got) != 2 || got[1]["remote"] != "unknown" {
			t.Errorf("%v", got)
		}
	})
}
