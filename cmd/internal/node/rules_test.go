package node

import (
	"context"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// rule is one that the promise rests on: how to switch it off alone, and the trouble in which that shows. The campaign may or may
// not come upon that trouble; here it is made.
type rule struct {
	off     func(*trouble)            // before the nodes start
	trouble func(*trouble)            // before the restriction is ordered
	during  func(*trouble)            // once it is acknowledged
	judge   func(o *oracle) []release // nil: what was released
	fences  bool                      // whether there are any
}

// trouble is three nodes, a key, and a follower that something happens to.
type trouble struct {
	*world
	o      *oracle
	victim fsm.NodeID
	work   chan struct{} // closed: the tokens finish what they are at
	left   chan struct{} // closed: the operation under way has ended
}

// use tries to sign on the victim, with a deadline, because a node that must ask first may wait for ever here.
func (t *trouble) use() {
	ctx, op := t.o.begin(t.ctx(), string(t.victim), "key/pay")
	ctx, cancel := context.WithTimeout(ctx, 2*waitTime)
	defer cancel()
	if _, err := t.node(t.victim).vault.Sign(ctx, t.admin, "pay", message(1)); err == nil {
		op.finish()
	}
}

var rules = map[string]rule{
	"a lease ends": {
		off:     (*trouble).endlessLeases,
		trouble: func(t *trouble) { t.isolate(t.victim) },
		during:  (*trouble).use,
	},
	"an acknowledgement waits for every node": {
		off: func(t *trouble) {
			t.alterAlso(func(_ *process, vc *vault.Config) { vc.Proposer = impatient{vc.Proposer} })
		},
		trouble: func(t *trouble) { t.isolate(t.victim) },
		during:  (*trouble).use,
	},
	"what counts is the state machine's index, not raft's": {
		off: func(t *trouble) {
			t.tune = func(cfg *cluster.Config) {
				unfenced(cfg)
				cfg.Applied = cfg.FSM.(gatedFSM).gate.seen.Load
			}
		},
		trouble: func(t *trouble) { t.gates[t.victim].close() },
		during:  (*trouble).use,
	},
	"a node keeps from what it has said to keep from": {
		off: func(t *trouble) {
			t.tune = func(cfg *cluster.Config) { cfg.Fence = func(string, uint64) error { return nil } }
		},
		trouble: func(t *trouble) { t.gates[t.victim].close() },
		during:  (*trouble).use,
		fences:  true,
	},
	"a result is checked again after the HSM": {
		off: func(*trouble) {}, // nodes always check; the oracle knows what they would have released
		trouble: func(t *trouble) {
			t.work, t.left = make(chan struct{}), make(chan struct{})
			go func() {
				defer close(t.left)
				t.use()
			}()
			time.Sleep(10 * time.Millisecond) // of the bubble's clock: it is in the HSM
		},
		during: func(t *trouble) {
			close(t.work)
			<-t.left
		},
		judge: (*oracle).draftViolations,
	},
}

// TestEveryRuleIsNeeded: with all rules nothing is released after the acknowledgement; with one switched off the oracle sees a
// violation, in the same trouble.
func TestEveryRuleIsNeeded(t *testing.T) {
	for name, r := range rules {
		t.Run(name, func(t *testing.T) {
			judge := r.judge
			if judge == nil {
				judge = (*oracle).violations
			}
			if found := r.run(t, true); len(found.violations()) > 0 {
				t.Error("violated with all rules in force")
			}
			if found := r.run(t, false); len(judge(found)) == 0 {
				t.Error("not seen")
			}
		})
	}
}

func (r rule) run(t *testing.T, inForce bool) *oracle {
	o := newOracle()
	inWorld(t, func(w *world) {
		tr := &trouble{world: w, o: o}
		w.alter = func(_ *process, vc *vault.Config) { vc.Keys = watchedKeys{vc.Keys, tr.wait} }
		if !r.fences {
			w.tune = unfenced
		}
		if !inForce {
			r.off(tr)
		}
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		time.Sleep(2 * waitTime) // of the bubble's clock: long after the election
		tr.victim = w.followers()[0].id
		defer w.gates[tr.victim].reopen()
		r.trouble(tr)
		_, err := w.change(w.ctx(), w.leader(), request(), "pay", fsm.ActionSuspend)
		w.must(err)
		o.acknowledged("key/pay")
		r.during(tr)
		w.heal()
	})
	return o
}

// unfenced nodes keep from nothing alone: a fence would be up before a node has applied anything, and hide what is looked for here.
func unfenced(cfg *cluster.Config) { cfg.Fence = nil }

// wait holds up the HSM's work while there is something to wait for.
func (t *trouble) wait() {
	if t.work != nil {
		<-t.work
	}
}

func (t *trouble) alterAlso(also func(*process, *vault.Config)) {
	alter := t.alter
	t.alter = func(p *process, vc *vault.Config) {
		alter(p, vc)
		also(p, vc)
	}
}

// endlessLeases gives every node a lease whose clock stands.
func (t *trouble) endlessLeases() {
	holder := lease.NewHolder("n1", "boot", stopped{})
	table := lease.NewTable(lease.Default(), stopped{}, 1, 0, []string{"n1"})
	none := func() uint64 { return 0 }
	for range 2 { // the first grant is only the evidence for the second
		grant, err := table.Renew(holder.Renew(func() uint64 { return 1 }, none), none)
		t.must(err)
		_ = holder.Install(grant, none) // the first is refused as empty
	}
	if !holder.Lease().Valid() {
		t.t.Fatal("this lease should be valid")
	}
	t.alterAlso(func(_ *process, vc *vault.Config) { vc.Lease = holder.Lease })
}

type stopped struct{}

func (stopped) Now() time.Duration { return 0 }

// impatient acknowledges a restriction as soon as it is committed.
type impatient struct{ vault.Proposer }

func (impatient) AwaitRestriction(context.Context, uint64) ([]fsm.NodeID, error) { return nil, nil }
