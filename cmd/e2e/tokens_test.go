package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// tokenKeys are rotated tokenTurns times each, and every rotation is looked for on both other nodes: 2400 reads.
	tokenKeys, tokenTurns = 60, 20
	// pausedTurns is how often a paused node is asked for what it cannot have.
	pausedTurns = 5
)

// demandedIndex shows the flag as scripts use it: what one process has seen is carried to the next, through another node.
func demandedIndex(t *testing.T, c *devCluster) {
	c.admin.at(c.nodes[0].api).ok(t, "key", "create", "token/cli", "--algorithm", c.signer())
	index := c.admin.at(c.nodes[0].api).field(t, "index", "key", "rotate", "token/cli")
	for _, n := range c.nodes[1:] {
		var s signDocument
		c.admin.at(n.api).document(t, &s, "sign", "token/cli", "--in", file(t, []byte("m")), "--min-index", index)
		if at, err := strconv.ParseUint(index, 10, 64); err != nil || s.Version != 2 || s.Index < at {
			t.Errorf("%s signs with version %d at index %d; version 2 is of index %s", n.id, s.Version, s.Index, index)
		}
		start := time.Now()
		c.admin.at(n.api).refuses(t, 2, "the request demands index 18446744073709551615, and the leader has committed",
			"key", "get", "token/cli", "--min-index", "18446744073709551615")
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s refuses an index that does not exist after %s", n.id, took)
		}
	}
}

// TestReadYourOwnWrites rotates keys through one node and signs through the others at once. A rotation is no restriction, so it
// is acknowledged before every node has it, and a node that has not signs with the version before: only the token keeps it from
// answering. It is not parallel: it pauses a node.
func TestReadYourOwnWrites(t *testing.T) {
	c := dev(t)
	var nodes []*client.Client
	for _, n := range c.nodes {
		nodes = append(nodes, c.sdk(t, c.admin, n.api))
	}
	t.Run("OnEveryNode", func(t *testing.T) { neverStale(t, c, nodes) })
	t.Run("OnANodeThatWasPaused", func(t *testing.T) { neverStaleAfterAPause(t, c) })
}

func neverStale(t *testing.T, c *devCluster, nodes []*client.Client) {
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(usesAtOnce)
	for i := range tokenKeys {
		g.Go(func() error {
			writer, name := nodes[i%len(nodes)], fmt.Sprintf("token/%02d", i)
			if _, err := writer.CreateKey(ctx, &vaultpb.CreateKeyRequest{Name: name, Algorithm: "ed25519"}); err != nil {
				return err
			}
			for range tokenTurns {
				k, err := writer.RotateKey(ctx, &vaultpb.RotateKeyRequest{Name: name})
				if err != nil {
					return err
				}
				for j := 1; j < len(nodes); j++ {
					if err := fresh(client.WithToken(ctx, k.GetIndex()), nodes[(i+j)%len(nodes)], k.GetKey()); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// errStale: a node answered from a state without what was demanded.
var errStale = errors.New("stale")

func fresh(ctx context.Context, node *client.Client, k *vaultpb.Key) error {
	s, err := node.Sign(ctx, &vaultpb.SignRequest{Name: k.GetName(), Data: []byte("m")})
	if err == nil && s.GetVersion() < k.GetPrimaryVersion() {
		return fmt.Errorf("%w: %s signs with version %d of %s, the key was rotated to %d", errStale, s.GetNode(), s.GetVersion(), k.GetName(), k.GetPrimaryVersion())
	}
	return err
}

// neverStaleAfterAPause: the request waits in the paused node's socket and is the first thing it reads when it goes on, before it
// has heard of anything. Now it waits, or says that it cannot; it never answers from before.
func neverStaleAfterAPause(t *testing.T, c *devCluster) {
	n := c.follower(t)
	name := "token/paused"
	api := c.sdk(t, c.admin, c.others(n)...)
	if _, err := api.CreateKey(t.Context(), &vaultpb.CreateKeyRequest{Name: name, Algorithm: "ed25519"}); err != nil {
		t.Fatal(err)
	}
	slow := c.sdk(t, c.admin, n.api)
	if err := signsAt(t.Context(), slow, n.id, name); err != nil { // its connection stands, and its key is open
		t.Fatal(err)
	}
	for range pausedTurns {
		resume := n.pause(t)
		k, err := api.RotateKey(t.Context(), &vaultpb.RotateKeyRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		ctx, cancel := context.WithTimeout(client.WithToken(t.Context(), api.Token()), 20*time.Second)
		go func() { answered <- fresh(ctx, slow, k.GetKey()) }()
		select {
		case err := <-answered:
			t.Errorf("a paused node answered: %v", err)
			answered <- err
		case <-time.After(200 * time.Millisecond):
		}
		resume()
		if err := <-answered; err != nil && kind.Of(err) != kind.Unavailable {
			t.Error(err)
		}
		cancel()
	}
}
