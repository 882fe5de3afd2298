package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
)

const (
	// leaseWait is W(D): how long after a node was last heard a leader knows that it signs nothing more.
	leaseWait = 3700 * time.Millisecond
	// recoverTime bounds how long the cluster may need to serve on all nodes after a fault has ended.
	recoverTime = time.Minute
	// afterwards is how long signatures are watched after an acknowledgement while the fault lasts, and again after it ended.
	afterwards = 400 * time.Millisecond
)

// faults does harm to the cluster, one fault at a time, each while the drill key is being suspended.
type faults struct {
	c    *cluster
	h    *history
	l    *load
	api  *client.Client            // of all nodes
	past map[string]*client.Client // of all but the named one: what is measured is not how long a client waits for a dead node
	dice *rand.Rand
	deck []fault
}

// fault is one kind of harm. Its name is what the drill's latency is filed under.
type fault struct {
	name  string
	often int // in one deck
	run   func(*faults, context.Context, string) error
}

// cutName is the fault whose latency has a target of its own.
const cutName = "a node cut"

// deck is what is shuffled and played, again and again.
var deck = []fault{
	{cutName, 3, onFollower((*faults).cutOff)},
	{"leader killed", 3, onLeader((*faults).kill)},
	{"a node killed", 2, onFollower((*faults).kill)},
	{"a node paused", 1, onFollower((*faults).pause)},
	{"a node paused at work", 2, onFollower((*faults).pauseAtWork)},
	{"leader paused", 1, onLeader((*faults).pause)},
	{"leader cut", 1, onLeader((*faults).cutOff)},
	{"one way lost", 2, (*faults).oneWay},
	{"slow links", 1, (*faults).slowLinks},
	{"connections reset", 1, (*faults).resets},
	{"leader restarted in order", 1, onLeader((*faults).restart)},
	{"a node drained", 1, onFollower((*faults).drain)},
	{"leader drained", 1, onLeader((*faults).drain)},
	{"a node drained while cut", 1, onFollower((*faults).drainCutOff)},
	{"a node removed and come again", 1, (*faults).remove},
}

// containerDeck is what is done to containers: what the proxies cannot, and the engine can.
var containerDeck = []fault{
	{cutName, 2, onFollower((*faults).cutOff)},
	{"leader cut", 1, onLeader((*faults).cutOff)},
	{"a node killed", 1, onFollower((*faults).kill)},
	{"leader killed", 1, onLeader((*faults).kill)},
	{"a node paused", 1, onFollower((*faults).pause)},
	{"a node paused at work", 1, onFollower((*faults).pauseAtWork)},
	{"leader paused", 1, onLeader((*faults).pause)},
	{"a node drained while cut", 1, onFollower((*faults).drainCutOff)},
}

func onLeader(do func(*faults, context.Context, string, *node) error) func(*faults, context.Context, string) error {
	return func(f *faults, ctx context.Context, name string) error {
		leader, err := f.c.leader(ctx)
		if err != nil {
			return err
		}
		return do(f, ctx, name, leader)
	}
}

func onFollower(do func(*faults, context.Context, string, *node) error) func(*faults, context.Context, string) error {
	return func(f *faults, ctx context.Context, name string) error {
		leader, err := f.c.leader(ctx)
		if err != nil {
			return err
		}
		n := leader
		for n == leader {
			n = f.anyNode()
		}
		return do(f, ctx, name, n)
	}
}

func (f *faults) anyNode() *node { return f.c.nodes[f.dice.IntN(len(f.c.nodes))] }

// campaign plays shuffled decks until the time is over and enough has happened, whichever comes last.
func (f *faults) campaign(ctx context.Context, length time.Duration, least amount) error {
	var hand []fault
	for end, done := time.Now().Add(length), 0; ; done++ {
		if time.Now().After(end) {
			if on, err := f.goesOn(least, end); !on {
				return err
			}
		}
		if len(hand) == 0 {
			hand = f.shuffled()
		}
		next := hand[0]
		hand = hand[1:]
		if err := f.play(ctx, next); err != nil {
			return fmt.Errorf("%s (fault %d): %w", next.name, done+1, err)
		}
		if !pause(ctx, 200*time.Millisecond+upTo(f.dice, 300*time.Millisecond)) {
			return ctx.Err()
		}
	}
}

func (f *faults) play(ctx context.Context, one fault) error {
	start := f.h.now()
	f.h.note(func(h *history) { h.starts = append(h.starts, start) })
	err := one.run(f, ctx, one.name)
	err = errors.Join(err, f.c.heal())
	f.h.note(func(h *history) { h.faults[one.name]++ })
	return errors.Join(err, f.c.serving(ctx, recoverTime))
}

func (f *faults) shuffled() []fault {
	var all []fault
	for _, one := range f.deck {
		for range one.often {
			all = append(all, one)
		}
	}
	f.dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// suspension is the drill's, on its way.
type suspension struct {
	done chan struct{}
	lift func() error
	err  error
}

// suspend begins to suspend the drill key, past the node that is being harmed.
func (f *faults) suspend(during string, past *node) *suspension {
	return f.suspendKey(drill, during, past)
}

func (f *faults) suspendKey(key, during string, past *node) *suspension {
	s := &suspension{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_, s.lift, s.err = f.l.suspend(f.past[past.id], key, during)
	}()
	return s
}

// acknowledged waits for the suspension, and a moment longer in which a node that signs all the same would be seen.
func (s *suspension) acknowledged(ctx context.Context) error {
	<-s.done
	pause(ctx, afterwards)
	return s.err
}

// over waits for the suspension and lifts it some time after the fault has ended.
func (s *suspension) over(ctx context.Context) error {
	if err := s.acknowledged(ctx); err != nil {
		return err
	}
	return s.lift()
}

// cutOff takes a node off the network in both directions until the suspension is acknowledged, and a little longer.
func (f *faults) cutOff(ctx context.Context, name string, n *node) error {
	if err := f.c.isolate(n); err != nil {
		return err
	}
	s := f.suspend(name, n)
	err := errors.Join(s.acknowledged(ctx), f.c.heal())
	return errors.Join(err, s.over(ctx))
}

// oneWay loses what a node sends, or what it is sent, or all from one node to one other.
func (f *faults) oneWay(ctx context.Context, name string) error {
	n, kind := f.anyNode(), f.dice.IntN(3)
	for _, other := range f.c.nodes {
		switch {
		case other == n:
		case kind == 0:
			f.c.net.cut(route{n.id, other.id})
		case kind == 1:
			f.c.net.cut(route{other.id, n.id})
		default:
			f.c.net.cut(route{n.id, other.id})
			kind = 3 // one other is enough
		}
		if kind == 3 {
			break
		}
	}
	s := f.suspend(name, n)
	pause(ctx, time.Second+upTo(f.dice, 4*time.Second))
	f.c.net.heal()
	return s.over(ctx)
}

// pause stops a node's process, for a moment or until after its lease has run out.
func (f *faults) pause(ctx context.Context, name string, n *node) error {
	return f.whileStopped(ctx, n, func() (func() error, error) {
		s := f.suspend(name, n)
		pause(ctx, 100*time.Millisecond+upTo(f.dice, 2*leaseWait))
		return func() error { return s.over(ctx) }, nil
	})
}

// pauseAtWork stops a node while it signs with the slow key, and lets it go on when the key's suspension is acknowledged.
func (f *faults) pauseAtWork(ctx context.Context, name string, n *node) error {
	enough, wait := f.l.burst(n)
	defer wait()
	defer enough()
	pause(ctx, 100*time.Millisecond+upTo(f.dice, 100*time.Millisecond))
	return f.whileStopped(ctx, n, func() (func() error, error) {
		enough()
		fast, other := f.suspend(name, n), f.suspendKey(slow, name, n)
		err := errors.Join(fast.acknowledged(ctx), other.acknowledged(ctx))
		return func() error {
			wait() // what it was at must be answered before the key is resumed, or nobody could judge it
			return errors.Join(fast.over(ctx), other.over(ctx))
		}, err
	})
}

// whileStopped stops a node's process, does something, lets it go on, and does the rest.
func (f *faults) whileStopped(ctx context.Context, n *node, do func() (rest func() error, err error)) error {
	if err := n.freeze(ctx); err != nil {
		return err
	}
	stopped := span{node: n.id, from: f.h.now()}
	rest, err := do()
	stopped.to = f.h.now()
	f.h.note(func(h *history) { h.pauses = append(h.pauses, stopped) })
	if err := errors.Join(err, n.thaw()); err != nil {
		return err
	}
	return rest()
}

// kill ends a node's process at once; it comes back sealed, and custodians unseal it.
func (f *faults) kill(ctx context.Context, name string, n *node) error {
	leader, err := f.c.leader(ctx)
	if err != nil {
		return err
	}
	k := kill{node: n.id, leader: n == leader, at: f.h.now()}
	if err := n.end(true); err != nil {
		return err
	}
	k.gone = f.h.now()
	s := f.suspend(name, n)
	// Sometimes it is back before anybody missed it, sometimes long after.
	pause(ctx, upTo(f.dice, leaseWait))
	if err := f.revive(ctx, n); err != nil {
		return err
	}
	k.back = f.h.now()
	f.h.note(func(h *history) { h.kills = append(h.kills, k) })
	return s.over(ctx)
}

func (f *faults) restart(ctx context.Context, name string, n *node) error {
	s := f.suspend(name, n)
	if err := n.end(false); err != nil {
		return err
	}
	return errors.Join(f.revive(ctx, n), s.over(ctx))
}

func (f *faults) revive(ctx context.Context, n *node) error {
	if err := n.start(); err != nil {
		return err
	}
	return f.back(ctx, n)
}

// back waits until a node that was started serves, and has custodians unseal it.
func (f *faults) back(ctx context.Context, n *node) error {
	return poll(ctx, recoverTime, n.id+" is back", func(ctx context.Context) error {
		// A share that came too early is asked for again: the node may not have been up.
		return errors.Join(f.c.unseal(ctx), f.c.serving(ctx, 3*time.Second))
	})
}

// slowLinks delays everything that a node sends and is sent.
func (f *faults) slowLinks(ctx context.Context, name string) error {
	n := f.anyNode()
	for _, other := range f.c.nodes {
		f.c.net.slow(route{n.id, other.id}, 10*time.Millisecond+upTo(f.dice, 150*time.Millisecond))
		f.c.net.slow(route{other.id, n.id}, 10*time.Millisecond+upTo(f.dice, 150*time.Millisecond))
	}
	s := f.suspend(name, n)
	pause(ctx, time.Second+upTo(f.dice, time.Second))
	f.c.net.heal()
	return s.over(ctx)
}

// resets breaks every connection of a node.
func (f *faults) resets(ctx context.Context, name string) error {
	n := f.anyNode()
	s := f.suspend(name, n)
	for _, other := range f.c.nodes {
		f.c.net.reset(route{n.id, other.id})
		f.c.net.reset(route{other.id, n.id})
	}
	return s.over(ctx)
}

// calm measures the suspension of the drill key without a fault.
func (f *faults) calm(ctx context.Context, rounds int, note func(*history, time.Duration)) error {
	for range rounds {
		took, lift, err := f.l.suspend(f.api, drill, "healthy")
		if err == nil {
			err = lift()
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		f.h.note(func(h *history) { note(h, took) })
	}
	return nil
}
