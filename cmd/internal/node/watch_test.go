package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// TestAWatchMissesNothing: a reader that goes on at any node, after leaders were lost and streams broken, hears every event once and in order.
func TestAWatchMissesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		start := first.replica.State().Tree().Size
		ctx, stop := context.WithCancel(w.ctx())
		done := make(chan []uint64)
		go func() { done <- w.read(ctx, start) }()
		for i := range 20 {
			w.create(w.leader(), fsm.KeyName(fmt.Sprintf("k%02d", i)), hsm.Ed25519)
			switch i {
			case 5:
				w.stepDown()
			case 10:
				victim := w.leader().id
				w.kill(victim)
				w.leader()
				w.restart(victim)
				w.serving(3)
				w.unseal(victim)
			}
		}
		end := w.leader().replica.State().Tree().Size
		w.within(10*time.Second, "the reader is there", func() bool { return w.reader.Load() >= end })
		stop()
		leaves := <-done
		if uint64(len(leaves)) < end-start {
			t.Fatalf("%d leaves of %d", len(leaves), end-start)
		}
		for i, leaf := range leaves {
			if leaf != start+uint64(i) {
				t.Fatalf("leaf %d came in place %d after %d", leaf, i, start)
			}
		}
	})
}

// read watches at one node after another, two batches at each, and returns the leaves that it was sent.
func (w *world) read(ctx context.Context, from uint64) []uint64 {
	var leaves []uint64
	enough := errors.New("enough of this node")
	for turn := 0; ctx.Err() == nil; turn++ {
		live := w.live()
		p := live[turn%len(live)]
		sent := 0
		_ = p.use(func(v *vault.Vault) error { // whatever ended it, the next node goes on
			return v.Watch(ctx, w.admin, vault.WatchQuery{From: from}, func(b vault.WatchBatch) error {
				for _, e := range b.Events {
					leaves = append(leaves, e.Leaf)
				}
				from = b.Next
				w.reader.Store(from)
				if sent++; sent == 2 {
					return enough
				}
				return nil
			})
		})
		time.Sleep(10 * time.Millisecond)
	}
	return leaves
}

// TestAWatchBeginsWhereItIsTold, and shows what its reader may see.
func TestAWatchBeginsWhereItIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.unsealed(1)
		_, _, err := p.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "mine", Algorithm: hsm.Ed25519, Labels: []fsm.Label{{Name: "users", Value: "bob"}}})
		w.must(err)
		w.create(p, "theirs", hsm.Ed25519)
		bob := w.employ(p, fsm.RoleUser, "bob")
		index := p.replica.State().Applied()
		_, err = w.change(w.ctx(), p, request(), "mine", fsm.ActionSuspend)
		w.must(err)
		for name, c := range map[string]struct {
			who  policy.Caller
			q    vault.WatchQuery
			want []string
		}{
			"after an index":  {w.admin, vault.WatchQuery{AfterIndex: index}, []string{"key.suspend", "barrier.done"}},
			"after the last":  {w.admin, vault.WatchQuery{AfterIndex: index + 1000}, nil},
			"one subject":     {w.admin, vault.WatchQuery{Subject: "key/theirs"}, []string{"key.create", "key.activate"}},
			"prefix, actions": {w.admin, vault.WatchQuery{Prefix: "key/", Actions: []string{"key.s", "key.suspend"}}, []string{"key.suspend"}},
			"all of a kind":   {w.admin, vault.WatchQuery{Subject: "key/mine", Actions: []string{"key."}}, []string{"key.create", "key.activate", "key.suspend"}},
			"from now":        {w.admin, vault.WatchQuery{FromNow: true}, nil},
			"a user":          {bob, vault.WatchQuery{}, []string{"key.create", "key.activate", "key.suspend", "barrier.done"}},
		} {
			if got := w.watched(p, c.who, c.q); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		if err := p.vault.Watch(w.ctx(), w.admin, vault.WatchQuery{From: 1 << 40}, nil); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("from a leaf of the future: %v", err)
		}
		if err := p.vault.Watch(w.ctx(), w.admin, vault.WatchQuery{Actions: make([]string, 1000)}, nil); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("a thousand actions: %v", err)
		}
		w.endsOfWatches(p, bob)
	})
}

// TestANodeThatWaitsForItsUnsealIsWatched: before there is a master, and after a restart. It asks the leader what its reader may see.
func TestANodeThatWaitsForItsUnsealIsWatched(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(3)
		admissions := vault.WatchQuery{Actions: []string{"node.admit"}}
		want := "[node.admit node.admit node.admit]"
		for _, p := range w.live() {
			if got := fmt.Sprint(w.watched(p, w.admin, admissions)); got != want {
				t.Errorf("%s, before a genesis: %s", p.id, got)
			}
		}
		w.genesis(first)
		w.unseal(w.ids()...)
		w.kill("n3")
		back := w.restart("n3")
		w.serving(3)
		if got := fmt.Sprint(w.watched(back, w.admin, admissions)); got != want || !back.sealed() {
			t.Errorf("after a restart: %s", got)
		}
		w.isolate("n3")
		if err := back.vault.Watch(w.ctx(), w.admin, admissions, func(vault.WatchBatch) error { return nil }); err == nil {
			t.Error("it is watched without a leader, too")
		}
		w.heal()
		w.serving(3)
		// A node that serves does not go on when its lease has run out.
		err := w.node("n2").vault.Watch(w.ctx(), w.admin, vault.WatchQuery{FromNow: true}, func(vault.WatchBatch) error {
			w.isolate("n2")
			return nil
		})
		if !errors.Is(err, guard.ErrNoLease) {
			t.Errorf("without a lease it ended with: %v", err)
		}
		w.heal()
	})
}

// watched are the actions that a watch sends before its second beat, which comes when there is no more.
func (w *world) watched(p *process, who policy.Caller, q vault.WatchQuery) []string {
	w.t.Helper()
	var got []string
	enough := errors.New("enough")
	silent := 0
	err := p.vault.Watch(w.ctx(), who, q, func(b vault.WatchBatch) error {
		for _, e := range b.Events {
			got = append(got, e.Action)
		}
		if len(b.Events) > 0 {
			return nil
		}
		if silent++; silent == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		w.t.Errorf("%+v ended with %v", q, err)
	}
	return got
}

// endsOfWatches: in good order after its time; at once when its reader's role is taken away.
func (w *world) endsOfWatches(p *process, bob policy.Caller) {
	w.t.Helper()
	began := time.Now()
	w.must(p.vault.Watch(w.ctx(), w.admin, vault.WatchQuery{FromNow: true}, func(vault.WatchBatch) error { return nil }))
	if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
		w.t.Errorf("a watch lasted %s", took)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.vault.Watch(w.ctx(), bob, vault.WatchQuery{FromNow: true}, func(vault.WatchBatch) error { return nil })
	}()
	time.Sleep(time.Second)
	_, err := p.vault.RevokeCertificates(w.ctx(), w.admin, request(), fsm.RevokeCertificates{Role: fsm.RoleUser, Name: "bob", Reason: "left"})
	w.must(err)
	if err := <-ended; !errors.Is(err, policy.ErrUnauthenticated) {
		w.t.Errorf("the watch of a revoked user ended with %v", err)
	}
}

// TestAWatchKeepsBehindFences: whose right to a key was taken away sees no more of it from the acknowledgement on, also at a node that has only the
// fence, and in a watch that had begun.
func TestAWatchKeepsBehindFences(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		for i := range 300 { // more events than one message takes
			w.create(first, fsm.KeyName(fmt.Sprintf("x%03d", i)), hsm.Ed25519)
		}
		for _, name := range []fsm.KeyName{"pay", "other"} {
			_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Algorithm: hsm.Ed25519, Labels: []fsm.Label{{Name: "users", Value: "bob"}}})
			w.must(err)
		}
		bob := w.employ(first, fsm.RoleUser, "bob")
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		frozen := w.followers()[0]
		q := vault.WatchQuery{Actions: []string{"key.create"}}
		if got := w.watched(frozen, bob, q); len(got) != 2 {
			t.Fatalf("before: %v", got)
		}
		defer w.gates[frozen.id].reopen()
		var seen []string
		stopped := errors.New("seen enough")
		for err, begun := error(nil), false; !errors.Is(err, stopped); {
			err = frozen.vault.Watch(w.ctx(), bob, q, func(b vault.WatchBatch) error {
				for _, e := range b.Events {
					seen = append(seen, e.Subject)
				}
				if slices.Contains(seen, "key/other") {
					return stopped
				}
				if begun {
					return nil
				}
				begun = true
				w.gates[frozen.id].close()
				k, _, err := w.leader().vault.UpdateKey(w.ctx(), w.admin, request(), fsm.UpdateKey{Name: "pay", RemoveLabels: []string{"users"}})
				w.must(err)
				if len(k.Barrier.Waited) > 0 || frozen.replica.State().Applied() >= k.Barrier.Index {
					t.Errorf("it was not the fence: %+v", k.Barrier)
				}
				time.AfterFunc(time.Second, w.gates[frozen.id].reopen)
				return nil
			})
			if err != nil && !errors.Is(err, stopped) && !errors.Is(err, guard.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if !slices.Equal(seen, []string{"key/other"}) {
			t.Errorf("bob sees %v", seen)
		}
	})
}
