package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
	"github.com/conclave-vault/conclave/cluster/lease"
)

// errNotReady: this node leads but does not know yet what earlier leaders committed.
var errNotReady = errors.New("cluster: leader is not ready")

// Lease is the current right to use keys. Load it, then the state, and call its Valid last.
func (n *Node) Lease() lease.Lease { return n.holder.Lease() }

// AvailableLease is the longer right to use keys of classes that put availability first, if WantAvailableLease was called.
func (n *Node) AvailableLease() lease.Lease { return n.holder.Available() }

// WantAvailableLease asks for such a lease with the next renewals, for as long as one lasts.
func (n *Node) WantAvailableLease() { n.holder.Want() }

// grantLease answers a renewal, of this node or another, by the same rule.
func (n *Node) grantLease(r lease.Renew) (lease.Grant, error) {
	// First of all, and whoever leads: what follows must not rest on a clock that this very message shows to have stood still.
	_ = n.hear(lease.Reading{Boot: r.Boot, Uptime: r.Uptime}, nil)
	table := n.tenure.Load()
	if table == nil {
		if n.IsLeader() {
			return lease.Grant{}, errNotReady
		}
		return lease.Grant{}, ErrNotLeader
	}
	if n.cfg.Available() {
		table.AllowAvailable()
	}
	told := table.Refused(r.Node, r.Boot)
	grant, err := table.Renew(r, n.cfg.Floor)
	if errors.Is(err, lease.ErrOlderTwin) && !told { // once for each, or those of two nodes would fill the log in turns
		n.log.Warn("two processes of one node run, or its data directory was put back: the later one is given leases, the other is not", "of", r.Node, "boot", r.Boot)
	}
	n.reported.Broadcast()
	return grant, err
}

// renewLoop renews every period, at once when there is something to report, and sooner when there was no grant.
func (n *Node) renewLoop(ctx context.Context) error {
	misses := 0
	for {
		err := n.renew(ctx)
		if err == nil {
			misses = 0
		} else {
			misses++
		}
		if errors.Is(err, lease.ErrWithheld) {
			misses = 0 // an answer, and it stays the same until the state changes
		}
		n.suspect(misses, err)
		if misses == 1 && errors.Is(err, lease.ErrNoEvidence) {
			continue // the echo of the empty grant is the evidence that was missing; once, or it would spin
		}
		if !waitEither(ctx, n.renewNow, n.renewPause(misses)) {
			n.holder.Drop()
			return nil
		}
	}
}

func (n *Node) renewPause(misses int) time.Duration {
	if misses > 0 { // with a lease too: it is running out, and after an election evidence takes two exchanges with a majority
		return n.cfg.Lease.Hurry()
	}
	return n.cfg.Lease.Period()
}

// suspect acts on misses in a row: the second is logged, and every second one that was not answered at all gets a new
// connection, since a path that lost its packets may keep a live connection waiting for many seconds.
func (n *Node) suspect(misses int, err error) {
	if misses == 2 {
		n.log.Debug("lease not renewed", "err", err)
	}
	leader, known := n.Leader()
	if misses > 0 && misses%2 == 0 && known && errors.Is(err, ErrOutcomeUnknown) {
		n.control.drop(leader)
	}
}

// renew does one renewal with the believed leader.
func (n *Node) renew(ctx context.Context) error {
	leader, known := n.Leader()
	if !known {
		return ErrNoLeader
	}
	// Below two periods, so that one lost message costs one renewal and not the lease.
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Lease.Period()*3/2)
	defer cancel()
	request := n.holder.Renew(n.Term, n.cfg.Applied)
	grant, err := n.requestGrant(ctx, leader, request)
	if err != nil {
		return err
	}
	return n.holder.Install(grant, n.cfg.Applied)
}

func (n *Node) requestGrant(ctx context.Context, leader NodeID, r lease.Renew) (lease.Grant, error) {
	if leader == n.cfg.ID {
		return n.grantLease(r)
	}
	peer, err := n.dialPeer(ctx, n.control, leader)
	if err != nil {
		return lease.Grant{}, err
	}
	reply, err := peer.Renew(ctx, renewToProto(r))
	if err != nil {
		return lease.Grant{}, rpcError(ctx, err)
	}
	if err := n.hear(clocksFromProto(reply)); err != nil { // a refusal shows as much as a grant
		return lease.Grant{}, err
	}
	if err := outcomeError(reply.GetOutcome(), "renewal refused"); err != nil {
		return lease.Grant{}, fmt.Errorf("%s: %w", leader, err)
	}
	return grantFromProto(reply), nil
}

func grantFromProto(r *clusterpb.RenewReply) lease.Grant {
	return lease.Grant{
		Boot: r.GetBoot(), Seq: r.GetSeq(), Term: r.GetTerm(), GrantSeq: r.GetGrantSeq(),
		Duration: time.Duration(r.GetDuration()), Floor: r.GetFloor(), Available: time.Duration(r.GetAvailable()),
		Withheld: r.GetWithheld(),
	}
}

func clocksFromProto(r *clusterpb.RenewReply) (from lease.Reading, others []lease.Reading) {
	for _, o := range r.GetOthers() {
		others = append(others, lease.Reading{Boot: o.GetBoot(), Uptime: time.Duration(o.GetUptime())})
	}
	return lease.Reading{Boot: r.GetClockOf(), Uptime: time.Duration(r.GetClock())}, others
}

// waitEither waits for an event or for d, and reports whether ctx outlived it.
func waitEither[T any](ctx context.Context, event <-chan T, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-event:
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
