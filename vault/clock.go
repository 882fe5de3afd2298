package vault

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

const (
	// clockTolerance is how far a leader's clock may be from the median of the nodes' before it stamps by the median, and plans and carries
	// out no dates.
	clockTolerance = 5 * time.Second
	// clockPeriod is how often a leader compares.
	clockPeriod = 5 * time.Second
	// clockWait bounds a comparison: a new leader's first write waits for it, and a dead node would make it wait for ever. It covers
	// a round trip between far datacenters.
	clockWait = 300 * time.Millisecond
	// clockGrace is how much longer it waits for the others when a majority has answered: a leader is new most often because a node
	// died, and nobody should wait for that one.
	clockGrace = 20 * time.Millisecond
)

// stamp is the time that this leader puts into an entry. Log time never goes back, so one stamp of a clock that is hours ahead would
// make every later request look expired; the median of the nodes' clocks is what one wrong clock cannot move.
func (v *Vault) stamp(ctx context.Context) time.Time {
	now, c := v.tellTime(ctx)
	if c.off.Abs() > clockTolerance {
		return now.Add(c.off)
	}
	return now
}

// comparison is what came of comparing the clocks, and when it was by the wall clock and by the monotonic one.
type comparison struct {
	wall, monotonic time.Time
	off             time.Duration // how far the median of the nodes' clocks is ahead of this one's
	sure            bool          // a majority answered
}

// step is how far the wall clock, which says now, was set since the comparison.
func (c *comparison) step(now time.Time) time.Duration {
	return now.Round(0).Sub(c.wall.Round(0)) - time.Since(c.monotonic)
}

func (c *comparison) stepped(now time.Time) bool {
	return c == nil || c.step(now).Abs() > clockTolerance
}

// continued is what is known at a later time of the wall clock without asking anybody.
func (c *comparison) continued(now time.Time) *comparison {
	next := &comparison{wall: now, monotonic: time.Now()}
	if c != nil {
		next.off = c.off - c.step(now)
	}
	return next
}

// tellTime reads the wall clock, with a comparison that it has not been set since.
func (v *Vault) tellTime(ctx context.Context) (time.Time, comparison) {
	now, c := v.cfg.Now(), v.compared.Load()
	if c.stepped(now) {
		c = v.compareClock(ctx, func(last *comparison) bool { return last.stepped(v.cfg.Now()) })
		now = v.cfg.Now()
	}
	return now, *c
}

// compareClock asks every node for its wall clock, unless the latest comparison needs none any more, and keeps the median's distance from
// this one's. Of two middle ones the earlier counts: a stamp that is too early does no harm. One at a time: nobody may stamp by the former
// comparison while it is under way. Where no majority answers, nobody has a say: what was known goes on, with what the wall clock was
// set by since, and nothing is sure.
func (v *Vault) compareClock(ctx context.Context, needed func(*comparison) bool) *comparison {
	if v.comparing.take(ctx) != nil {
		return v.compared.Load().continued(v.cfg.Now())
	}
	defer v.comparing.give()
	last := v.compared.Load()
	if !needed(last) {
		return last
	}
	nodes := v.state().Nodes()
	offsets := v.clockOffsets(context.WithoutCancel(ctx), nodes) // no longer than clockWait, and for others too
	c := last.continued(v.cfg.Now())
	if len(offsets) > len(nodes)/2 {
		slices.Sort(offsets)
		c.off, c.sure = offsets[(len(offsets)-1)/2], true
	}
	v.compared.Store(c)
	if c.off.Abs() > clockTolerance && (last == nil || last.off.Abs() <= clockTolerance) {
		v.log.Error("this leader's clock is wrong: set it; dated writes are refused, what is due waits, other entries are stamped by the median of the nodes' clocks", "off_by", -c.off)
	}
	return c
}

func always(*comparison) bool { return true }

// clockFit refuses while this leader's clock is more than clockTolerance off the median of the nodes' clocks, or cannot be compared. What only
// needs a stamp goes on, by the median: a seal or a suspension must not wait until somebody sets a clock. What plans or carries out a date
// waits: the leader that can tell the time must be the one that says what time it is.
func (v *Vault) clockFit(ctx context.Context) error {
	_, c := v.tellTime(ctx)
	if !c.sure {
		c = *v.compareClock(ctx, func(last *comparison) bool { return !last.sure })
	}
	switch {
	case c.off.Abs() > clockTolerance:
		return fmt.Errorf("%w: node %s is %s off the median of the nodes' clocks; set its clock, or make another node lead", ErrClock, v.cfg.Node, -c.off.Round(time.Second))
	case !c.sure:
		return fmt.Errorf("%w: node %s could not compare its clock with a majority of the nodes' within %s; try again", ErrClock, v.cfg.Node, clockWait)
	}
	return nil
}

// dated reports whether a command plans a date in the life of a key.
func dated(c fsm.Command) bool {
	switch c := c.(type) {
	case fsm.CreateKey:
		return !c.ActivateAt.IsZero() || !c.DeactivateAt.IsZero()
	case fsm.ImportKey:
		return dated(c.Key)
	case fsm.RotateKey:
		return !c.ActivateAt.IsZero()
	case fsm.UpdateKey:
		return c.ActivateAt != nil || c.DeactivateAt != nil
	case fsm.ChangeKey:
		return c.Action == fsm.ActionDestroy
	default:
		return false
	}
}

// clockAlarm says in a node's status what is wrong with its clock, while it leads.
func (v *Vault) clockAlarm() string {
	c := v.compared.Load()
	switch {
	case c == nil || !v.cfg.Proposer.IsLeader():
		return ""
	case c.off.Abs() > clockTolerance:
		return fmt.Sprintf("its clock is %s off the others'", -c.off.Round(time.Second))
	case !c.sure:
		return "too few nodes tell it the time to compare its clock"
	}
	return ""
}

// clockOffsets are how far the clocks of the nodes that answer in time are ahead of this one's.
func (v *Vault) clockOffsets(ctx context.Context, nodes []fsm.Node) (offsets []time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers, late := make(chan *time.Duration, len(nodes)), (<-chan time.Time)(nil)
	for _, n := range nodes {
		asking.Go(func() { answers <- v.offsetOf(ctx, n.ID) })
	}
	for range nodes {
		select {
		case off := <-answers:
			if off != nil {
				offsets = append(offsets, *off)
			}
		case <-late:
			return offsets
		}
		if late == nil && len(offsets) > len(nodes)/2 {
			late = time.After(clockGrace)
		}
	}
	return offsets
}

// offsetOf asks one node; nil if it does not answer.
func (v *Vault) offsetOf(ctx context.Context, id fsm.NodeID) *time.Duration {
	asked := v.cfg.Now()
	theirs, err := askNode[time.Time](ctx, v, id, kindClock, struct{}{})
	if err != nil {
		return nil
	}
	answered := v.cfg.Now()
	off := theirs.Sub(asked.Add(answered.Sub(asked) / 2))
	return &off
}

// watchClock compares while this node leads.
func (v *Vault) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if v.cfg.Proposer.IsLeader() {
				v.compareClock(ctx, always)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
