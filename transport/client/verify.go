package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ErrNotVerified: the signature or MAC does not verify. Its kind is NOT_VERIFIED.
var ErrNotVerified = kind.New(kind.NotVerified, "does not verify", nil)

// Verify checks a signature. It returns ErrNotVerified, beside the reply, where the reply says that the signature is not
// valid: a caller who looks only at the error is never wrong.
func (c *Client) Verify(ctx context.Context, in *vaultpb.VerifyRequest, opts ...grpc.CallOption) (*vaultpb.VerifyReply, error) {
	return verified(c.crypto.Verify(ctx, in, opts...))
}

// VerifyMac checks a MAC, as Verify does a signature.
func (c *Client) VerifyMac(ctx context.Context, in *vaultpb.VerifyMacRequest, opts ...grpc.CallOption) (*vaultpb.VerifyReply, error) {
	return verified(c.crypto.VerifyMac(ctx, in, opts...))
}

func verified(reply *vaultpb.VerifyReply, err error) (*vaultpb.VerifyReply, error) {
	if err == nil && !reply.GetValid() {
		return reply, fmt.Errorf("under key %s: %w", reply.GetKey(), ErrNotVerified)
	}
	return reply, err
}
