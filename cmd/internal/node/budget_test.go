package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
)

func (w *world) budget(p *process, name fsm.KeyName, l fsm.UseLimit) {
	w.t.Helper()
	_, _, err := p.vault.SetBudget(w.ctx(), w.admin, request(), name, l)
	w.must(err)
}

func operations(n uint64, per time.Duration) fsm.UseLimit {
	return fsm.UseLimit{Amount: fsm.Amount{Operations: n}, Per: per}
}

func spent(err error) bool {
	refused, ok := errors.AsType[*vault.Refused](err)
	return ok && refused.Code == fsm.CodeBudget
}

// hammer signs on every named node, with several callers on each, until the budget does not allow more; it returns how often it did.
func (w *world) hammer(name fsm.KeyName, nodes ...*process) int {
	w.t.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, p := range nodes {
		for range 4 {
			wg.Go(func() {
				for {
					_, err := p.vault.Sign(w.ctx(), w.admin, name, message(1))
					switch {
					case err == nil:
						done.Add(1)
					case spent(err):
						return
					default:
						w.t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	return int(done.Load())
}

func (w *world) uses(p *process, name fsm.KeyName) fsm.Uses {
	w.t.Helper()
	k, _, err := p.vault.Key(w.ctx(), w.admin, name)
	w.must(err)
	return p.vault.Uses(k)
}

// TestNodesSpendABudgetTogether: whoever hammers until it is refused, exactly the limit is done; so nobody spent what another had.
func TestNodesSpendABudgetTogether(t *testing.T) {
	for name, exact := range map[string]bool{"in blocks": false, "exact": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first := w.unsealed(3)
				w.create(first, "pay", hsm.Ed25519)
				limit := operations(150, time.Minute)
				limit.Exact = exact
				w.budget(first, "pay", limit)
				time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute))) // a whole window lies ahead
				if got := w.hammer("pay", w.live()...); got != 150 {
					t.Errorf("%d operations with a budget of 150", got)
				}
				_, err := first.vault.Sign(w.ctx(), w.admin, "pay", message(1))
				if !spent(err) || !strings.Contains(err.Error(), "renewed at") {
					t.Fatalf("one more: %v", err)
				}
				w.within(30*time.Second, "the last blocks are accounted for", func() bool { return w.uses(first, "pay").Reserved.Operations == 0 })
				time.Sleep(time.Until(w.uses(first, "pay").Renewed)) // of the bubble's clock
				if got := w.hammer("pay", w.node("n2"), w.node("n3")); got != 150 {
					t.Errorf("%d operations in the next window", got)
				}
			})
		})
	}
}

// TestAKilledNodeStrandsItsBlockAndNoMore, and the block is nobody's in the next window.
func TestAKilledNodeStrandsItsBlockAndNoMore(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.budget(first, "pay", operations(240, time.Hour))
		done := 0
		for range 3 {
			_, err := w.node("n3").vault.Sign(w.ctx(), w.admin, "pay", message(1))
			w.must(err)
			done++
		}
		if first == w.leader() {
			w.never(time.Second, "the block is there", func() bool { return w.uses(first, "pay").Reserved.Operations == 0 })
		}
		held := w.uses(first, "pay").Reserved.Operations
		if held < 3 || held > 20 {
			t.Fatalf("a block of %d, at most 240/12", held)
		}
		w.kill("n3")
		rest := slicesWithout(w.live(), "n3")
		done += w.hammer("pay", rest...)
		if done > 240 || done < 240-int(held) {
			t.Errorf("%d operations with a budget of 240 and %d stranded", done, held)
		}
		n3 := w.restart("n3")
		w.unseal("n3")
		if _, err := n3.vault.Sign(w.ctx(), w.admin, "pay", message(1)); !spent(err) {
			t.Errorf("the restarted node signs with what its earlier process had: %v", err)
		}
	})
}

func slicesWithout(all []*process, id fsm.NodeID) (rest []*process) {
	for _, p := range all {
		if p.id != id {
			rest = append(rest, p)
		}
	}
	return rest
}

// TestLoweringWaitsForWhoeverMaySpendMore: a node that is cut off has a block under the old limit. The lower limit is acknowledged when
// its lease has run out, and from then on it signs nothing, not even from its block.
func TestLoweringWaitsForWhoeverMaySpendMore(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.budget(first, "pay", operations(2400, 0))
		n3 := w.node("n3")
		w.within(10*time.Second, "n3 has a block", func() bool { return w.signs(n3, "pay") })
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		w.within(10*time.Second, "n3 has a block again", func() bool { return w.signs(n3, "pay") })
		w.isolate("n3")
		began := time.Now()
		acknowledged := make(chan struct{})
		go func() {
			defer close(acknowledged)
			w.budget(first, "pay", operations(1, 0))
		}()
		w.within(time.Second, "n3 still signs from its block, under its lease", func() bool { return w.signs(n3, "pay") })
		<-acknowledged
		if took := time.Since(began); took > waitTime+100*time.Millisecond || took < leaseTime/2 {
			t.Errorf("acknowledged after %s, W(D) is %s", took, waitTime)
		}
		w.never(time.Second, "a signature beyond the new limit", func() bool { return w.signs(n3, "pay") || w.signs(first, "pay") })
		w.heal()
		w.within(30*time.Second, "n3 reports what it spent", func() bool {
			_, err := n3.vault.Sign(w.ctx(), w.admin, "pay", message(1))
			return spent(err) && w.uses(first, "pay").Reserved.Operations == 0
		})
		if u := w.uses(first, "pay"); u.Spent.Operations < 3 || u.Spent.Operations > 10 {
			t.Errorf("the rest of the block is not given back: %+v", u)
		}
	})
}

// TestSealAndStopGiveBlocksBack.
func TestSealAndStopGiveBlocksBack(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.budget(first, "pay", operations(1200, 0))
		use := func(p *process) {
			w.t.Helper()
			_, err := p.vault.Sign(w.ctx(), w.admin, "pay", message(1))
			w.must(err)
		}
		use(w.node("n3"))
		w.stop("n3")
		if u := w.uses(first, "pay"); u.Spent.Operations != 1 || u.Reserved.Operations != 0 {
			t.Errorf("after a stop in good order: %+v", u)
		}
		use(w.node("n2"))
		_, err := first.vault.Seal(w.ctx(), w.admin, request(), "drill")
		w.must(err)
		w.within(3*time.Second, "the sealed node gives its block back", func() bool {
			u := w.uses(first, "pay")
			return u.Spent.Operations == 2 && u.Reserved.Operations == 0
		})
	})
}

// TestDrainGivesBlocksBack: what the node did not spend is the others' again, at once and not in the next window.
func TestDrainGivesBlocksBack(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.budget(first, "pay", operations(1200, 0))
		_, err := w.node("n3").vault.Sign(w.ctx(), w.admin, "pay", message(1))
		w.must(err)
		if u := w.uses(first, "pay"); u.Reserved.Operations != 100 {
			t.Fatalf("n3 holds a block: %+v", u)
		}
		w.must(w.reorder(w.ctx(), first, "n3", vault.NodeDrain))
		w.within(3*time.Second, "the drained node gives its block back", func() bool {
			u := w.uses(first, "pay")
			return u.Spent.Operations == 1 && u.Reserved.Operations == 0
		})
		if done := w.hammer("pay", w.node("n1"), w.node("n2")); done != 1199 {
			t.Errorf("%d more operations of 1199", done)
		}
	})
}

// mourned is what a node hears of others, with a gossip that calls dead whoever does not run.
type mourned struct {
	vault.Peers
	w *world
}

func (m mourned) Gossip(id fsm.NodeID) string {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if p := m.w.nodes[id]; p == nil || p.over() {
		return "dead"
	}
	return "alive"
}

// over reports that a process has ended.
func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// TestADeadNodesBlockLapses: nobody needs to restart it. What it had counts in this window, because nobody knows what it spent, and is usable again in the
// next one, where without the lapse it would count once more.
func TestADeadNodesBlockLapses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.alter = func(_ *process, c *vault.Config) { c.Peers = mourned{c.Peers, w} }
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		const window = 2 * time.Minute
		w.budget(first, "pay", operations(1200, window))
		time.Sleep(time.Until(time.Now().Truncate(window).Add(window))) // of the bubble's clock: a whole window lies ahead
		_, err := w.node("n3").vault.Sign(w.ctx(), w.admin, "pay", message(1))
		w.must(err)
		w.kill("n3")
		w.within(30*time.Second, "the block has lapsed, in force everywhere", func() bool {
			s := first.replica.State()
			return len(w.logged(first, "node.lapse-use", "node/n3")) == 1 && len(s.PendingBarriers()) == 0 && !s.HoldsReserve("n3")
		})
		rest := slicesWithout(w.live(), "n3")
		if done := w.hammer("pay", rest...); done != 1100 {
			t.Errorf("%d operations of 1200 beside a block of 100 that nobody answers for", done)
		}
		time.Sleep(time.Until(w.uses(first, "pay").Renewed)) // of the bubble's clock
		if done := w.hammer("pay", rest...); done != 1200 {
			t.Errorf("%d operations in the next window, which is whole again", done)
		}
	})
}

// say proposes in a node's name.
func (w *world) say(leader *process, from fsm.NodeID, c fsm.Command) {
	w.t.Helper()
	entry, err := fsm.EncodeEntry(fsm.Entry{Command: c, Actor: fsm.Actor("spiffe://" + w.admin.Cluster + "/node/" + string(from))})
	w.must(err)
	payload, err := json.Marshal(map[string][]byte{"entry": entry})
	w.must(err)
	answer, err := leader.vault.HandlePeer(w.ctx(), from, "propose", payload)
	w.must(err)
	if strings.Contains(string(answer), `"fault"`) || !strings.Contains(string(answer), `"Code":0`) {
		w.t.Fatalf("%T: %s", c, answer)
	}
}

// TestTheBoundOfGCMRotatesTheKey before it is reached, without anybody asking.
func TestTheBoundOfGCMRotatesTheKey(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "box", hsm.AES256GCM)
		out, err := first.vault.Encrypt(w.ctx(), w.admin, "box", []byte("x"), nil)
		w.must(err)
		k, _, err := first.vault.Key(w.ctx(), w.admin, "box")
		w.must(err)
		n2, _ := w.node("n2").replica.State().Node("n2")
		var opened, used, seq uint64
		for used < 1<<31+1<<30 && len(k.Versions) == 1 { // n2 encrypts three quarters of what is possible
			seq++
			w.say(w.leader(), "n2", fsm.ReserveUse{
				Node: "n2", Boot: n2.UnsealedBoot, Key: k.ID, Version: 1, Seq: seq, Opened: opened, Used: fsm.Amount{Operations: used},
				Want: fsm.Amount{Operations: 1 << 40},
			})
			b, _ := w.leader().replica.State().HeldBlock(k.ID, 1, "n2", n2.UnsealedBoot)
			opened, used = b.Opened, b.Reserved.Operations
			k, _, err = first.vault.Key(w.ctx(), w.admin, "box")
			w.must(err)
		}
		w.within(10*time.Second, "the key is rotated", func() bool {
			k, _, err = first.vault.Key(w.ctx(), w.admin, "box")
			return err == nil && k.Primary == 2
		})
		again, err := w.node("n3").vault.Encrypt(w.ctx(), w.admin, "box", []byte("x"), nil)
		w.must(err)
		back, err := w.node("n3").vault.Decrypt(w.ctx(), w.admin, "box", vault.Ciphertext{Bytes: out.Bytes})
		w.must(err)
		if again.Version != 2 || string(back.Bytes) != "x" || len(w.logged(first, "key.rotate", "key/box")) != 1 {
			t.Errorf("encrypted with version %d, decrypted %q", again.Version, back.Bytes)
		}
	})
}

// TestLastUse is seen soon after, and is not known from before.
func TestLastUse(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.within(10*time.Second, "uses are recorded", func() bool { return !first.replica.State().UsesSince().IsZero() })
		w.create(first, "pay", hsm.Ed25519)
		if u := w.uses(first, "pay"); len(u.Versions) != 0 || u.KnownSince.IsZero() {
			t.Fatalf("unused: %+v", u)
		}
		time.Sleep(time.Minute)
		began := time.Now()
		_, err := w.node("n2").vault.Sign(w.ctx(), w.admin, "pay", message(1))
		w.must(err)
		w.within(2*guard.SweepEvery, "the use is recorded", func() bool {
			u := w.uses(first, "pay")
			return len(u.Versions) == 1 && !u.Versions[0].LastUsed.Before(began.Truncate(time.Millisecond))
		})
	})
}

// TestABudgetWithoutALeader: what a node has in hand it spends under its lease; for more it says that it cannot ask.
func TestABudgetWithoutALeader(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.budget(first, "pay", operations(24, 0))
		n3 := w.node("n3")
		w.must(func() error { _, err := n3.vault.Sign(w.ctx(), w.admin, "pay", message(1)); return err }())
		w.isolate("n3")
		ctx, cancel := context.WithTimeout(w.ctx(), 10*time.Second)
		defer cancel()
		var err error
		n := 0
		for ; err == nil; n++ {
			_, err = n3.vault.Sign(ctx, w.admin, "pay", message(1))
		}
		if n > 3 || !errors.Is(err, guard.ErrUnavailable) && !errors.Is(err, guard.ErrNoLease) {
			t.Errorf("after %d more: %v", n, err)
		}
	})
}

// TestKeysAreRotatedByUses: as often as their class says, whatever the algorithm, counted on all nodes; by a leader that is out of service, too, and
// without the approvals that somebody who rotates early needs. One that cannot be rotated is in nobody's way.
func TestKeysAreRotatedByUses(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		class, _ := first.replica.State().Class(fsm.ClassStandard)
		class.Name, class.Revision, class.RotateUses, class.Approvals = "busy", 0, 20, []fsm.Approval{{Operation: "rotate", Quorum: 2}}
		_, _, err := first.vault.CreateClass(w.ctx(), w.admin, request(), class)
		w.must(err)
		names := []fsm.KeyName{"a", "b", "c"}
		for _, name := range names {
			_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Class: "busy", Algorithm: hsm.Ed25519})
			w.must(err)
		}
		w.must(w.reorder(w.ctx(), first, w.leader().id, vault.NodeDrain))
		for i := range 24 {
			for _, name := range names[:2] {
				p := w.followers()[i%2]
				w.within(5*time.Second, "a signature", func() bool { return w.signs(p, name) })
			}
		}
		for range 10 {
			w.within(time.Second, "a signature", func() bool { return w.signs(w.followers()[0], "c") })
		}
		for _, name := range names[:2] {
			w.becomes(time.Minute, name, 2, fsm.StateActive)
		}
		time.Sleep(time.Minute)
		if k, _ := first.replica.State().Key("c"); k.Primary != 1 {
			t.Error("rotated after half its uses")
		}
		if got := w.logged(first, "key.rotate", "key/a"); len(got) != 1 || !strings.HasPrefix(got[0].Detail, "uses=2") {
			t.Errorf("logged %+v", got)
		}
	})
}
