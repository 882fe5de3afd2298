package custody

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// StartGenesis opens the genesis ceremony for these custodians. The caller needs an administrator's certificate. A ttl of 0 is the
// cluster's default.
func StartGenesis(ctx context.Context, api vaultpb.CeremoniesClient, threshold uint32, custodians []fsm.Custodian, ttl time.Duration) (*vaultpb.Ceremony, error) {
	id, err := newRequestID()
	if err != nil {
		return nil, err
	}
	in := &vaultpb.StartGenesisRequest{RequestId: id, Threshold: threshold}
	if ttl > 0 {
		in.Ttl = durationpb.New(ttl)
	}
	for _, c := range custodians {
		in.Custodians = append(in.Custodians, custodianMessage(c))
	}
	reply, err := api.StartGenesis(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("starting the genesis: %w", err)
	}
	started := rosterOf(reply.GetCeremony().GetRoster())
	same := slices.EqualFunc(started.Custodians, custodians, func(a, b fsm.Custodian) bool {
		return a.Name == b.Name && a.Recipient == b.Recipient && bytes.Equal(a.SigningKey, b.SigningKey)
	})
	if !same || started.Threshold != threshold {
		return nil, fmt.Errorf("%w: the ceremony was started with other custodians or another threshold", ErrShown)
	}
	return reply.GetCeremony(), nil
}
