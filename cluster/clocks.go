package cluster

import (
	"context"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// clockPeriod is how often the clocks of the machine are compared.
const clockPeriod = 100 * time.Millisecond

// watchClocks compares this machine's clocks with each other. Other nodes' clocks come with renewals and grants.
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

// distrustClock gives up what rests on the clock: this node's leases, and as leader what it knows of others'. Both come back with
// new messages; as leader it acknowledges nothing before all that it may have granted has run out.
func (n *Node) distrustClock(err error) {
	n.log.Warn("the clock cannot be relied upon; leases are given up and asked for again", "err", err)
	n.holder.Drop()
	if table := n.tenure.Load(); table != nil {
		table.Distrust()
	}
	poke(n.renewNow)
}
