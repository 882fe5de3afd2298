package fsm

import (
	"fmt"
	"slices"
	"time"
)

// reserveUse is idempotent by its sequence number.
func (x *execution) reserveUse(c ReserveUse) error {
	n, err := x.userOf(c.Node, c.Boot)
	if err != nil {
		return err
	}
	k, err := x.usedKey(c.Key, c.Version)
	if err != nil {
		return err
	}
	for _, a := range []Amount{c.Used, c.Need, c.Waiting, c.Want} {
		if !a.within(MaxUses) {
			return invalid("an amount of %d operations and %d bytes is beyond any budget", a.Operations, a.Bytes)
		}
	}
	u := x.useOf(k)
	if x.standings(k, &u, c.Version)[0].limit.None() {
		return nil // the node has not heard of it yet, and asks no more when it has
	}
	a, done := x.settle(u.account(c.Version), n, k, c)
	u = x.charged(k, u, c.Version, a)
	if !done {
		if a, err = x.reserve(a, n, k, x.standings(k, &u, c.Version), c); err != nil {
			return err
		}
		u = u.withAccount(c.Version, a)
	}
	if c.Version != 0 && c.Used != (Amount{}) {
		u = u.withVersion(c.Version, func(v *VersionUse) { v.LastUsed = toMillis(x.now) })
	}
	x.beginLedger()
	x.setUse(k.ID, u)
	return nil
}

// settle takes over what the process says of the block it has, and takes for spent what its node's earlier processes had. Done: there
// is nothing to reserve, because the entry is a repetition, or because the process may still be spending a block that has ended.
func (x *execution) settle(a UseAccount, n *Node, k *Key, c ReserveUse) (_ UseAccount, done bool) {
	for i := len(a.Blocks) - 1; i >= 0; i-- {
		if b := a.Blocks[i]; b.Node == n.ID && b.Boot != n.UnsealedBoot {
			a = a.lost(i)
		}
	}
	i := a.find(n.ID, c.Boot)
	if i < 0 {
		return a, false
	}
	b := a.Blocks[i]
	if b.Seq >= c.Seq {
		return a, true
	}
	if b.Opened == c.Opened {
		a = a.settled(i, c.Used)
		if c.Final {
			return a.closed(i), false
		}
	}
	return a, !x.usable(k, c.Version, b)
}

// reserve grants what all limits allow.
func (x *execution) reserve(a UseAccount, n *Node, k *Key, limits []standing, c ReserveUse) (UseAccount, error) {
	i := a.find(n.ID, c.Boot)
	b := UseBlock{Node: n.ID, Boot: n.UnsealedBoot, Opened: x.index}
	if i >= 0 {
		b = a.Blocks[i]
	}
	held, nodes := UseAccount{Blocks: a.Blocks}.Total(), uint64(max(1, x.nodes.Len()))
	var more Amount
	for i, l := range limits {
		grant, fits := l.grant(held, b.Left(), nodes, c)
		switch {
		case !fits:
			return a, x.exhausted(k, l.limit, c)
		case i == 0:
			more = grant
		default:
			more = more.capped(grant, l.limit.Amount)
		}
	}
	if more == (Amount{}) && c.Need == (Amount{}) {
		return a, refuse(CodeBudget, "what remains of the budget of key %s is too little for a reserve", k.Name)
	}
	b.Reserved, b.Seq = b.Reserved.plus(more), c.Seq
	if i < 0 {
		a.Blocks = append(slices.Clip(a.Blocks), b)
		return a, nil
	}
	return a.with(i, b), nil
}

// grant is what one limit allows a process beside what it has in hand, if that and held, which is in all hands, are to be spent of it.
func (l standing) grant(held, own Amount, nodes uint64, c ReserveUse) (Amount, bool) {
	total := l.spent.plus(held)
	operations, fits := asking{
		limit: l.limit.Operations, total: total.Operations, own: own.Operations, nodes: nodes, exact: l.limit.Exact,
		need: c.Need.Operations, waits: max(c.Need.Operations, c.Waiting.Operations), want: c.Want.Operations,
	}.grant()
	bytes, fitToo := asking{
		limit: l.limit.Bytes, total: total.Bytes, own: own.Bytes, nodes: nodes, exact: l.limit.Exact,
		need: c.Need.Bytes, waits: max(c.Need.Bytes, c.Waiting.Bytes), want: c.Want.Bytes,
	}.grant()
	return Amount{operations, bytes}, fits && fitToo
}

// exhausted says what is used up and when there is more.
func (x *execution) exhausted(k *Key, limit UseLimit, c ReserveUse) error {
	if c.Version != 0 {
		return refuse(CodeBudget, "key %s version %d has made as many encryptions as AES-GCM allows under one key with random nonces "+
			"(2^32, NIST SP 800-38D §8.3): rotate it (conclave key rotate)", k.Name, c.Version)
	}
	renewal := "raise it (conclave key budget)"
	if limit.Per != 0 {
		renewal = "it is renewed at " + stamp(limit.renewal(x.now)) + ", or " + renewal
	}
	return refuse(CodeBudget, "the use budget of key %s (%s) does not allow %s more: %s", k.Name, limit, c.Need.needs(), renewal)
}

// renewal is the end of the window that t lies in.
func (l UseLimit) renewal(t time.Time) time.Time { return fromMillis(l.window(t)).Add(l.Per) }

func (a Amount) needs() string {
	if a.Bytes == 0 {
		return fmt.Sprintf("%d operations", a.Operations)
	}
	return fmt.Sprintf("%d operations of %d bytes", a.Operations, a.Bytes)
}
