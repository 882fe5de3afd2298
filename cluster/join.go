package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/conclave-vault/conclave/cluster/clusterpb"
	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/cluster/refusal"
)

const (
	// maxJoins bounds the join requests being handled: each may cost a signature and an entry in the log.
	maxJoins = 8
	// joinTimeout bounds one of them, and how long a joiner's connection lives.
	joinTimeout = 15 * time.Second
)

// joinServer serves conclave-join/1 to whoever can reach the port.
type joinServer struct {
	clusterpb.UnimplementedJoinServer
	handler func(context.Context, []byte) ([]byte, error)
	slots   chan struct{}
	log     *refusal.Log
}

func newJoinServer(handler func(context.Context, []byte) ([]byte, error), log *refusal.Log) *grpc.Server {
	server := grpc.NewServer(append(gate.Calls{Log: log}.Options(),
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(MaxJoinBytes+frameSlack),
		grpc.MaxSendMsgSize(MaxJoinBytes+frameSlack),
		grpc.MaxConcurrentStreams(1), // one call per connection is all there is to do
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.UnaryInterceptor(joinCall),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: joinTimeout, MaxConnectionAgeGrace: time.Second}),
		grpc.WaitForHandlers(true),
	)...)
	clusterpb.RegisterJoinServer(server, &joinServer{handler: handler, slots: make(chan struct{}, maxJoins), log: log})
	return server
}

// joinCall notes that the request was whole; Join itself tells of refusals.
func joinCall(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	gate.Handled(ctx, false)
	return next(ctx, req)
}

func (s *joinServer) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default: // refused, not queued: strangers must not be able to make members wait
		return s.refuse(ctx, "too many nodes are joining; try again"), nil
	}
	if s.handler == nil {
		return s.refuse(ctx, "this node admits nobody"), nil
	}
	payload, err := s.handler(ctx, req.GetPayload())
	if err != nil {
		return s.refuse(ctx, err.Error()), nil
	}
	return &clusterpb.JoinReply{Outcome: clusterpb.Outcome_OUTCOME_OK, Payload: payload}, nil
}

func (s *joinServer) refuse(ctx context.Context, message string) *clusterpb.JoinReply {
	if p, ok := peer.FromContext(ctx); ok {
		s.log.Refused(p.Addr, protoJoin, errors.New(message))
	}
	return &clusterpb.JoinReply{Outcome: clusterpb.Outcome_OUTCOME_ERROR, Message: message}
}

// JoinCall sends a join request to the node at addr, of which only the SHA-256 fingerprint of its CA's SubjectPublicKeyInfo is
// known. It is sent only to a node whose certificate that CA has signed. The error is ErrUnreachable if there is no such node
// there, and a *RemoteError if it refused. A nil network is TCP.
func JoinCall(ctx context.Context, network Network, addr string, caFingerprint [sha256.Size]byte, payload []byte) ([]byte, error) {
	if len(payload) > MaxJoinBytes {
		return nil, fmt.Errorf("%w: join request of %d bytes, at most %d", ErrTooLarge, len(payload), MaxJoinBytes)
	}
	if network == nil {
		network = tcp{}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	// Connected here and not by gRPC, whose errors would hide why a certificate was refused.
	conn, err := dialTLS(ctx, network, addr, pinned(caFingerprint))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer conn.Close()
	client, err := grpc.NewClient("passthrough:///"+addr, clientOptions(once(conn), MaxJoinBytes+frameSlack)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer client.Close()
	reply, err := clusterpb.NewJoinClient(client).Join(ctx, &clusterpb.JoinRequest{Payload: payload})
	if err != nil {
		return nil, rpcError(ctx, err)
	}
	return reply.GetPayload(), outcomeError(reply.GetOutcome(), reply.GetMessage())
}

// once dials by handing out one connection that exists.
func once(conn net.Conn) func(context.Context, string) (net.Conn, error) {
	one := make(chan net.Conn, 1)
	one <- conn
	return func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-one:
			return c, nil
		default:
			return nil, errNoConnection
		}
	}
}
