package transport

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc/metadata"

	"github.com/conclave-vault/conclave/vault"
)

// minIndexKey is the metadata key of a consistency token that a request demands. The SDK has the same constant; the proto file
// documents it.
const minIndexKey = "conclave-min-index"

// caughtUp returns when this node has applied the index that a request demands, if it demands one. Strangers are refused first:
// they may not make a node ask its leader.
func (s *Server) caughtUp(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	index, err := minIndex(md.Get(minIndexKey))
	if err != nil || index == 0 {
		return err
	}
	if _, err := caller(ctx); err != nil {
		return err
	}
	return s.cfg.Vault.AwaitIndex(ctx, index)
}

// minIndex decodes the values of the key: none, or one decimal number. 0 demands nothing.
func minIndex(values []string) (uint64, error) {
	if len(values) == 0 {
		return 0, nil
	}
	if len(values) > 1 {
		return 0, fmt.Errorf("%w: metadata %s is given %d times; give it once", vault.ErrInvalid, minIndexKey, len(values))
	}
	index, err := strconv.ParseUint(values[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: metadata %s is %.40q; give the index of a reply, a decimal number below 2^64", vault.ErrInvalid, minIndexKey, values[0])
	}
	return index, nil
}
