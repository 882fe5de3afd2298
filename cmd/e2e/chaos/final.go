package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// atTheEnd looks at every node once all is calm: what was acknowledged must be there, on each of them.
func atTheEnd(ctx context.Context, c *cluster, want map[string]string) (lost, broken []string, life lives, err error) {
	for _, n := range c.nodes {
		states, err := keysOf(ctx, c, n)
		if err != nil {
			return nil, nil, nil, err
		}
		for key, state := range want {
			if got, there := states[key]; !there || got != state {
				lost = append(lost, fmt.Sprintf("%s has %s as %q; %q was acknowledged", n.id, key, got, state))
			}
		}
	}
	if err := c.equalDigests(ctx); err != nil {
		broken = append(broken, err.Error())
	}
	if _, err := c.run(ctx, nil, "log", "verify"); err != nil {
		broken = append(broken, err.Error())
	}
	api, err := c.api(c.addresses(0)...)
	if err != nil {
		return nil, nil, nil, err
	}
	defer api.Close()
	life, err = livesOf(ctx, api)
	return lost, broken, life, err
}

// broke looks into the logs of nodes that have ended.
func (c *cluster) broke() (broken []string, err error) {
	for _, n := range c.nodes {
		b, err := os.ReadFile(n.log())
		if err != nil {
			return nil, err
		}
		for _, word := range []string{"panic:", "fatal error:", "DATA RACE"} {
			if strings.Contains(string(b), word) {
				broken = append(broken, fmt.Sprintf("%s broke (%s): %s", n.id, word, n.log()))
			}
		}
	}
	return broken, nil
}

// keysOf is the catalog as one node lists it.
func keysOf(ctx context.Context, c *cluster, n *node) (map[string]string, error) {
	api, err := c.api(n.api)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	states := map[string]string{}
	next := func(q *vaultpb.ListKeysRequest, token string) { q.PageToken = token }
	for page, err := range client.Pages(ctx, api.ListKeys, &vaultpb.ListKeysRequest{PageSize: 1000, Prefix: "chaos/"}, next) {
		if err != nil {
			return nil, fmt.Errorf("listing the keys of %s: %w", n.id, err)
		}
		for _, k := range page.GetItems() {
			states[k.GetName()] = k.GetState()
		}
	}
	return states, nil
}

// equalDigests demands one digest at one index of all nodes.
func (c *cluster) equalDigests(ctx context.Context) error {
	api, err := c.api(c.addresses(0)...)
	if err != nil {
		return err
	}
	defer api.Close()
	return poll(ctx, 20*time.Second, "equal digests at an equal index", func(ctx context.Context) error {
		s, err := api.Status(ctx, &vaultpb.StatusRequest{})
		if err != nil {
			return err
		}
		first := s.GetNodes()[0]
		for _, n := range s.GetNodes() {
			if n.GetDigest() == "" || n.GetDigest() != first.GetDigest() || n.GetDigestIndex() != first.GetDigestIndex() {
				err = errors.Join(err, fmt.Errorf("%s: %s at %d; %s: %s at %d", n.GetId(), n.GetDigest(), n.GetDigestIndex(), first.GetId(), first.GetDigest(), first.GetDigestIndex()))
			}
		}
		return err
	})
}

// snapshots counts the snapshots on all disks.
func (c *cluster) snapshots() int {
	count := 0
	for _, n := range c.nodes {
		found, err := filepath.Glob(filepath.Join(n.dir, "data", "*", "*", "meta.json"))
		if err == nil {
			count += len(found)
		}
		found, err = filepath.Glob(filepath.Join(n.dir, "data", "*", "*", "*", "meta.json"))
		if err == nil {
			count += len(found)
		}
	}
	return count
}
