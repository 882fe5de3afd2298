package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// nodeSubject is what an order about a node restricts: everything that it would sign.
func nodeSubject(id string) string { return "node/" + id }

// order gives an order about a node, through any node but that one, and notes when it was acknowledged as a restriction of the node.
func (f *faults) order(during string, n *node, action vaultpb.NodeAction) (lift func(), err error) {
	r := restriction{subject: nodeSubject(n.id), during: during, sent: f.h.now()}
	if _, err := insist(f.past[n.id].ChangeNode, &vaultpb.ChangeNodeRequest{Node: n.id, Action: action}); err != nil {
		return nil, fmt.Errorf("%s of %s: %w", action, n.id, err)
	}
	r.acked = f.h.now()
	return f.h.restricted(r), nil
}

// drain takes a node out of service for a moment.
func (f *faults) drain(ctx context.Context, name string, n *node) error {
	lift, err := f.order(name, n, vaultpb.NodeAction_NODE_ACTION_DRAIN)
	if err != nil {
		return err
	}
	pause(ctx, afterwards)
	return f.undrain(n, lift)
}

func (f *faults) undrain(n *node, lift func()) error {
	lift()
	_, err := insist(f.past[n.id].ChangeNode, &vaultpb.ChangeNodeRequest{Node: n.id, Action: vaultpb.NodeAction_NODE_ACTION_UNDRAIN})
	return err
}

// drainCutOff takes a node out of service that cannot hear of it.
func (f *faults) drainCutOff(ctx context.Context, name string, n *node) error {
	if err := f.c.isolate(n); err != nil {
		return err
	}
	lift, err := f.order(name, n, vaultpb.NodeAction_NODE_ACTION_DRAIN)
	pause(ctx, afterwards)
	if err := errors.Join(err, f.c.heal()); err != nil {
		return err
	}
	pause(ctx, afterwards)
	return f.undrain(n, lift)
}

// remove takes a node out of the cluster, and in again with an empty disk and its HSM. The first node stays: its configuration has no
// place for a token.
func (f *faults) remove(ctx context.Context, name string) error {
	n := f.c.nodes[1+f.dice.IntN(len(f.c.nodes)-1)]
	lift, err := f.order(name, n, vaultpb.NodeAction_NODE_ACTION_REMOVE)
	if err != nil {
		return err
	}
	pause(ctx, afterwards)
	if err := errors.Join(n.end(false), n.archive(), n.wipe(), os.Remove(f.c.tokenFile(n))); err != nil {
		return err
	}
	at := f.c.nodes[0]
	if _, err := f.c.run(ctx, at, "node", "token", n.id, "--out", f.c.tokenFile(n)); err != nil {
		return err
	}
	lift()
	if err := n.start(); err != nil {
		return err
	}
	if err := f.c.voting(ctx, len(f.c.nodes)); err != nil { // before that nobody misses it
		return err
	}
	return f.back(ctx, n)
}

// archive keeps the usage log of a node that has ended, as its operator would.
func (n *node) archive() error {
	for i := 1; ; i++ {
		to := filepath.Join(n.dir, fmt.Sprintf("usage.%d", i))
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			return os.Rename(filepath.Join(n.dir, "data", "usage"), to)
		}
	}
}

// wipe leaves nothing of a node that has ended but its HSM.
func (n *node) wipe() error {
	data := filepath.Join(n.dir, "data")
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "token.keystore") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(data, e.Name())))
		}
	}
	return err
}
