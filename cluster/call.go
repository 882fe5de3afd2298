package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
)

const (
	// leaderWait is how long a caller waits for an election to end: on a LAN one takes about a second.
	leaderWait = 2 * time.Second
	// leaderRetry is the pause before the same answer is asked for again.
	leaderRetry = 50 * time.Millisecond
	// callTimeout bounds a call whose context has no deadline.
	callTimeout = 30 * time.Second
)

var (
	errNoConnection = errors.New("no connection")
	errReplaced     = errors.New("the leader was replaced during the call")
)

// Call has the node's Handler answer. The error is ErrUnreachable if it did not, and a *RemoteError if the handler returned one.
func (n *Node) Call(ctx context.Context, to NodeID, kind string, payload []byte) ([]byte, error) {
	return n.call(ctx, to, &clusterpb.CallRequest{Kind: kind, Payload: payload})
}

// CallLeader has the leader's Handler answer, wherever it is. It waits up to two seconds for an election to end. A node that
// does not lead any more has not handled the call, so it is sent to the next one; a call that broke off is not sent again, and
// its error is ErrOutcomeUnknown.
func (n *Node) CallLeader(ctx context.Context, kind string, payload []byte) (reply []byte, err error) {
	err = n.onLeader(ctx, func(ctx context.Context, leader NodeID) error {
		reply, err = n.call(ctx, leader, &clusterpb.CallRequest{Kind: kind, Payload: payload, LeaderOnly: true})
		return err
	})
	return reply, err
}

func (n *Node) call(ctx context.Context, to NodeID, req *clusterpb.CallRequest) ([]byte, error) {
	if len(req.GetPayload()) > MaxMessageBytes {
		return nil, fmt.Errorf("%w: call of %d bytes, at most %d", ErrTooLarge, len(req.GetPayload()), MaxMessageBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := n.exchange(ctx, to, req)
	if err != nil {
		return nil, err
	}
	return reply.GetPayload(), outcomeError(reply.GetOutcome(), reply.GetMessage())
}

func (n *Node) exchange(ctx context.Context, to NodeID, req *clusterpb.CallRequest) (*clusterpb.CallReply, error) {
	if _, err := n.running(); err != nil {
		return nil, err
	}
	if to == n.cfg.ID {
		return n.handle(ctx, n.cfg.ID, req)
	}
	peer, err := n.dialPeer(ctx, n.bulk, to)
	if err != nil {
		return nil, err
	}
	reply, err := peer.Call(ctx, req)
	if err != nil {
		return nil, rpcError(ctx, err)
	}
	return reply, nil
}

// dialPeer connects to a node, wherever the state says that it is.
func (n *Node) dialPeer(ctx context.Context, p *pool, to NodeID) (clusterpb.PeerClient, error) {
	addr, err := n.addressOf(to)
	if err != nil {
		return nil, err
	}
	return p.get(ctx, to, addr)
}

// handle runs the Handler for a caller on this node or another.
func (n *Node) handle(ctx context.Context, from NodeID, req *clusterpb.CallRequest) (*clusterpb.CallReply, error) {
	if req.GetLeaderOnly() && !n.IsLeader() {
		return &clusterpb.CallReply{Outcome: clusterpb.Outcome_OUTCOME_NOT_LEADER}, nil
	}
	payload, err := n.cfg.Handler(ctx, from, req.GetKind(), req.GetPayload())
	switch {
	case err == nil && len(payload) > MaxMessageBytes:
		err = ErrTooLarge
	case err == nil:
		return &clusterpb.CallReply{Outcome: clusterpb.Outcome_OUTCOME_OK, Payload: payload}, nil
	case errors.Is(err, ErrNotLeader):
		return &clusterpb.CallReply{Outcome: clusterpb.Outcome_OUTCOME_NOT_LEADER}, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return &clusterpb.CallReply{Outcome: clusterpb.Outcome_OUTCOME_ERROR, Message: err.Error()}, nil
}

func outcomeError(o clusterpb.Outcome, message string) error {
	switch o {
	case clusterpb.Outcome_OUTCOME_OK:
		return nil
	case clusterpb.Outcome_OUTCOME_NOT_LEADER, clusterpb.Outcome_OUTCOME_NOT_READY:
		return ErrNotLeader
	default:
		return &RemoteError{Message: message}
	}
}

// rpcError translates what gRPC says of a request that was sent.
func rpcError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	}
	switch status.Code(err) {
	case codes.PermissionDenied:
		return fmt.Errorf("%w: %s", ErrNotMember, status.Convert(err).Message())
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %s", ErrTooLarge, status.Convert(err).Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.DeadlineExceeded)
	default:
		return fmt.Errorf("%w: %w: %s", ErrUnreachable, ErrOutcomeUnknown, status.Convert(err).Message())
	}
}

// whileLeads runs do with a context that ends some time after another leader has become known: one that was paused or cut off
// would keep its callers waiting until their deadline. The time lets a leader that only handed over finish its answer.
func (n *Node) whileLeads(ctx context.Context, leader NodeID, do func(context.Context) error) error {
	if leader == n.cfg.ID {
		return do(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		for {
			changed := n.leadership.Wait()
			if now, known := n.Leader(); known && now != leader {
				if pause(ctx, n.cfg.Timers.Heartbeat) {
					cancel(errReplaced)
				}
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return do(ctx)
}

// onLeader runs do with the believed leader until it is answered by one that leads. do must be safe to repeat after
// ErrNotLeader and after ErrUnreachable without ErrOutcomeUnknown.
func (n *Node) onLeader(ctx context.Context, do func(context.Context, NodeID) error) error {
	limit := time.NewTimer(leaderWait)
	defer limit.Stop()
	err := ErrNoLeader
	for {
		changed := n.leadership.Wait()
		if leader, known := n.Leader(); known {
			err = n.whileLeads(ctx, leader, func(ctx context.Context) error { return do(ctx, leader) })
			if !elsewhere(err) {
				return err
			}
		}
		retry := time.NewTimer(leaderRetry)
		select {
		case <-changed:
		case <-retry.C:
		case <-limit.C:
			retry.Stop()
			return noLeader(err)
		case <-ctx.Done():
			retry.Stop()
			return fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
		case <-n.stopped:
			retry.Stop()
			return ErrStopped
		}
		retry.Stop()
	}
}

// elsewhere reports that nothing was done and that another node may lead by now.
func elsewhere(err error) bool {
	unsent := errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrOutcomeUnknown)
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknownNode) || unsent
}

func noLeader(last error) error {
	if errors.Is(last, ErrNoLeader) {
		return last
	}
	return fmt.Errorf("%w: %w", ErrNoLeader, last)
}
