package e2e_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// budgetDocument is the part of `conclave key get -o json` that tells of uses.
type budgetDocument struct {
	Budget *struct {
		SpentOperations    uint64     `json:"spent_operations"`
		ReservedOperations uint64     `json:"reserved_operations"`
		RenewedAt          *time.Time `json:"renewed_at"`
		Reserved           []struct {
			Node       string `json:"node"`
			Operations uint64 `json:"operations"`
		} `json:"reserved"`
	} `json:"budget"`
	UsesKnownSince *time.Time `json:"uses_known_since"`
	Versions       []struct {
		LastUsedAt *time.Time `json:"last_used_at"`
	} `json:"versions"`
}

func usesOf(t *testing.T, who caller, name string) budgetDocument {
	t.Helper()
	var d budgetDocument
	who.document(t, &d, "key", "get", name)
	return d
}

// exhaust signs through each of the nodes, with several callers on each, until the budget does not allow more; it returns how often it did.
func (c *cluster) exhaust(t *testing.T, name string, nodes ...*member) int {
	t.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, n := range nodes {
		api := c.sdk(t, c.admin, n.api)
		for range 3 {
			wg.Go(func() {
				for t.Context().Err() == nil {
					_, err := api.Sign(t.Context(), &vaultpb.SignRequest{Name: name, Data: []byte("x")})
					switch k := kind.Of(err); {
					case err == nil:
						done.Add(1)
					case k == kind.Budget:
						return
					case k != kind.Unavailable && k != kind.Deadline: // a busy machine may lose a lease
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	return int(done.Load())
}

// budgets: three nodes and one budget. What blocks may strand is at most a quarter of it.
func budgets(t *testing.T, c *devCluster) {
	const limit = 240
	newSigningKey(t, c, "budget/shared")
	who, m := c.admin, file(t, []byte("x"))
	who.ok(t, "key", "budget", "budget/shared", "--ops", "240")
	if got := c.exhaust(t, "budget/shared", c.nodes...); got > limit || got < limit-limit/4 {
		t.Errorf("%d operations with a budget of %d", got, limit)
	}
	who.refuses(t, 8, "use budget", "sign", "budget/shared", "--in", m)
	d := usesOf(t, who, "budget/shared")
	if d.Budget == nil || d.Budget.SpentOperations+d.Budget.ReservedOperations != limit || d.Budget.RenewedAt != nil || d.UsesKnownSince == nil {
		t.Errorf("after all is spent: %+v", d)
	}
	eventually(t, 30*time.Second, "the last use is recorded", func() error {
		if at := usesOf(t, who, "budget/shared").Versions[0].LastUsedAt; at == nil {
			return errors.New("no use is recorded")
		}
		return nil
	})
	who.ok(t, "key", "budget", "budget/shared", "--ops", "241", "--exact")
	c.admin.refuses(t, 2, "is needed", "key", "budget", "budget/shared")

	// Of the last one there is one.
	newSigningKey(t, c, "budget/last")
	who.ok(t, "key", "budget", "budget/last", "--ops", "1", "--per", "87600h")
	if got := c.exhaust(t, "budget/last", c.nodes...); got != 1 {
		t.Errorf("the last operation was done %d times", got)
	}
	who.ok(t, "key", "budget", "budget/last", "--none")
	who.ok(t, "sign", "budget/last", "--in", m)
}

// lowerBudget: a paused node holds a block of the old limit. The lower limit is acknowledged when its lease must have run out, and when
// it goes on it signs nothing beyond.
func lowerBudget(t *testing.T, c *devCluster) {
	newSigningKey(t, c, "budget/lower")
	n, term := c.follower(t), c.term(t)
	c.admin.ok(t, "key", "budget", "budget/lower", "--ops", "120000")
	direct := c.sdk(t, c.admin, n.api)
	eventually(t, 30*time.Second, "the node signs", func() error { return signsAt(t.Context(), direct, n.id, "budget/lower") })
	h := c.hammer(t, n, "budget/lower")
	resume := n.pause(t)
	api := c.sdk(t, c.admin, c.others(n)...)
	start := time.Now()
	_, err := api.SetBudget(t.Context(), &vaultpb.SetBudgetRequest{Name: "budget/lower", Limit: &vaultpb.UseLimit{Operations: 1}})
	took := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	if limit := leaseWait + slack + c.newLeaders(t, term); took > limit {
		t.Errorf("the lower limit was acknowledged after %s, %s is the limit", took, limit)
	}
	acknowledged := time.Now()
	resume()
	eventually(t, 30*time.Second, "the node has heard of the new limit", func() error {
		err := signsAt(t.Context(), direct, n.id, "budget/lower")
		if err == nil {
			t.Fatal("a signature beyond the limit after its acknowledgement")
		}
		if kind.Of(err) != kind.Budget {
			return err
		}
		return nil
	})
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.shots {
		if s.signed && s.sent.After(acknowledged) {
			t.Errorf("a signature %s after the acknowledgement", s.sent.Sub(acknowledged))
		}
	}
}

// killedWithABudget: what a killed node has in reserve is lost, and nothing more.
func killedWithABudget(t *testing.T, c *devCluster) {
	const limit = 240
	newSigningKey(t, c, "budget/killed")
	n := c.follower(t)
	c.admin.ok(t, "key", "budget", "budget/killed", "--ops", "240")
	direct := c.sdk(t, c.admin, n.api)
	done := 0
	eventually(t, 30*time.Second, "the node signs", func() error {
		err := signsAt(t.Context(), direct, n.id, "budget/killed")
		if err == nil {
			done++
		}
		return err
	})
	n.signal(t, syscall.SIGKILL)
	var rest []*member
	for _, m := range c.nodes {
		if m != n {
			rest = append(rest, m)
		}
	}
	done += c.exhaust(t, "budget/killed", rest...)
	if done > limit || done < limit-limit/4 {
		t.Errorf("%d operations with a budget of %d", done, limit)
	}
	c.serving(t, 60*time.Second)
	if err := signsAt(t.Context(), direct, n.id, "budget/killed"); kind.Of(err) != kind.Budget {
		t.Errorf("the node that is back says %v", err)
	}
}
