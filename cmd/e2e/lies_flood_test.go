package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// floodOf lies of each kind at each port; floodSilent connections that say nothing, or half of something, stay open meanwhile.
	floodOf     = 700
	floodSilent = 300
	// floodLog is how much the log may grow by: 100 lines at once for each port, and one a second.
	floodLog = 256 << 10
)

// flood sends thousands of lies at one node at once, while others cling to it. The log holds a count of what it does not tell.
func (c *devCluster) flood(t *testing.T, l *lies, n *member) {
	t.Helper()
	before := refusals(t, n)
	base, peak := memoryOf(t, n), 0
	ports := c.ports(t, n)
	var silent []net.Conn
	for port, words := range map[string]string{"api": "", "cluster": "\x16\x03\x01\x02", "gossip": l.clinging()} {
		for range floodSilent {
			conn, err := net.DialTimeout("tcp", ports[port], 5*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", port, err)
			}
			_, _ = conn.Write([]byte(words)) // refused where there are too many
			silent = append(silent, conn)
		}
		peak = max(peak, memoryOf(t, n))
	}
	fired := 3 * floodSilent
	for _, lie := range []lie{
		{port: "api", words: []byte("GET / HTTP/1.1\r\n\r\n")}, {port: "cluster", words: []byte("GET / HTTP/1.1\r\n\r\n")},
		{port: "gossip", words: []byte(l.clinging()[:100])}, {port: "gossip", network: "udp", words: []byte(l.clinging()[:50000])},
	} {
		lie.addr, lie.hangUp = ports[lie.port], true
		var liars sync.WaitGroup
		for range 20 {
			liars.Go(func() {
				for range floodOf / 20 {
					lie.fire(t)
				}
			})
		}
		liars.Wait()
		fired += floodOf
		peak = max(peak, memoryOf(t, n))
	}
	for _, conn := range silent {
		conn.Close()
	}
	t.Logf("%s grew by %d MiB during the flood", n.id, peak-base)
	if peak-base > lieGrowth {
		t.Errorf("%s grew by %d MiB during the flood", n.id, peak-base)
	}
	// Packets may be lost before the node sees them; connections may not.
	eventually(t, 25*time.Second, "every connection is told of or counted", func() error {
		now := refusals(t, n)
		if told := len(now.lines) - len(before.lines) + now.counts - before.counts; told < fired-floodOf || told > fired {
			return fmt.Errorf("%d of %d", told, fired)
		}
		return nil
	})
	now := refusals(t, n)
	t.Logf("%d lies made %d lines, %d were counted, %d KiB of log", fired, len(now.lines)-len(before.lines), now.counts-before.counts, (now.size-before.size)>>10)
	if grown := now.size - before.size; grown > floodLog {
		t.Errorf("the log grew by %d KiB", grown>>10)
	}
}

// clinging is a message of gossip that never ends: it declares what is just allowed and sends nearly all.
func (l *lies) clinging() string {
	noise := make([]byte, 250<<10)
	_, _ = rand.Read(noise) // never fails
	var b strings.Builder
	b.WriteString("\xf4" + string(rune(len(l.cluster))) + l.cluster + "\x0a\x00\x04\x00\x00\x01")
	b.Write(noise)
	return b.String()
}
