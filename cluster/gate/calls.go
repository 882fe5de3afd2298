package gate

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

// Calls tells a log of the calls that gRPC refuses before a handler has seen them, and of those that a handler marks as refused.
// Options gives it to a server.
type Calls struct {
	Log *refusal.Log
}

// call is what is known of one call.
type call struct {
	method  string
	handled bool // an interceptor has seen it
	refused bool // and says that it is a refusal
}

type callKey struct{}

// Options of a server whose refused calls are logged. Methods that it does not know are refused by name.
func (c Calls) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.StatsHandler(c), grpc.UnknownServiceHandler(unknown)}
}

func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented, "unknown method %q", method)
}

// Handled is called by an interceptor: what it returns is the caller's business, and no line here. refused says that it is.
func Handled(ctx context.Context, refused bool) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.handled, c.refused = true, refused
	}
}

// TagRPC implements stats.Handler.
func (Calls) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, callKey{}, &call{method: info.FullMethodName})
}

// HandleRPC implements stats.Handler.
func (c Calls) HandleRPC(ctx context.Context, event stats.RPCStats) {
	end, ok := event.(*stats.End)
	if !ok || end.Error == nil {
		return
	}
	if this, ok := ctx.Value(callKey{}).(*call); ok && (!this.handled || this.refused) && !gaveUp(end.Error) {
		c.Log.Refused(remote(ctx), this.method, fmt.Errorf("%s: %s", status.Code(end.Error), status.Convert(end.Error).Message()))
	}
}

// gaveUp: a caller that stops waiting was not refused, not even where its message was not whole. Honest nodes do it all the time:
// who has asked all voters needs the answers of a majority only.
func gaveUp(err error) bool {
	return status.Code(err) == codes.Canceled || status.Code(err) == codes.DeadlineExceeded
}

func remote(ctx context.Context) net.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}

// TagConn implements stats.Handler.
func (Calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (Calls) HandleConn(context.Context, stats.ConnStats) {}
