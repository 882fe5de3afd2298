package transport

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/cluster/gate"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Watch implements vaultpb.LogServer.
func (s *Server) Watch(r *vaultpb.WatchRequest, stream grpc.ServerStreamingServer[vaultpb.WatchReply]) error {
	_, err := as(stream.Context(), func(c policy.Caller) (proto.Message, error) {
		return nil, s.cfg.Vault.Watch(stream.Context(), c, watchFromPB(r), func(b vault.WatchBatch) error { return stream.Send(batchToPB(b)) })
	})
	return err
}

func watchFromPB(r *vaultpb.WatchRequest) vault.WatchQuery {
	return vault.WatchQuery{
		From: r.GetFromLeaf(), AfterIndex: r.GetAfterIndex(), FromNow: r.GetFromNow(), Subject: r.GetSubject(), Prefix: r.GetPrefix(), Actions: r.GetActions(),
	}
}

func batchToPB(b vault.WatchBatch) *vaultpb.WatchReply {
	return &vaultpb.WatchReply{Items: each(b.Events, eventToPB), NextLeaf: b.Next, Index: b.Index}
}

// aroundStream is around for streams. The tap bounds their time: a reader that does not read ends with it. Methods that do not exist come
// by here, too, and are not this function's matter.
func (s *Server) aroundStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	if info.FullMethod != vaultpb.Log_Watch_FullMethodName {
		return handle(srv, stream)
	}
	ctx := stream.Context()
	defer func() { gate.Handled(ctx, kind.Of(err) == kind.Unauthenticated) }()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("a call panicked", "method", info.FullMethod, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = kind.New(kind.Internal, "node "+s.cfg.Node+" failed; its log says why", nil)
		}
	}()
	if err = s.caughtUp(ctx); err == nil {
		err = handle(srv, stream)
	}
	return s.streamed(ctx, err)
}

// streamed is what a stream's end is to its reader. A reader that went away hears nothing, and is no defect.
func (s *Server) streamed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return s.toStatus(err)
	}
}
