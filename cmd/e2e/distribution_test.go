package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// uses is how many keys are created through one node and used at once through another.
	uses = 1000
	// usesAtOnce bounds how many of them are under way.
	usesAtOnce = 8
)

// usableAtOnce creates keys through one node and signs with them through another, in the very next call. Each client knows one
// node only: no failover hides a node that does not know the key yet.
func usableAtOnce(t *testing.T, c *devCluster) {
	var nodes []*client.Client
	for _, n := range c.nodes {
		nodes = append(nodes, c.sdk(t, c.admin, n.api))
	}
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(usesAtOnce)
	start := time.Now()
	for i := range uses {
		g.Go(func() error {
			from, to := i%len(nodes), (i+1+i/len(nodes)%2)%len(nodes)
			name := fmt.Sprintf("many/%04d", i)
			if _, err := nodes[from].CreateKey(ctx, &vaultpb.CreateKeyRequest{Name: name, Algorithm: c.signer()}); err != nil {
				return fmt.Errorf("creating %s through %s: %w", name, c.nodes[from].id, err)
			}
			return signsAt(ctx, nodes[to], c.nodes[to].id, name)
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	took := time.Since(start)
	t.Logf("%d keys created on one node and used on another in %s, %.1f ms each", uses, took.Round(time.Millisecond), float64(took.Milliseconds())/uses)
}

// signsAt demands a signature, made by the node that was asked.
func signsAt(ctx context.Context, api *client.Client, node, name string) error {
	s, err := api.Sign(ctx, &vaultpb.SignRequest{Name: name, Data: []byte(name)})
	if err != nil {
		return fmt.Errorf("signing with %s on %s: %w", name, node, err)
	}
	if s.GetNode() != node || s.GetKey() != name {
		return fmt.Errorf("%s was asked for %s, %s answered for %s", node, name, s.GetNode(), s.GetKey())
	}
	return nil
}
