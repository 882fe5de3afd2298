package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// plan makes a key with dates.
func (w *world) plan(p *process, n vault.NewKey) fsm.Key {
	w.t.Helper()
	n.Algorithm = hsm.Ed25519
	k, _, err := p.vault.CreateKey(w.ctx(), w.admin, request(), n)
	w.must(err)
	return k
}

// stateOf is a version's state as a node has it.
func stateOf(p *process, name fsm.KeyName, v fsm.Version) fsm.KeyState {
	k, _ := p.replica.State().Key(name)
	kv, _ := k.Version(v)
	return kv.State
}

func (w *world) becomes(limit time.Duration, name fsm.KeyName, v fsm.Version, want fsm.KeyState) {
	w.t.Helper()
	w.within(limit, fmt.Sprintf("%s version %d is %s on every node", name, v, want), func() bool {
		for _, p := range w.live() {
			if stateOf(p, name, v) != want {
				return false
			}
		}
		return true
	})
}

// actions counts the events of a key in the lifecycle log.
func (w *world) actions(p *process, name fsm.KeyName) map[string]int {
	w.t.Helper()
	all := map[string]int{}
	for token := ""; ; {
		page, err := p.vault.History(w.ctx(), w.admin, name, token, 1000)
		w.must(err)
		for _, e := range page.Events {
			all[e.Action]++
		}
		if token = page.Next; token == "" {
			return all
		}
	}
}

// epochs lets days pass on all nodes' wall clocks at once: a bubble in which they really passed would spend them on heartbeats. It returns
// how to let them pass; requests must come from request ids of that time.
func (w *world) epochs() (pass func(time.Duration), request func() fsm.RequestID) {
	var ahead atomic.Int64
	w.alter = func(_ *process, c *vault.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	pass = func(d time.Duration) { ahead.Add(int64(d)) }
	request = func() fsm.RequestID {
		id := uuid.Must(uuid.NewV7())
		ms := time.Now().Add(time.Duration(ahead.Load())).UnixMilli()
		for i := range 6 { // RFC 9562 §5.7: the first 48 bits are the time
			id[i] = byte(ms >> (8 * (5 - i)))
		}
		return fsm.RequestID(id.String())
	}
	return pass, request
}

// TestDatesOfAKey: activation, deactivation, rotation by period, the end of processing and destruction with the receipt of every node,
// each on its day, while nobody does anything.
func TestDatesOfAKey(t *testing.T) {
	inWorld(t, func(w *world) {
		pass, request := w.epochs()
		first := w.unsealed(3)
		class := standard(first)
		class.Name, class.RotateEvery, class.OriginatorPeriod, class.RecipientPeriod = "quick", 10*time.Hour, 12*time.Hour, 20*time.Hour
		_, _, err := first.vault.CreateClass(w.ctx(), w.admin, request(), class)
		w.must(err)
		begin := first.replica.State().Time()
		w.plan(first, vault.NewKey{Name: "later", ActivateAt: begin.Add(time.Hour), DeactivateAt: begin.Add(3 * time.Hour)})
		w.plan(first, vault.NewKey{Name: "turning", Class: "quick"})
		w.never(3*time.Second, "a pre-active key signs", func() bool { return w.signs(first, "later") })

		pass(time.Hour)
		w.becomes(5*time.Second, "later", 1, fsm.StateActive)
		if !w.signs(first, "later") {
			t.Error("it does not sign after its date")
		}
		pass(2 * time.Hour)
		w.becomes(5*time.Second, "later", 1, fsm.StateDeactivated)

		pass(7 * time.Hour)
		w.becomes(5*time.Second, "turning", 2, fsm.StateActive)
		if !w.signs(first, "turning") || stateOf(first, "turning", 1) != fsm.StateActive {
			t.Error("after a rotation both versions should be active")
		}
		pass(2 * time.Hour)
		w.becomes(5*time.Second, "turning", 1, fsm.StateDeactivated)
		pass(8 * time.Hour)
		w.within(5*time.Second, "processing with version 1 ends", func() bool {
			d := mustKey(first, "turning").Versions[0].Dates
			return d != nil && !d.ProcessingEndedAt.IsZero()
		})

		_, _, err = first.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "later", Action: fsm.ActionDestroy})
		w.must(err)
		w.never(3*time.Second, "it is destroyed before its time", func() bool { return stateOf(first, "later", 1) != fsm.StateDestroyScheduled })
		pass(7 * 24 * time.Hour)
		w.becomes(10*time.Second, "later", 1, fsm.StateDestroyed)
		v := mustKey(first, "later").Versions[0]
		if v.Blob != nil || v.MAC != nil || len(v.Destruction.Receipts) != 3 || v.Destruction.DoneAt.IsZero() {
			t.Errorf("destroyed: %d bytes of blob, %+v", len(v.Blob), v.Destruction)
		}
		want := map[string]int{"key.create": 1, "key.activate": 1, "key.deactivate": 1, "key.destroy": 1, "key.destroying": 1, "key.erased": 3, "key.destroyed": 1, "barrier.done": 2}
		if got := w.actions(first, "later"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the log has %v, want %v", got, want)
		}
		turns := len(mustKey(first, "turning").Versions)
		if got := w.actions(first, "turning"); got["key.rotate"] != turns-1 || got["key.end-processing"] == 0 {
			t.Errorf("%d versions: %v", turns, got)
		}
	})
}

func mustKey(p *process, name fsm.KeyName) fsm.Key {
	k, _ := p.replica.State().Key(name)
	return k
}

func standard(p *process) fsm.Class {
	c, _ := p.replica.State().Class(fsm.ClassStandard)
	c.Description = ""
	return c
}

// TestDatesAcrossLeaders: many keys become due while leaders come and go; each is done once and none is forgotten.
func TestDatesAcrossLeaders(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		const keys = 40
		begin := time.Now()
		for i := range keys {
			w.plan(first, vault.NewKey{
				Name: fsm.KeyName(fmt.Sprintf("k%02d", i)), ActivateAt: begin.Add(8*time.Second + time.Duration(i)*100*time.Millisecond), DeactivateAt: begin.Add(20 * time.Second),
			})
		}
		time.Sleep(time.Until(begin.Add(8 * time.Second)))
		for range 3 { // in the middle of the work
			w.stepDown()
			time.Sleep(900 * time.Millisecond)
		}
		victim := w.leader()
		w.kill(victim.id)
		w.leader()
		w.restart(victim.id)
		w.serving(3)
		for i := range keys {
			name := fsm.KeyName(fmt.Sprintf("k%02d", i))
			w.becomes(30*time.Second, name, 1, fsm.StateDeactivated)
			if got := w.actions(w.leader(), name); got["key.activate"] != 1 || got["key.deactivate"] != 1 {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
}

// stepDown makes whoever leads hand over.
func (w *world) stepDown() {
	ctx, cancel := context.WithTimeout(w.ctx(), 2*time.Second)
	defer cancel()
	for _, p := range w.live() {
		if p.cluster.IsLeader() {
			_ = p.cluster.StepDown(ctx) // it may have lost its office meanwhile
		}
	}
}

// TestARotationWithoutTheLeadersHSM: a sealed leader has another node make the material; when all are sealed it waits until one is not.
func TestARotationWithoutTheLeadersHSM(t *testing.T) {
	inWorld(t, func(w *world) {
		pass, request := w.epochs()
		first := w.unsealed(3)
		class := standard(first)
		class.Name, class.RotateEvery = "quick", time.Hour
		_, _, err := first.vault.CreateClass(w.ctx(), w.admin, request(), class)
		w.must(err)
		w.plan(first, vault.NewKey{Name: "turning", Class: "quick"})
		sealed := w.leader().id
		w.kill(sealed)
		w.leader()
		w.restart(sealed)
		w.serving(3)
		w.within(time.Minute, "the sealed node leads", func() bool {
			if w.node(sealed).cluster.IsLeader() {
				return true
			}
			w.stepDown()
			w.leader()
			return false
		})
		if !w.node(sealed).sealed() {
			t.Fatal("this test is about a sealed leader")
		}
		pass(time.Hour)
		w.becomes(10*time.Second, "turning", 2, fsm.StateActive)

		_, err = w.leader().vault.Seal(w.ctx(), w.admin, request(), "drill")
		w.must(err)
		pass(time.Hour)
		w.never(3*time.Second, "a rotation while every node is sealed", func() bool { return len(mustKey(w.leader(), "turning").Versions) != 2 })
		pass(-2 * time.Hour) // custodians' programs have the bubble's time
	})
}

// TestClocksThatJump: an hour forth and back on the leader and on followers. The leader whose clock is wrong plans and executes no dates and
// goes on with everything else; nothing is done early by the nodes' clock, twice, or never.
func TestClocksThatJump(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := map[fsm.NodeID]*atomic.Int64{"n1": {}, "n2": {}, "n3": {}}
		w.alter = func(p *process, c *vault.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead[p.id].Load())) }
		}
		w.unsealed(3)
		for i, jump := range []time.Duration{time.Hour, -time.Hour} {
			leader := w.leader()
			name := fsm.KeyName(fmt.Sprintf("k%d", i))
			w.plan(leader, vault.NewKey{Name: name, ActivateAt: time.Now().Add(12 * time.Second)})

			ahead[leader.id].Store(int64(jump))
			w.refusesDates(leader)
			time.Sleep(2 * time.Second)
			if stateOf(leader, name, 1) != fsm.StatePreActive {
				t.Errorf("%s was activated by a clock that is %s off", name, jump)
			}
			time.Sleep(12 * time.Second)
			if w.leader().id == leader.id && stateOf(leader, name, 1) != fsm.StatePreActive {
				t.Error("a leader that cannot tell the time carries out dates")
			}
			ahead[leader.id].Store(0)
			w.becomes(30*time.Second, name, 1, fsm.StateActive)

			follower := w.followers()[0]
			ahead[follower.id].Store(int64(jump))
			other := name + "-f"
			w.plan(follower, vault.NewKey{Name: other, ActivateAt: time.Now().Add(10 * time.Second)})
			time.Sleep(9 * time.Second)
			if stateOf(leader, other, 1) != fsm.StatePreActive {
				t.Errorf("%s was activated early by a follower's clock", other)
			}
			w.becomes(30*time.Second, other, 1, fsm.StateActive)
			ahead[follower.id].Store(0)
			for _, n := range []fsm.KeyName{name, other} {
				if got := w.actions(leader, n); got["key.activate"] != 1 {
					t.Errorf("%s: %v", n, got)
				}
			}
			if off := time.Until(leader.replica.State().Time()); off > 10*time.Second {
				t.Errorf("the log's time is %s ahead", off)
			}
		}
	})
}

// refusesDates: what is dated is refused with a reason, what only needs a stamp is not, and the status says what is wrong.
func (w *world) refusesDates(leader *process) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx(), 2*time.Second)
	defer cancel()
	_, _, err := leader.vault.CreateKey(ctx, w.admin, request(), vault.NewKey{
		Name: fsm.KeyName(request()), Algorithm: hsm.Ed25519, ActivateAt: time.Now().Add(time.Hour),
	})
	if !errors.Is(err, vault.ErrClock) {
		w.t.Errorf("a dated write on a leader with a wrong clock: %v", err)
	}
	name := fsm.KeyName(request())
	w.create(leader, name, hsm.Ed25519)
	_, err = w.change(ctx, leader, request(), name, fsm.ActionDeactivate)
	w.must(err)
	if _, err := w.change(ctx, leader, request(), name, fsm.ActionDestroy); !errors.Is(err, vault.ErrClock) {
		w.t.Errorf("a destruction is scheduled by a wrong clock: %v", err)
	}
	st, err := leader.vault.Status(ctx, w.admin)
	w.must(err)
	for _, n := range st.Nodes {
		if (n.ID == leader.id) != (n.Error != "") {
			w.t.Errorf("status of %s: %q", n.ID, n.Error)
		}
	}
}

// TestAClockThatNobodyAnswersFor: the leader's clock jumps while its questions after the time are lost, and its writes are not. Whoever writes
// meanwhile, at once and with others, gets a stamp of the time that it was, and dates are refused.
func TestAClockThatNobodyAnswersFor(t *testing.T) {
	inWorld(t, func(w *world) {
		var ahead atomic.Int64
		var deaf atomic.Bool
		w.alter = func(p *process, c *vault.Config) {
			c.Peers = deafPeers{c.Peers, &deaf}
			if p.id == "n1" {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			}
		}
		leader := w.unsealed(3)
		if leader != w.leader() || leader.id != "n1" {
			t.Fatal("n1 does not lead")
		}
		for _, jump := range []time.Duration{time.Hour, -time.Hour} {
			w.create(leader, fsm.KeyName("before"+jump.String()), hsm.Ed25519) // compared
			deaf.Store(true)
			ahead.Store(int64(jump))
			var writes sync.WaitGroup
			for i := range 8 {
				writes.Go(func() {
					_, _, err := leader.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: fsm.KeyName(fmt.Sprintf("k%d%s", i, jump)), Algorithm: hsm.Ed25519})
					if err != nil {
						t.Error(err)
					}
				})
			}
			_, _, err := leader.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: fsm.KeyName("d" + jump.String()), Algorithm: hsm.Ed25519, ActivateAt: time.Now().Add(time.Minute)})
			if !errors.Is(err, vault.ErrClock) {
				t.Errorf("a dated write: %v", err)
			}
			writes.Wait()
			time.Sleep(20 * time.Second) // it compares again and again, in vain
			w.create(leader, fsm.KeyName("last"+jump.String()), hsm.Ed25519)
			if off := time.Until(leader.replica.State().Time()); off.Abs() > 10*time.Second {
				t.Errorf("after a jump of %s the log's time is %s off", jump, off)
			}
			ahead.Store(0)
			deaf.Store(false)
			w.within(10*time.Second, "dates are planned again", func() bool {
				_, _, err := leader.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: fsm.KeyName(request()), Algorithm: hsm.Ed25519, ActivateAt: time.Now().Add(time.Hour)})
				return err == nil
			})
		}
	})
}

// deafPeers loses questions after the time while deaf is set.
type deafPeers struct {
	vault.Peers
	deaf *atomic.Bool
}

func (d deafPeers) Call(ctx context.Context, to fsm.NodeID, kind string, payload []byte) ([]byte, error) {
	if kind == "clock" && d.deaf.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return d.Peers.Call(ctx, to, kind, payload)
}
