package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// leaseTime is D, the life of a serving lease; leaseWait is W(D), after which a leader knows that it ran out.
	leaseTime = 3 * time.Second
	leaseWait = 3700 * time.Millisecond
	// slack is for the scheduling of two busy cores.
	slack = time.Second
	// electionTime bounds finding a new leader.
	electionTime = 3 * time.Second
)

// TestFaults stops and kills nodes of one cluster. It is not parallel, because it measures.
func TestFaults(t *testing.T) {
	c := dev(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *devCluster)
	}{
		{"SuspendTakesMilliseconds", suspendLatency},
		{"APausedFollowerSignsNothingMore", pausedFollower},
		{"APausedLeaderSignsNothingMore", pausedLeader},
		{"WithoutQuorumNobodySigns", withoutQuorum},
		{"ADeadlineLeavesItPending", pendingBarrier},
		{"ARestartedNodeCatchesUpFirst", restartedNode},
		{"ALowerBudgetWaitsForAPausedNode", lowerBudget},
		{"AKilledNodeLosesItsReserve", killedWithABudget},
		{"NoAcknowledgedWriteIsLost", killsDuringWrites},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, c) }) {
			return // what follows would only fail too
		}
		c.serving(t, 30*time.Second)
	}
}

func newSigningKey(t *testing.T, c *devCluster, name string) {
	t.Helper()
	c.admin.ok(t, "key", "create", name, "--algorithm", c.signer())
}

func suspend(t *testing.T, api *client.Client, name string) *vaultpb.KeyReply {
	t.Helper()
	return change(t, api, name, vaultpb.KeyAction_KEY_ACTION_SUSPEND)
}

func change(t *testing.T, api *client.Client, name string, action vaultpb.KeyAction) *vaultpb.KeyReply {
	t.Helper()
	k, err := api.ChangeKey(t.Context(), &vaultpb.ChangeKeyRequest{Name: name, Action: action, Reason: "a test"})
	if err != nil {
		t.Fatalf("%s of %s: %v", action, name, err)
	}
	return k
}

// others are the addresses of all nodes but one.
func (c *cluster) others(n *member) []string {
	return slices.DeleteFunc(c.addresses(), func(a string) bool { return a == n.api })
}

func suspendLatency(t *testing.T, c *devCluster) {
	newSigningKey(t, c, "fault/latency")
	api := c.sdk(t, c.admin, c.addresses()...)
	var took []time.Duration
	for range 20 {
		start := time.Now()
		suspend(t, api, "fault/latency")
		took = append(took, time.Since(start))
		change(t, api, "fault/latency", vaultpb.KeyAction_KEY_ACTION_RESUME)
	}
	slices.Sort(took)
	t.Logf("suspend, healthy: median %s, slowest %s", took[len(took)/2].Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond))
	if took[len(took)/2] > 500*time.Millisecond {
		t.Errorf("the median of %s is as if a node had not answered", took[len(took)/2])
	}
}

func pausedFollower(t *testing.T, c *devCluster) {
	pausedNode(t, c, c.follower(t), "fault/follower")
}

func pausedLeader(t *testing.T, c *devCluster) {
	pausedNode(t, c, c.leader(t), "fault/leader")
}

// newLeaders is what the leaders since term may add to a restriction's wait: finding one, and its own wait for the leases that
// an earlier one gave. Two busy cores can make a leader step down that nobody paused.
func (c *cluster) newLeaders(t *testing.T, term uint64) time.Duration {
	t.Helper()
	elected := c.term(t) - term
	return time.Duration(elected) * (electionTime + leaseWait)
}

// pausedNode: once a suspension is acknowledged, a node that was paused all the while signs nothing more, although the requests
// were there before it learnt of the suspension.
func pausedNode(t *testing.T, c *devCluster, n *member, name string) {
	newSigningKey(t, c, name)
	api := c.sdk(t, c.admin, c.others(n)...)
	h := c.hammer(t, n, name)
	term, leader := c.term(t), c.leader(t)
	resume := n.pause(t)
	start := time.Now()
	k := suspend(t, api, name)
	acknowledged := time.Now()
	took := acknowledged.Sub(start)
	t.Logf("suspend, %s paused (%s led): %s; waited for %q", n.id, leader.id, took.Round(time.Millisecond), k.GetKey().GetBarrier().GetWaitedFor())
	if limit := leaseWait + slack + c.newLeaders(t, term); took > limit {
		t.Errorf("the suspension was acknowledged after %s, %s is the limit", took, limit)
	}
	eventually(t, 5*time.Second, "requests wait for the paused node", func() error {
		if wait := time.Since(acknowledged); wait < 500*time.Millisecond {
			return fmt.Errorf("only %s of requests wait", wait)
		}
		return nil
	})
	resume()
	eventually(t, 10*time.Second, "the node refuses with the key's state", func() error {
		if h.refusedAfter(acknowledged, kind.KeyState) == 0 {
			return fmt.Errorf("%d answers, none of them says so", len(h.all()))
		}
		return nil
	})
	h.stop()
	if late := h.signedAfter(acknowledged); late != 0 {
		t.Errorf("%d signatures answer requests that were sent after the acknowledgement", late)
	}
	// What reached the paused node could be decided only after it went on, so after the acknowledgement, too.
	if late := h.signedAfter(start.Add(100 * time.Millisecond)); late != 0 {
		t.Errorf("%d signatures answer requests that were sent while the node was paused", late)
	}
	released := h.count(func(s shot) bool { return s.signed && s.received.After(acknowledged) })
	t.Logf("%d requests, %d signed, %d of them came out after the acknowledgement", len(h.all()), h.count(func(s shot) bool { return s.signed }), released)
}

// withoutQuorum: a node that cannot reach a majority stops within D, and goes on when it can again.
func withoutQuorum(t *testing.T, c *devCluster) {
	newSigningKey(t, c, "fault/quorum")
	n := c.follower(t)
	h := c.hammer(t, n, "fault/quorum")
	var resume []func()
	for _, other := range c.nodes {
		if other != n {
			resume = append(resume, other.pause(t))
		}
	}
	alone := time.Now()
	eventually(t, leaseTime+5*time.Second, "the node refuses", func() error {
		if h.refusedAfter(alone, kind.Unavailable) < 50 {
			return fmt.Errorf("%d answers", len(h.all()))
		}
		return nil
	})
	var last time.Time
	for _, s := range h.all() {
		if s.signed && s.received.After(last) {
			last = s.received
		}
	}
	t.Logf("the last signature came %s after the quorum was lost", last.Sub(alone).Round(time.Millisecond))
	if last.Sub(alone) > leaseTime+250*time.Millisecond {
		t.Errorf("a signature came %s after the quorum was lost; D is %s", last.Sub(alone), leaseTime)
	}
	c.admin.at(n.api).exits(t, 6, "sign", "fault/quorum", "--in", "-", "--timeout", "2s")
	c.admin.at(n.api).exits(t, 6, "key", "create", "fault/never", "--algorithm", c.signer(), "--timeout", "2s")
	for _, r := range resume {
		r()
	}
	back := time.Now()
	eventually(t, 15*time.Second, "the node signs again", func() error {
		if h.signedAfter(back) == 0 {
			return fmt.Errorf("%d answers", len(h.all()))
		}
		return nil
	})
}

// pendingBarrier: a caller with little time learns that it is committed and on whom it waits, and may ask again.
func pendingBarrier(t *testing.T, c *devCluster) {
	newSigningKey(t, c, "fault/pending")
	n := c.follower(t)
	who := c.admin.at(c.others(n)...)
	n.pause(t)
	id, err := client.NewRequestID()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"key", "suspend", "fault/pending", "--reason", "in a hurry", "--request-id", id}
	o := who.refuses(t, 6, "pending on "+n.id, append(args, "--timeout", "1s")...)
	var index uint64
	if _, err := fmt.Sscanf(o.errors[max(0, strings.Index(o.errors, "committed at")):], "committed at %d", &index); err != nil || index == 0 {
		t.Errorf("no index in: %s", o.errors)
	}
	var k keyDocument
	who.document(t, &k, args...)
	if k.State != "suspended" || k.Barrier == nil || k.Barrier.State != "done" || !slices.Contains(k.Barrier.WaitedFor, n.id) {
		t.Errorf("after the wait: %+v, barrier %+v", k, k.Barrier)
	}
	if k.Index < index {
		t.Errorf("the repeat is at %d, the first at %d", k.Index, index)
	}
}

// restartedNode: a node that was down while a key was suspended signs nothing with it after it is up and unsealed.
func restartedNode(t *testing.T, c *devCluster) {
	newSigningKey(t, c, "fault/suspended")
	newSigningKey(t, c, "fault/other")
	n, term := c.follower(t), c.term(t)
	n.signal(t, syscall.SIGKILL)
	api := c.sdk(t, c.admin, c.others(n)...)
	start := time.Now()
	suspend(t, api, "fault/suspended")
	took := time.Since(start)
	t.Logf("suspend, %s dead: %s", n.id, took.Round(time.Millisecond))
	if limit := leaseWait + slack + c.newLeaders(t, term); took > limit {
		t.Errorf("the suspension was acknowledged after %s, %s is the limit", took, limit)
	}
	direct := c.sdk(t, c.admin, n.api)
	eventually(t, 60*time.Second, "the node is back and serves", func() error {
		if err := signsAt(t.Context(), direct, n.id, "fault/suspended"); err == nil {
			t.Fatal("the restarted node signs with a key that was suspended while it was down")
		} else if kind.Of(err) != kind.KeyState && kind.Of(err) != kind.Sealed && kind.Of(err) != kind.Unavailable && kind.Of(err) != kind.Deadline {
			t.Fatalf("the restarted node says %s: %v", kind.Of(err), err)
		}
		return signsAt(t.Context(), direct, n.id, "fault/other")
	})
	if err := signsAt(t.Context(), direct, n.id, "fault/suspended"); kind.Of(err) != kind.KeyState {
		t.Errorf("the node that caught up says %v", err)
	}
}
