package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// clockPeriod is how often the clocks of the machine are compared.
const clockPeriod = 100 * time.Millisecond

// watchClocks compares this machine's clocks with each other. Other nodes' clocks come with renewals and their answers.
func (n *Node) watchClocks(ctx context.Context) error {
	if n.cfg.BootClock == nil {
		<-ctx.Done()
		return nil
	}
	watch, wait := lease.NewWatch(n.cfg.Lease), n.cfg.Lease.W(n.cfg.Lease.D)
	for quiet := wait; pause(ctx, clockPeriod); quiet += clockPeriod { // counted, because no clock is believed here
		err := watch.Look(lease.Readings{
			Monotonic: n.cfg.Clock.Now(), Boot: n.cfg.BootClock.Now(), Wall: time.Duration(time.Now().UnixNano()),
		})
		if err == nil {
			continue
		}
		n.distrustClock(err)
		if quiet < wait { // a leader whose clocks go on disagreeing would wait for ever: another one can acknowledge
			n.handOver(ctx)
		}
		quiet = 0
	}
	return nil
}

// hear compares a process's clock with this one's, and notes what it says of others'. Whoever comes next finds the consequences drawn.
func (n *Node) hear(from lease.Reading, others []lease.Reading) error {
	n.hearing.Lock()
	defer n.hearing.Unlock()
	n.peers.Told(others)
	err := n.peers.Heard(from)
	if err != nil {
		n.distrustClock(fmt.Errorf("process %s: %w", from.Boot, err))
	}
	return err
}

// say is what this node says of clocks.
func (n *Node) say() (own lease.Reading, others []lease.Reading) {
	n.hearing.Lock()
	defer n.hearing.Unlock()
	return n.peers.Own(), n.peers.Others()
}

// distrustClock gives up what rests on the clock: this node's leases, and as leader what it knows of others'. Both come back with
// new messages; as leader it acknowledges nothing before all that it may have granted has run out. One process whose clock jumps
// time and again costs no more than the round trip to a new lease, else it would keep a leader from acknowledging anything.
func (n *Node) distrustClock(err error) {
	n.log.Warn("the clock cannot be relied upon; leases are given up and asked for again", "err", err)
	n.holder.Drop()
	if table := n.tenure.Load(); table != nil && !errors.Is(err, lease.ErrOneClock) {
		table.Distrust()
	}
	poke(n.renewNow)
}
