package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
)

const (
	// readTimeout bounds a round of ReadIndex on the asking node, an election included.
	readTimeout = leaderWait
	// confirmTimeout bounds the leader's question to the voters.
	confirmTimeout = time.Second
)

// ReadIndex returns the index of the last command that the leader had committed when it was called. Whoever has applied it sees
// everything that was acknowledged before the call, through whatever node. The error is ErrNoLeader if it cannot be asked.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) { return n.reads.do(ctx) }

// askReadIndex is one round, shared by all callers that came before it started.
func (n *Node) askReadIndex(ctx context.Context) (index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err = n.onLeader(ctx, func(ctx context.Context, leader NodeID) error {
		if leader == n.cfg.ID {
			index, err = n.confirm(ctx)
		} else {
			index, err = n.remoteReadIndex(ctx, leader)
		}
		if errors.Is(err, errReplaced) {
			return ErrNotLeader // a question may be asked twice
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrStopped) && !errors.Is(err, ErrNoLeader) {
		err = fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return index, err
}

func (n *Node) remoteReadIndex(ctx context.Context, leader NodeID) (uint64, error) {
	peer, err := n.dialPeer(ctx, n.control, leader)
	if err != nil {
		return 0, err
	}
	reply, err := peer.ReadIndex(ctx, &clusterpb.ReadIndexRequest{})
	if err != nil {
		return 0, rpcError(ctx, err)
	}
	return reply.GetIndex(), outcomeError(reply.GetOutcome(), reply.GetMessage())
}

// confirm answers for the leader. It notes the commit index first and then proves that no other leader had been elected by
// then: a majority of voters, asked afterwards, has not entered a higher term. raft.VerifyLeader is no such proof, because it
// counts answers to heartbeats that were sent before it was called.
func (n *Node) confirm(ctx context.Context) (uint64, error) {
	table := n.tenure.Load()
	r, err := n.running()
	if err != nil {
		return 0, err
	}
	if table == nil {
		return 0, ErrNotLeader // or not ready to say what earlier leaders committed
	}
	commit := r.CommitIndex()
	if !n.majorityWithin(ctx, table.Term()) {
		return 0, ErrNotLeader
	}
	return n.lastCommand(commit)
}

// majorityWithin asks every voter for its term and reports whether a majority is not above term.
func (n *Node) majorityWithin(ctx context.Context, term uint64) bool {
	voters := n.Voters()
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	within := make(chan bool, len(voters))
	for _, v := range voters {
		asking.Go(func() {
			t, err := n.termOf(ctx, v)
			within <- err == nil && t <= term
		})
	}
	yes := 0
	for range voters {
		if <-within {
			yes++
		}
		if yes > len(voters)/2 {
			return true
		}
	}
	return false
}

func (n *Node) termOf(ctx context.Context, id NodeID) (uint64, error) {
	if id == n.cfg.ID {
		return n.Term(), nil
	}
	peer, err := n.dialPeer(ctx, n.control, id)
	if err != nil {
		return 0, err
	}
	reply, err := peer.Echo(ctx, &clusterpb.EchoRequest{})
	if err != nil {
		return 0, rpcError(ctx, err)
	}
	return reply.GetTerm(), nil
}

// lastCommand translates a commit index into that of the last command not after it: barriers, no-ops and configurations count
// in the log but never reach a state machine, so nobody could ever have applied their indexes.
func (n *Node) lastCommand(commit uint64) (uint64, error) {
	applied := n.cfg.Applied()
	for i := commit; i > applied; {
		var l raft.Log
		err := n.logs.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			// Only what is applied is ever compacted away, so the state has moved on since it was asked.
			if applied = n.cfg.Applied(); i <= applied {
				break
			}
			return 0, fmt.Errorf("entry %d, committed and not applied: %w", i, err)
		}
		if err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
		i--
	}
	return applied, nil
}

// flight runs rounds one after another. A caller gets the result of a round that starts after it came: an older one might not
// include what the caller already knows of.
type flight struct {
	run     func(context.Context) (uint64, error)
	stopped <-chan struct{}
	kick    chan struct{}

	mu   sync.Mutex
	next *round
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

func newFlight(stopped <-chan struct{}, run func(context.Context) (uint64, error)) *flight {
	return &flight{run: run, stopped: stopped, kick: make(chan struct{}, 1)}
}

func (f *flight) do(ctx context.Context) (uint64, error) {
	r := f.board()
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
	case <-f.stopped:
		return 0, ErrStopped
	}
}

// board joins the next round, making it if need be.
func (f *flight) board() *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = &round{done: make(chan struct{})}
		poke(f.kick)
	}
	return f.next
}

func (f *flight) depart() *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.next
	f.next = nil
	return r
}

// loop runs until ctx ends.
func (f *flight) loop(ctx context.Context) error {
	for {
		select {
		case <-f.kick:
		case <-ctx.Done():
			return nil
		}
		if r := f.depart(); r != nil {
			r.index, r.err = f.run(ctx)
			close(r.done)
		}
	}
}
