package transport

import (
	"context"
	"fmt"

	"google.golang.org/grpc/metadata"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// requestIDKey is the metadata key of what a client calls its request, for the usage log. The SDK has the same constant; the proto file
// documents it.
const requestIDKey = "conclave-request-id"

// named takes what the client calls its request along, if it calls it anything.
func named(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	id, err := requestName(md.Get(requestIDKey))
	if err != nil || id == "" {
		return ctx, err
	}
	return usage.WithRequest(ctx, id), nil
}

// requestName checks the values of the key: none, or one that can stand in a log.
func requestName(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("%w: metadata %s is given %d times; give it once", vault.ErrInvalid, requestIDKey, len(values))
	case len(values[0]) > usage.MaxRequestID:
		return "", fmt.Errorf("%w: metadata %s has %d characters, at most %d", vault.ErrInvalid, requestIDKey, len(values[0]), usage.MaxRequestID)
	}
	for _, c := range []byte(values[0]) {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%w: metadata %s is %.40q; give printable ASCII without spaces", vault.ErrInvalid, requestIDKey, values[0])
		}
	}
	return values[0], nil
}

// ListUses implements vaultpb.LogServer.
func (s *Server) ListUses(ctx context.Context, r *vaultpb.ListUsesRequest) (*vaultpb.ListUsesReply, error) {
	return as(ctx, func(c policy.Caller) (*vaultpb.ListUsesReply, error) {
		f := vault.UseFilter{Node: fsm.NodeID(r.GetNode()), Key: fsm.KeyName(r.GetKey())}
		if r.GetSince() != nil {
			f.Since = r.GetSince().AsTime()
		}
		p, err := s.cfg.Vault.ListUses(ctx, c, f, r.GetPageToken(), int(r.GetPageSize()))
		return &vaultpb.ListUsesReply{Node: string(p.Node), Items: each(p.Uses, s.useToPB), NextPageToken: p.Next, Index: p.Index}, err
	})
}

func (s *Server) useToPB(e usage.Entry) *vaultpb.Use {
	return &vaultpb.Use{
		Sequence: e.Sequence, Time: stamp(e.Time), Boot: e.Boot, Index: e.Index, Key: string(s.cfg.Vault.KeyNameOf(e.KeyID)), KeyId: e.KeyID,
		Version: e.Version, Operation: e.Operation, Role: e.Role, Name: e.Name, Serial: e.Serial, RequestId: e.RequestID, Bytes: e.Bytes,
		Outcome: e.Outcome.String(), Withholds: e.Of,
	}
}
