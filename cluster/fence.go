package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
)

// errNoFences: this node cannot keep from single subjects.
var errNoFences = errors.New("cluster: no fences here")

// fencing is which restrictions' fences are being put up, so that each is asked for once however many wait for it.
type fencing struct {
	mu  sync.Mutex
	now map[uint64]bool
}

func (f *fencing) begin(index uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now[index] {
		return false
	}
	if f.now == nil {
		f.now = make(map[uint64]bool)
	}
	f.now[index] = true
	return true
}

func (f *fencing) end(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, index)
}

// putUpFences asks every other node that serves to keep from what the restriction at index, which is committed, is about until it has
// applied it: one round trip instead of the writes by which it hears of the commit. It returns at once; stop waits for what it began.
// Who does not answer is waited for as if it had not been asked.
func (n *Node) putUpFences(ctx context.Context, index uint64) (stop func()) {
	subject := n.cfg.Fenceable(index)
	if subject == "" || !n.fences.begin(index) {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Lease.Period())
	var all sync.WaitGroup
	for _, id := range compacted(n.serving()) {
		if id == string(n.cfg.ID) {
			continue
		}
		all.Go(func() {
			if err := n.putUpFence(ctx, NodeID(id), subject, index); err != nil && ctx.Err() == nil {
				n.log.Debug("no fence", "peer", id, "index", index, "err", err)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
		n.fences.end(index)
	}
}

func (n *Node) putUpFence(ctx context.Context, id NodeID, subject string, index uint64) error {
	peer, err := n.dialPeer(ctx, n.control, id)
	if err != nil {
		return err
	}
	reply, err := peer.Fence(ctx, &clusterpb.FenceRequest{Index: index, Subject: subject})
	if err != nil {
		return rpcError(ctx, err)
	}
	if err := outcomeError(reply.GetOutcome(), "fence refused"); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	if table := n.tenure.Load(); table != nil {
		table.Fenced(string(id), reply.GetBoot(), index)
		n.reported.Broadcast()
	}
	return nil
}

// maxSubjectBytes bounds what a fence is about: it is held in memory until the restriction is applied.
const maxSubjectBytes = 1 << 10

// Fence is taken from the believed leader only: what a node keeps from it does not serve.
func (s *peerServer) Fence(ctx context.Context, req *clusterpb.FenceRequest) (*clusterpb.FenceReply, error) {
	if leader, known := s.node.Leader(); !known || leader != caller(ctx) {
		return &clusterpb.FenceReply{Outcome: clusterpb.Outcome_OUTCOME_NOT_LEADER}, nil
	}
	if len(req.GetSubject()) > maxSubjectBytes {
		return &clusterpb.FenceReply{Outcome: clusterpb.Outcome_OUTCOME_ERROR}, nil
	}
	if err := s.node.cfg.Fence(req.GetSubject(), req.GetIndex()); err != nil {
		return &clusterpb.FenceReply{Outcome: clusterpb.Outcome_OUTCOME_ERROR}, nil
	}
	return &clusterpb.FenceReply{Outcome: clusterpb.Outcome_OUTCOME_OK, Boot: s.node.cfg.Boot}, nil
}
