package node

import (
	"context"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
)

// membershipFaults take one node at a time out of service, and back or out of the cluster and in again. Orders run beside the other faults.
type membershipFaults struct {
	out     fsm.NodeID  // not of the serving set, or about not to be
	removal bool        // its removal was ordered
	gone    bool        // and acknowledged
	busy    atomic.Bool // an order is under way; the fields above are the order's until it is not
	rounds  atomic.Uint64
}

// leaves: whoever is out is removed in this round. That is every other one, so that no campaign does without it.
func (m *membershipFaults) leaves() bool { return m.rounds.Load()%2 == 0 }

func nodeSubject(id fsm.NodeID) string { return "node/" + string(id) }

// reorganise takes the next step.
func (c *campaign) reorganise(victim fsm.NodeID) {
	m := &c.members
	switch {
	case m.busy.Load():
	case m.gone:
		c.comeAgain(m.out)
	case m.out == "":
		if m.out = victim; m.leaves() && victim == "n1" { // that is where custodians look the roster up
			m.out = "n2"
		}
		c.reorder(vault.NodeDrain)
	case m.leaves():
		m.removal = true
		c.reorder(vault.NodeRemove)
	default:
		c.o.lifting(nodeSubject(m.out))
		c.reorder(vault.NodeUndrain)
	}
}

func (c *campaign) reorder(a vault.NodeAction) {
	m := &c.members
	m.busy.Store(true)
	c.all.Go(func() {
		defer m.busy.Store(false)
		if !c.order(string(a)+" "+string(m.out), func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
			_, err := v.ChangeNode(ctx, c.w.admin, id, vault.NodeChange{Node: m.out, Action: a})
			return err
		}) {
			return
		}
		switch a {
		case vault.NodeDrain:
			c.o.acknowledged(nodeSubject(m.out))
			c.met.add(orderDrained)
		case vault.NodeRemove:
			m.gone = true
			c.met.add(orderRemoved)
		case vault.NodeUndrain:
			m.out = ""
			m.rounds.Add(1)
		}
	})
}

// comeAgain makes the removed node a member again, with its HSM and without anything else. If the campaign ends before, it stays away.
func (c *campaign) comeAgain(id fsm.NodeID) {
	c.w.stop(id)
	c.w.must(c.w.wipe(id))
	var invitation vault.JoinToken
	invited := c.insist(func(ctx context.Context, p *process) error {
		return p.use(func(v *vault.Vault) (err error) {
			invitation, _, _, err = v.CreateJoinToken(ctx, c.w.admin, request(), id, 0)
			return err
		})
	})
	if !invited {
		return
	}
	token := c.w.reopenToken(id)
	var membership vault.Membership
	c.o.lifting(nodeSubject(id))
	admitted := c.insist(func(_ context.Context, p *process) (err error) {
		membership, err = c.w.knock(id, token, invitation, p)
		return err
	})
	c.w.must(token.Close())
	if admitted {
		c.w.must(saveMembership(c.w.config(id).DataDir, membership))
		c.w.start(id)
		c.members.out, c.members.removal, c.members.gone = "", false, false
		c.members.rounds.Add(1)
	}
}

// insist repeats a call through any live node until one answers; false if the campaign ends before.
func (c *campaign) insist(call func(context.Context, *process) error) bool {
	for {
		live := c.w.live()
		ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
		err := call(ctx, live[mathrand.IntN(len(live))])
		cancel()
		if err == nil {
			return true
		}
		if !c.pause(between(0, 500*time.Millisecond)) {
			return false
		}
	}
}

// endMembership: who was ordered to leave may never hear how the campaign ended.
func (c *campaign) endMembership() {
	if c.members.removal {
		c.w.stop(c.members.out)
	}
}
