package cli_test

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ListUses knows of two uses of payments/eu, one a page, and an empty page between them.
func (n *node) ListUses(_ context.Context, r *vaultpb.ListUsesRequest) (*vaultpb.ListUsesReply, error) {
	reply := &vaultpb.ListUsesReply{Node: n.name, Index: n.index}
	if r.GetNode() != "" {
		reply.Node = r.GetNode()
	}
	if r.GetKey() != "" && r.GetKey() != "payments/eu" {
		return nil, kind.New(kind.NotFound, "there is no key "+r.GetKey(), nil)
	}
	use := &vaultpb.Use{
		Sequence: 2, Time: &timestamppb.Timestamp{Seconds: 1_767_225_601}, Boot: "b", Index: 7, Key: "payments/eu", KeyId: "k1", Version: 1, Operation: "sign",
		Role: "user", Name: "bob", Serial: "0a", RequestId: "r1", Bytes: 5, Outcome: "done",
	}
	switch r.GetPageToken() {
	case "":
		reply.Items, reply.NextPageToken = []*vaultpb.Use{use}, "3"
	case "3":
		reply.NextPageToken = "9"
	case "9":
		use.Sequence, use.Outcome, use.RequestId, use.Withholds = 9, "withheld", "", 2
		reply.Items = []*vaultpb.Use{use}
	}
	if at := r.GetSince(); at != nil && at.AsTime().After(use.GetTime().AsTime()) {
		reply.Items = nil
	}
	return reply, nil
}
