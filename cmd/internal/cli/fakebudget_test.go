package cli_test

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// SetBudget puts the limit on the key; nothing is spent here.
func (n *node) SetBudget(ctx context.Context, r *vaultpb.SetBudgetRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) {
		k, err := n.key(r.GetName())
		if err != nil {
			return nil, err
		}
		k.Budget = nil
		if r.GetLimit() != nil {
			k.Budget = &vaultpb.KeyBudget{Limit: r.GetLimit(), SpentOperations: 3, ReservedOperations: 8, Reserved: []*vaultpb.Reserve{{Node: "n1", Operations: 8}}}
		}
		err = n.log(ctx, &vaultpb.Event{Action: "key.budget", Subject: k.GetName()})
		return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: n.index}, err
	})
}
