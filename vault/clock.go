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
	if c := v.compared.Load(); c == nil || v.stepped(*c) {
		v.compareClock(ctx)
	}
	if off := time.Duration(v.clockOffset.Load()); off.Abs() > clockTolerance {
		return v.cfg.Now().Add(off)
	}
	return v.cfg.Now()
}

// comparison remembers when the clocks were compared, by the wall clock and by the monotonic one.
type comparison struct{ wall, monotonic time.Time }

// stepped: the wall clock was set since the last comparison.
func (v *Vault) stepped(c comparison) bool {
	byWall := v.cfg.Now().Round(0).Sub(c.wall.Round(0))
	return (byWall - time.Since(c.monotonic)).Abs() > clockTolerance
}

// compareClock asks every node for its wall clock and keeps the median's distance from this one's. Of two middle ones the earlier
// counts: a stamp that is too early does no harm. Nodes that do not answer have no say.
func (v *Vault) compareClock(ctx context.Context) {
	v.compared.Store(&comparison{wall: v.cfg.Now(), monotonic: time.Now()})
	offsets := v.clockOffsets(ctx)
	if len(offsets) == 0 {
		return
	}
	slices.Sort(offsets)
	off := offsets[(len(offsets)-1)/2]
	before := time.Duration(v.clockOffset.Swap(int64(off)))
	if off.Abs() > clockTolerance && before.Abs() <= clockTolerance {
		v.log.Error("this leader's clock is wrong: set it; dated writes are refused, what is due waits, other entries are stamped by the median of the nodes' clocks", "off_by", -off)
	}
}

// clockFit refuses while this leader's clock is more than clockTolerance off the median of the nodes' clocks. What only needs a stamp
// goes on, by the median: a seal or a suspension must not wait until somebody sets a clock. What plans or carries out a date waits: the
// leader that can tell the time must be the one that says what time it is.
func (v *Vault) clockFit(ctx context.Context) error {
	v.stamp(ctx) // compares if it is time to
	if off := time.Duration(v.clockOffset.Load()); off.Abs() > clockTolerance {
		return fmt.Errorf("%w: node %s is %s off the median of the nodes' clocks; set its clock, or make another node lead", ErrClock, v.cfg.Node, -off.Round(time.Second))
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
	if off := time.Duration(v.clockOffset.Load()); off.Abs() > clockTolerance && v.cfg.Proposer.IsLeader() {
		return fmt.Sprintf("its clock is %s off the others'", -off.Round(time.Second))
	}
	return ""
}

// clockOffsets are how far the clocks of the nodes that answer in time are ahead of this one's.
func (v *Vault) clockOffsets(ctx context.Context) (offsets []time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	nodes := v.state().Nodes()
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
				v.compareClock(ctx)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
