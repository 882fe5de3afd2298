package cluster

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/cluster/lease"
)

const (
	// maxStreams bounds the calls in flight on one connection.
	maxStreams = 256
	// maxCalls bounds the calls that are being handled, of all nodes. Renewals and reads do not count: they must get through.
	maxCalls = 512
	// maxHeaderBytes bounds the headers of a request: gRPC's own take some hundred bytes.
	maxHeaderBytes = 8 << 10
)

// peerServer serves conclave-node/1.
type peerServer struct {
	clusterpb.UnimplementedPeerServer
	node  *Node
	calls chan struct{} // one per call being handled
}

func newPeerServer(n *Node) *grpc.Server {
	s := &peerServer{node: n, calls: make(chan struct{}, maxCalls)}
	server := grpc.NewServer(append(gate.Calls{Log: n.port.refusals}.Options(),
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(MaxMessageBytes+frameSlack),
		grpc.MaxSendMsgSize(MaxMessageBytes+frameSlack),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2}),
		grpc.WaitForHandlers(true), // Run owns them
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.UnaryInterceptor(s.admit),
	)...)
	clusterpb.RegisterPeerServer(server, s)
	return server
}

// admit checks membership and certificate for every request, because a connection may be older than a removal, and outlive the
// certificate that opened it.
func (s *peerServer) admit(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	who := callerInfo(ctx)
	err := s.node.admitCall(who.id, who.key)
	if time.Now().After(who.expires) {
		err = errExpired
	}
	gate.Handled(ctx, err != nil)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return next(ctx, req)
}

func (s *peerServer) Call(ctx context.Context, req *clusterpb.CallRequest) (*clusterpb.CallReply, error) {
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	reply, err := s.node.handle(ctx, caller(ctx), req)
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return reply, nil
}

func (s *peerServer) Renew(ctx context.Context, req *clusterpb.RenewRequest) (*clusterpb.RenewReply, error) {
	if NodeID(req.GetNode()) != caller(ctx) {
		return nil, status.Error(codes.PermissionDenied, "a node renews for itself only")
	}
	grant, err := s.node.grantLease(renewFromProto(req))
	reply := grantToProto(grant)
	if err != nil {
		reply = &clusterpb.RenewReply{Outcome: renewOutcome(err)}
	}
	addClocks(reply, s.node)
	return reply, nil
}

func (s *peerServer) ReadIndex(ctx context.Context, _ *clusterpb.ReadIndexRequest) (*clusterpb.ReadIndexReply, error) {
	index, err := s.node.confirms.do(ctx)
	switch {
	case err == nil:
		return &clusterpb.ReadIndexReply{Outcome: clusterpb.Outcome_OUTCOME_OK, Index: index}, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrStopped):
		return &clusterpb.ReadIndexReply{Outcome: clusterpb.Outcome_OUTCOME_NOT_LEADER}, nil
	default:
		return &clusterpb.ReadIndexReply{Outcome: clusterpb.Outcome_OUTCOME_ERROR, Message: err.Error()}, nil
	}
}

func (s *peerServer) Echo(context.Context, *clusterpb.EchoRequest) (*clusterpb.EchoReply, error) {
	term := s.node.Term()
	if term == 0 {
		return nil, status.Error(codes.Unavailable, "raft is not running")
	}
	return &clusterpb.EchoReply{Term: term}, nil
}

func renewOutcome(err error) clusterpb.Outcome {
	if errors.Is(err, errNotReady) {
		return clusterpb.Outcome_OUTCOME_NOT_READY
	}
	return clusterpb.Outcome_OUTCOME_NOT_LEADER
}

func renewFromProto(r *clusterpb.RenewRequest) lease.Renew {
	return lease.Renew{
		Node: r.GetNode(), Boot: r.GetBoot(), Seq: r.GetSeq(), Term: r.GetTerm(), Applied: r.GetApplied(),
		Echo:        lease.Echo{Term: r.GetEchoTerm(), GrantSeq: r.GetEchoGrantSeq()},
		Incarnation: r.GetIncarnation(), Uptime: time.Duration(r.GetUptime()), Available: r.GetWantAvailable(), Since: r.GetSince(), Settled: time.Duration(r.GetSettled()),
		// Below zero is nobody's word; a negative remainder would be an entry that has run out already.
		Remaining: lease.Durations{
			lease.Serving: max(0, time.Duration(r.GetRemaining())), lease.Available: max(0, time.Duration(r.GetRemainingAvailable())),
		},
	}
}

func renewToProto(r lease.Renew) *clusterpb.RenewRequest {
	return &clusterpb.RenewRequest{
		Node: r.Node, Boot: r.Boot, Seq: r.Seq, Term: r.Term, Applied: r.Applied,
		EchoTerm: r.Echo.Term, EchoGrantSeq: r.Echo.GrantSeq, Incarnation: r.Incarnation, Uptime: int64(r.Uptime),
		Remaining: int64(r.Remaining[lease.Serving]), RemainingAvailable: int64(r.Remaining[lease.Available]), WantAvailable: r.Available,
		Since: r.Since, Settled: int64(r.Settled),
	}
}

func grantToProto(g lease.Grant) *clusterpb.RenewReply {
	return &clusterpb.RenewReply{
		Outcome: clusterpb.Outcome_OUTCOME_OK, Boot: g.Boot, Seq: g.Seq, Term: g.Term, GrantSeq: g.GrantSeq,
		Duration: int64(g.Duration), Floor: g.Floor, Available: int64(g.Available), Withheld: g.Withheld,
	}
}

func addClocks(to *clusterpb.RenewReply, n *Node) {
	own, others := n.say()
	to.Clock, to.ClockOf = int64(own.Uptime), own.Boot
	for _, o := range others {
		to.Others = append(to.Others, &clusterpb.Reading{Boot: o.Boot, Uptime: int64(o.Uptime)})
	}
}
