package node

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// moves are keys that nodes use under the longer lease, and that leave it: one with its class, one out of its class. Between two rounds there
// is no such key, because as long as there is one, whatever is tied to no key waits for the longer lease, too.
type moves struct {
	mu   sync.Mutex
	keys []fsm.KeyName // of the latest round, for clients to use; they stay suspended for good
	ripe bool          // they are in use, and about to leave
}

func (m *moves) set(ripe bool, keys ...fsm.KeyName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ripe = ripe; len(keys) > 0 {
		m.keys = keys
	}
}

func (m *moves) about() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ripe
}

// any of the keys; none before the first round.
func (m *moves) any() (fsm.KeyName, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.keys) == 0 {
		return "", false
	}
	return m.keys[mathrand.IntN(len(m.keys))], true
}

func (c *campaign) changeClasses() {
	for round := 0; c.pause(between(2*time.Second, 20*time.Second)) && c.moveOut(round); round++ {
	}
}

// moveOut has new keys used, takes them out of the longer lease in various ways at about one time, and suspends them before or after. False
// if the campaign ended before.
func (c *campaign) moveOut(round int) bool {
	class, _ := fsm.New().State().Class(fsm.ClassLow)
	class.Name = fmt.Sprintf("edge-%d", round)
	made := c.order("create class "+class.Name, func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		_, _, err := v.CreateClass(ctx, c.w.admin, id, class)
		return err
	})
	a, b := fsm.KeyName(fmt.Sprintf("edge-%d", round)), fsm.KeyName(fmt.Sprintf("low-%d", round))
	if !made || !c.createIn(class.Name, a) || !c.createIn(fsm.ClassLow, b) {
		return false
	}
	c.moves.set(false, a, b)
	if !c.pause(between(time.Second, 5*time.Second)) { // nodes ask for the longer lease
		return false
	}
	c.moves.set(true)
	for range 400 { // an order means most to a node that does not apply it; without trouble it is given some time all the same
		if c.stunned.Load() || !c.pause(50*time.Millisecond) {
			break
		}
	}
	c.moves.set(false)
	stricter := []fsm.LeaseMode{fsm.LeaseLeased, fsm.LeaseStrict}[mathrand.IntN(2)]
	var all sync.WaitGroup
	for _, f := range []func() bool{
		func() bool { return c.raiseClass(class, stricter) },
		func() bool { return c.pause(between(0, 4*time.Second)) && c.endKey(a) },
		func() bool {
			if mathrand.IntN(3) == 0 {
				return c.endKey(b, orderAvailable) && c.setClass(b)
			}
			return c.pause(between(0, time.Second)) && c.setClass(b) && c.endKey(b)
		},
	} {
		all.Go(func() { f() })
	}
	all.Wait()
	return c.ctx.Err() == nil
}

func (c *campaign) createIn(class string, name fsm.KeyName) bool {
	return c.order("create "+string(name), func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		_, _, err := v.CreateKey(ctx, c.w.admin, id, vault.NewKey{Name: name, Class: class, Algorithm: hsm.Ed25519})
		return err
	})
}

func (c *campaign) raiseClass(class fsm.Class, to fsm.LeaseMode) bool {
	class.Lease, class.LeaseDuration = to, 0
	return c.order("raise class "+class.Name, func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		_, _, err := v.UpdateClass(ctx, c.w.admin, id, class, 0)
		return err
	}) && c.met.add(orderRaised)
}

func (c *campaign) setClass(name fsm.KeyName) bool {
	class := []string{fsm.ClassStandard, "careful"}[mathrand.IntN(2)]
	return c.order("set class of "+string(name), func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		_, _, err := v.SetKeyClass(ctx, c.w.admin, id, name, class, "campaign")
		return err
	}) && c.met.add(orderMoved)
}

// endKey suspends a key for good.
func (c *campaign) endKey(name fsm.KeyName, what ...string) bool {
	done := c.order("end "+string(name), func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		_, _, err := v.ChangeKey(ctx, c.w.admin, id, vault.Change{Name: name, Action: fsm.ActionSuspend, Reason: "campaign"})
		return err
	})
	if done {
		c.o.acknowledged("key/" + string(name))
		c.met.add(what...)
	}
	return done
}

// takeAndGive takes something away, and gives it back after a while.
func (c *campaign) takeAndGive(subject, what string, take, give func(context.Context, *vault.Vault, fsm.RequestID) error) {
	for c.pause(between(0, 4*time.Second)) && c.order(what, take) {
		c.o.acknowledged(subject)
		c.met.add(what)
		if !c.pause(between(0, 4*time.Second)) {
			return
		}
		c.o.lifting(subject)
		if !c.order("the end of: "+what, give) {
			return
		}
	}
}

const (
	usersSubject  = "users/" + string(userKey)
	budgetSubject = "budget/" + string(budgetKey)
)

// dropAndWelcome takes the user off the key's list, whatever certificate he has.
func (c *campaign) dropAndWelcome() {
	list := func(users string) func(context.Context, *vault.Vault, fsm.RequestID) error {
		return func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
			_, _, err := v.UpdateKey(ctx, c.w.admin, id, fsm.UpdateKey{Name: userKey, SetLabels: []fsm.Label{{Name: "users", Value: users}}})
			return err
		}
	}
	c.takeAndGive(usersSubject, orderDropped, list("mallory"), list("mallory,"+user))
}

// spendAndGrant lowers a budget to less than what is spent, so that nothing is left of it.
func (c *campaign) spendAndGrant() {
	limit := func(n uint64) func(context.Context, *vault.Vault, fsm.RequestID) error {
		return func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
			_, _, err := v.SetBudget(ctx, c.w.admin, id, budgetKey, operations(n, 0))
			return err
		}
	}
	c.takeAndGive(budgetSubject, orderLowered, limit(1), limit(1_000_000))
}

// orders of which a campaign of full length must have had each acknowledged.
const (
	orderSeal      = "seal"
	orderDismissed = "certificate revoked"
	signedByFirst  = "signed by the first of twins" // no order, and must be met as they must
	orderDrained   = "node drained"
	orderRemoved   = "node removed"
	orderDropped   = "user removed"
	orderLowered   = "budget lowered"
	orderRaised    = "class raised"
	orderMoved     = "class of a key changed"
	orderAvailable = "key of an available class suspended"
)

var orders = []string{orderSeal, orderDismissed, orderDrained, orderRemoved, orderDropped, orderLowered, orderRaised, orderMoved, orderAvailable, signedByFirst}

// tally is how often what took part, by name.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

// add returns true, so that it can follow what must have succeeded.
func (t *tally) add(what ...string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	for _, w := range what {
		t.n[w]++
	}
	return true
}

func (t *tally) missing(all ...string) (none []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, what := range all {
		if t.n[what] == 0 {
			none = append(none, what)
		}
	}
	return none
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprint(t.n)
}
