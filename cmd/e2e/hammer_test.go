package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// shot is one request for a signature, on a connection to one node only, never repeated.
type shot struct {
	sent, received time.Time
	signed         bool
	kind           kind.Kind // of the refusal
}

// hammer asks one node for signatures at a steady pace, whether it answers or not: what is sent while the node is paused waits in
// its socket and is served first when it goes on.
type hammer struct {
	api   vaultpb.CryptoClient
	key   string
	end   context.CancelFunc
	calls sync.WaitGroup
	mu    sync.Mutex
	shots []shot
}

const (
	// shotEvery paces a hammer.
	shotEvery = 10 * time.Millisecond
	// shotTime is how long one request may take: longer than any pause here.
	shotTime = 30 * time.Second
)

// hammer starts one on node n, with a connection that is proven.
func (c *cluster) hammer(t *testing.T, n *member, key string) *hammer {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.admin.env["CONCLAVE_CERT"], c.admin.env["CONCLAVE_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	// Whom it speaks to is not the question here, and the SDK's checks are tested elsewhere.
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
	conn, err := grpc.NewClient("passthrough:///"+n.api, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &hammer{api: vaultpb.NewCryptoClient(conn), key: key, end: cancel}
	t.Cleanup(func() {
		h.stop()
		conn.Close()
	})
	h.shoot()
	if first := h.all()[0]; !first.signed {
		t.Fatalf("%s does not sign with %s: %s", n.id, key, first.kind)
	}
	h.calls.Go(func() { h.run(ctx) })
	eventually(t, 5*time.Second, n.id+" signs at a steady pace", func() error {
		if signed := h.count(func(s shot) bool { return s.signed }); signed < 20 {
			return fmt.Errorf("%d signatures", signed)
		}
		return nil
	})
	return h
}

func (h *hammer) run(ctx context.Context) {
	pace := time.NewTicker(shotEvery)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			h.calls.Go(h.shoot)
		}
	}
}

func (h *hammer) shoot() {
	ctx, cancel := context.WithTimeout(context.Background(), shotTime)
	defer cancel()
	s := shot{sent: time.Now()}
	reply, err := h.api.Sign(ctx, &vaultpb.SignRequest{Name: h.key, Data: []byte("hammer")})
	s.received, s.signed, s.kind = time.Now(), err == nil && len(reply.GetSignature()) > 0, kind.Of(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shots = append(h.shots, s)
}

// stop ends the hammer after its last answer.
func (h *hammer) stop() {
	h.end()
	h.calls.Wait()
}

func (h *hammer) all() []shot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]shot(nil), h.shots...)
}

// count of the shots that match.
func (h *hammer) count(match func(shot) bool) int {
	n := 0
	for _, s := range h.all() {
		if match(s) {
			n++
		}
	}
	return n
}

// signedAfter is how many signatures answer requests that were sent after a moment.
func (h *hammer) signedAfter(moment time.Time) int {
	return h.count(func(s shot) bool { return s.signed && s.sent.After(moment) })
}

// refusedAfter is how many refusals of that kind came after a moment.
func (h *hammer) refusedAfter(moment time.Time, k kind.Kind) int {
	return h.count(func(s shot) bool { return s.kind == k && s.received.After(moment) })
}
