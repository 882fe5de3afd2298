package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// failover is how long a client may stand still when a node is killed.
const failover = 3 * time.Second

// writer creates keys one after another, and remembers what was acknowledged.
type writer struct {
	name string
	api  *client.Client
	mu   sync.Mutex
	keys []string
	at   []time.Time // of the acknowledgements
	err  error
}

func (w *writer) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("writer/%s/%05d", w.name, i)
		_, err := w.api.CreateKey(ctx, &vaultpb.CreateKeyRequest{Name: name, Algorithm: "ed25519"})
		w.mu.Lock()
		switch {
		case err == nil:
			w.keys, w.at = append(w.keys, name), append(w.at, time.Now())
		case ctx.Err() == nil:
			w.err = fmt.Errorf("creating %s: %w", name, err)
		}
		w.mu.Unlock()
		select { // a stream of writes, not a benchmark
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// pause is the longest time without an acknowledgement that touches [from, to].
func (w *writer) pause(from, to time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var longest time.Duration
	for i := 1; i < len(w.at); i++ {
		if w.at[i].After(from) && w.at[i-1].Before(to) {
			longest = max(longest, w.at[i].Sub(w.at[i-1]))
		}
	}
	if len(w.at) > 0 && w.at[len(w.at)-1].Before(to) {
		longest = max(longest, to.Sub(w.at[len(w.at)-1]))
	}
	return longest
}

func (w *writer) acknowledged() ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.keys...), w.err
}

// write starts three writers, each with another node first.
func (c *cluster) write(t *testing.T) (writers []*writer, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	for i := range c.nodes {
		addrs := append(c.addresses()[i:], c.addresses()[:i]...)
		w := &writer{name: c.nodes[i].id, api: c.sdk(t, c.admin, addrs...)}
		writers = append(writers, w)
		running.Go(func() { w.run(ctx) })
	}
	return writers, stop
}

// killsDuringWrites kills each node in turn, and the leader last, while three clients write.
func killsDuringWrites(t *testing.T, c *devCluster) {
	writers, stop := c.write(t)
	leader := c.leader(t)
	var turns []*member
	for _, n := range c.nodes {
		if n != leader {
			turns = append(turns, n)
		}
	}
	for _, n := range append(turns, leader) {
		role := "follower"
		if c.leader(t) == n {
			role = "leader"
		}
		killOne(t, c, n, role, writers)
	}
	stop()
	var all []string
	for _, w := range writers {
		keys, err := w.acknowledged()
		if err != nil {
			t.Errorf("writer %s: %v", w.name, err)
		}
		all = append(all, keys...)
	}
	t.Logf("%d writes were acknowledged", len(all))
	for _, n := range c.nodes {
		present(t, c, n, all)
	}
}

// killOne kills a node and waits until it is back and serves.
func killOne(t *testing.T, c *devCluster, n *member, role string, writers []*writer) {
	t.Helper()
	before, err := n.pid()
	if err != nil {
		t.Fatal(err)
	}
	term, killed := c.term(t), time.Now()
	n.signal(t, syscall.SIGKILL)
	eventually(t, 60*time.Second, n.id+" is started again", func() error {
		if pid, err := n.pid(); err != nil || pid == before || !alive(pid, n.dir) {
			return fmt.Errorf("pid %d, %w", pid, err)
		}
		return nil
	})
	eventually(t, 60*time.Second, n.id+" serves again", func() error {
		return signsAt(t.Context(), c.sdk(t, c.admin, n.api), n.id, "dev/probe")
	})
	back := time.Now()
	limit := failover
	if elected := c.term(t) - term; elected > 1 { // more than the kill explains: busy cores made leaders step down, too
		limit += time.Duration(elected-1) * electionTime
	}
	var pauses []string
	for _, w := range writers {
		p := w.pause(killed, back)
		pauses = append(pauses, fmt.Sprintf("%s %s", w.name, p.Round(time.Millisecond)))
		if p > limit {
			t.Errorf("the writer that prefers %s stood still for %s when %s %s was killed", w.name, p, role, n.id)
		}
	}
	t.Logf("%s %s killed: longest pauses of the writers: %s; it served again after %s", role, n.id, strings.Join(pauses, ", "), back.Sub(killed).Round(100*time.Millisecond))
}

// present demands that a node knows every key.
func present(t *testing.T, c *devCluster, n *member, names []string) {
	t.Helper()
	api, known := c.sdk(t, c.admin, n.api), map[string]bool{}
	for token, first := "", true; first || token != ""; first = false {
		page, err := api.ListKeys(t.Context(), &vaultpb.ListKeysRequest{PageSize: 1000, PageToken: token, Prefix: "writer/"})
		if err != nil {
			t.Fatalf("%s: %v", n.id, err)
		}
		for _, k := range page.GetItems() {
			known[k.GetName()] = true
		}
		token = page.GetNextPageToken()
	}
	missing := 0
	for _, name := range names {
		if !known[name] {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%s lost %d of %d acknowledged writes", n.id, missing, len(names))
	}
}
