package cluster_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
)

// strangers keep a port full of connections that say nothing, so many from each of so many addresses: one that ends is opened again at once. The function that it returns ends them.
func (w *world) strangers(addr string, hosts, each int) (end func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for i := range hosts * each {
		network := w.net.Host(fmt.Sprintf("stranger-%d", i%hosts))
		all.Go(func() { silent(ctx, network, addr) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// silent opens a connection, waits for its end, and opens the next.
func silent(ctx context.Context, network cluster.Network, addr string) {
	const moment = 20 * time.Millisecond // of virtual time: without any, that of the bubble would stand still
	for ctx.Err() == nil {
		if conn, err := network.Dial(ctx, addr); err == nil {
			unblock := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = conn.Read(make([]byte, 1)) // until the port hangs up
			unblock()
			conn.Close()
		}
		select {
		case <-time.After(moment):
		case <-ctx.Done():
		}
	}
}

// enters reports how long a node at an address finds no place at a port; at most limit.
func (w *world) enters(host, addr string, cert *tls.Certificate, limit time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	w.within(limit, host+" at "+addr, func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		raw, err := w.net.Host(host).Dial(ctx, addr)
		if err != nil {
			return false
		}
		conn := tls.Client(raw, &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"conclave-node/1"}, Certificates: []tls.Certificate{*cert},
		})
		defer conn.Close()
		if err := conn.HandshakeContext(ctx); err != nil {
			return false
		}
		// gRPC greets whoever has a place.
		if err := raw.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return false
		}
		_, err = conn.Read(make([]byte, 1))
		return err == nil
	})
	return time.Since(began)
}

// TestStrangersKeepNoMemberOut: with every place for strangers at the leader's taken and retaken, a node that comes back is back as soon as without them, and one
// whose address nobody has seen gets in too, as long as strangers have few addresses.
func TestStrangersKeepNoMemberOut(t *testing.T) {
	for name, c := range map[string]struct {
		hosts, each int
		unseen      bool // one whose address is a stranger's as far as the port knows
	}{
		"five addresses": {5, 40, true},
		"many addresses": {220, 1, false}, // all places change hands within the time of a handshake
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.form(3)
				w.net.SetLatency(50 * time.Millisecond) // a handshake takes three of these
				defer w.strangers("n1:1", c.hosts, c.each)()
				w.kill("n3")
				time.Sleep(300 * time.Millisecond) // of virtual time: all places are taken
				back := w.start("n3")
				w.within(5*time.Second, "n3 is back", func() bool { return back.Lease().Valid() })
				if c.unseen {
					w.enters("elsewhere", "n1:1", w.ca.Node(t, "n3"), time.Second)
				}
			})
		})
	}
}
