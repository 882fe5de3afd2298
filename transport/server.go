package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/cluster/refusal"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
)

// Config of a Server; every field is needed.
type Config struct {
	Node     string
	Vault    *vault.Vault
	Listener net.Listener
	TLS      *tls.Config
	Logger   *slog.Logger
}

// Server serves the public API.
type Server struct {
	cfg      Config
	rpc      *grpc.Server
	refusals *refusal.Log
	vaultpb.UnimplementedKeysServer
	vaultpb.UnimplementedClassesServer
	vaultpb.UnimplementedCryptoServer
	vaultpb.UnimplementedClusterServer
	vaultpb.UnimplementedLogServer
	vaultpb.UnimplementedCeremoniesServer
}

// New makes a server; it starts nothing.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.refusals = refusal.New(cfg.Logger, "api")
	s.rpc = grpc.NewServer(append(gate.Calls{Log: s.refusals}.Options(),
		grpc.Creds(lingering{credentials.NewTLS(cfg.TLS), s.refusals.Refused}),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxSendMsgSize(maxReply), grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.InTapHandle(newInFlight(cfg.Node, s.refusals).enter),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: probeTime, Timeout: probeTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.around), grpc.StreamInterceptor(s.aroundStream),
		// Stop returns when no call runs any more: the token that calls use is closed after it.
		grpc.WaitForHandlers(true),
	)...)
	vaultpb.RegisterKeysServer(s.rpc, s)
	vaultpb.RegisterClassesServer(s.rpc, s)
	vaultpb.RegisterCryptoServer(s.rpc, s)
	vaultpb.RegisterClusterServer(s.rpc, s)
	vaultpb.RegisterLogServer(s.rpc, s)
	vaultpb.RegisterCeremoniesServer(s.rpc, s)
	return s
}

// Run serves until ctx ends, then lets calls under way finish for a moment.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		hard := time.AfterFunc(stopTimeout, s.rpc.Stop)
		defer hard.Stop()
		s.rpc.GracefulStop()
	}()
	defer s.refusals.Close()
	err := s.rpc.Serve(newPort(s.cfg.Listener, s.refusals))
	if ctx.Err() == nil {
		return fmt.Errorf("serving clients: %w", err)
	}
	<-stopped
	return nil
}

// around is what every call has in common: a bound, an error table, and a panic that ends one call and not the node.
func (s *Server) around(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (reply any, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	defer func() {
		// Who is nobody of this cluster is a refused connection in all but the handshake; other refusals are the caller's own matter.
		gate.Handled(ctx, kind.Of(err) == kind.Unauthenticated)
	}()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("a call panicked", "method", info.FullMethod, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			reply, err = nil, kind.New(kind.Internal, "node "+s.cfg.Node+" failed; its log says why", nil)
		}
	}()
	if ctx, err = named(ctx); err == nil {
		err = s.caughtUp(ctx)
	}
	if err == nil {
		reply, err = handle(ctx, req)
	}
	if err == nil {
		return reply, nil
	}
	if st, ok := status.FromError(err); ok && st.Code() == codes.Unimplemented {
		return nil, err
	}
	if errors.Is(err, context.Canceled) && ctx.Err() == nil { // something inside was stopped: this node is shutting down
		err = vault.ErrUnavailable
	}
	return nil, s.toStatus(err)
}
