package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// firstPause and maxPause bound the pauses between rounds: short enough that a new leader (elected in about a second) is
	// found quickly, long enough that many waiting clients do not keep it from being elected.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// Invoke makes one unary call with failover; it is what every typed method and generated client runs on. If ctx has no deadline
// Config.Timeout bounds it. args is not changed: an empty request_id is filled in a copy.
//
// The error is that of the node that decided. If none did before the context ended, it is of the most informative kind that was
// seen, and names every node; for a write its metadata hold the request id under which the call can be repeated.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	request, id, err := withRequestID(args)
	if err != nil {
		return err
	}
	seen, demanding := newSightings(id), c.demanding(ctx, method)
	err = c.rounds(demanding, seen, func(ctx context.Context, e *endpoint) error {
		return e.invoke(ctx, method, request, reply, opts...)
	})
	c.saw(reply, err)
	if err == nil {
		c.discover(ctx)
	}
	return err
}

type attempt func(ctx context.Context, e *endpoint) error

// rounds tries the nodes in turn until one decides, nothing can get better by waiting, or ctx ends.
func (c *Client) rounds(ctx context.Context, seen *sightings, try attempt) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		order := c.order()
		if len(order) == 0 {
			return ErrClosed
		}
		for _, e := range order {
			decided, err := c.try(ctx, e, len(order) > 1, try)
			if decided {
				c.prefer(e)
				return err
			}
			c.cfg.Logger.DebugContext(ctx, "node passed over", "addr", e.address, "err", err)
			seen.add(ctx, e.address, err)
		}
		c.prefer(nil)
		if !seen.hopeful() || !wait(ctx, pause) {
			return seen.err()
		}
	}
}

// try makes one attempt and says whether its outcome is the answer to the call. With other nodes to go to, the attempt has
// a deadline of its own: a node that was stopped keeps its connections open and answers nothing.
func (c *Client) try(ctx context.Context, e *endpoint, others bool, try attempt) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	bounded := ctx
	if others {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		defer cancel()
	}
	err := try(bounded, e)
	if kind.Of(err) == kind.Deadline && bounded.Err() != nil && ctx.Err() == nil {
		return false, kind.New(kind.Unavailable, fmt.Sprintf("no answer within %v", c.cfg.AttemptTimeout), nil)
	}
	return !another(e, err), err
}

// another reports whether another node may answer better than with err. A refusal of our own certificate is not among them:
// every node knows the same CAs. That we refused the server's certificate is: the next address may be a node.
func another(e *endpoint, err error) bool {
	switch kind.Of(err) {
	case kind.Unavailable, kind.Sealed, kind.Uninitialised, kind.BarrierPending, kind.Deadline:
		return true
	case kind.Unauthenticated:
		return e.impostor()
	}
	return false
}

// wait pauses for d, a third more or less so that clients do not come in step; false if ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d*2/3 + rand.N(d*2/3))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// discover asks, once, where the other nodes are. It is a convenience: if it fails, the given addresses remain, and a
// caller who may not list nodes is not asked to.
func (c *Client) discover(ctx context.Context) {
	if !c.cfg.Discover || !c.discovered.CompareAndSwap(false, true) {
		return
	}
	nodes, err := c.ListNodes(ctx, &vaultpb.ListNodesRequest{})
	if err != nil {
		c.discovered.Store(kind.Of(err) == kind.Denied)
		c.cfg.Logger.DebugContext(ctx, "nodes not discovered", "err", err)
		return
	}
	for _, n := range nodes.GetItems() {
		if checkAddress(n.GetAddr()) != nil {
			continue // a node that listens nowhere yet
		}
		if err := c.add([]string{n.GetAddr()}); err != nil {
			c.cfg.Logger.DebugContext(ctx, "discovered node not added", "addr", n.GetAddr(), "err", err)
		}
	}
}
