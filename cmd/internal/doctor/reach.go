package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// callTimeout bounds one call of one node.
	callTimeout = 4 * time.Second
	// callsAtOnce is how many nodes are asked side by side.
	callsAtOnce = 8
)

// reach asks the cluster, as the caller, and then each of its nodes by its own address.
func (c *checkup) reach(ctx context.Context) []Result {
	const name = "cluster"
	if !c.caller.given() {
		return []Result{absent(name, "there are no client credentials to ask it with")}
	}
	if c.unusable {
		return []Result{absent(name, "the client credentials cannot be used")}
	}
	status, err := c.status(ctx, c.caller.Addresses)
	if kind.Of(err) == kind.Uninitialised { // the first node has not led yet, or this node has not heard of it
		return []Result{warn(name, err.Error(), "start the cluster's first node, and wait until its log says that it leads")}
	}
	if err != nil {
		return []Result{fail(name, err.Error(),
			"start the nodes, and correct the client checks above: no address of CONCLAVE_ADDR answers this caller")}
	}
	results := []Result{c.overview(name, status)}
	results = append(results, c.each(ctx, status)...)
	return append(results, versions(status), absent("cluster clock",
		"the API of this release does not tell the clocks of nodes; see time synchronisation on each"))
}

func (c *checkup) status(ctx context.Context, addresses []string) (*vaultpb.StatusReply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	cfg := client.Config{Addresses: addresses, Timeout: c.patience, AttemptTimeout: c.patience / time.Duration(min(max(len(addresses), 1), 3))}
	if err := cfg.LoadFiles(c.caller.CA, c.caller.Cert, c.caller.Key); err != nil {
		return nil, err
	}
	api, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	return api.Status(ctx, &vaultpb.StatusRequest{})
}

// overview is the cluster as one node sees it. That nodes are sealed is for information: custodians may not have come yet.
func (c *checkup) overview(name string, s *vaultpb.StatusReply) Result {
	var sealed []string
	for _, n := range s.GetNodes() {
		if n.GetSealed() {
			sealed = append(sealed, n.GetId())
		}
	}
	found := fmt.Sprintf("%s, %d nodes, leader %s", s.GetCluster(), len(s.GetNodes()), or(s.GetLeader(), "none"))
	if len(sealed) > 0 {
		found += ", sealed: " + strings.Join(sealed, ", ")
	}
	if s.GetLeader() == "" {
		return warn(name, found, "without a leader nothing can be changed: see that a majority of the nodes runs and reaches each other")
	}
	return good(name, "%s", found)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// each calls every node's own address, as clients of this host would.
func (c *checkup) each(ctx context.Context, s *vaultpb.StatusReply) []Result {
	results := make([]Result, len(s.GetNodes()))
	slots := make(chan struct{}, callsAtOnce)
	var calls sync.WaitGroup
	for i, n := range s.GetNodes() {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			results[i] = c.one(ctx, n)
		})
	}
	calls.Wait()
	return results
}

func (c *checkup) one(ctx context.Context, n *vaultpb.NodeStatus) Result {
	name := "node " + n.GetId()
	if n.GetAddr() == "" {
		return warn(name, "the cluster does not know its address: "+or(n.GetError(), "it does not answer"), "start it, and look into its log")
	}
	reply, err := c.status(ctx, []string{n.GetAddr()})
	if err != nil {
		return warn(name, err.Error(), "start it, and see that this host reaches "+n.GetAddr())
	}
	if reply.GetNode() != n.GetId() {
		return warn(name, fmt.Sprintf("node %s answers at its address %s", reply.GetNode(), n.GetAddr()), "correct api.advertise of both nodes")
	}
	return good(name, "answers at %s", n.GetAddr())
}

// versions of the program: equal, but for the time of an upgrade.
func versions(s *vaultpb.StatusReply) Result {
	const name = "versions"
	var all, nodes []string
	for _, n := range s.GetNodes() {
		if v := n.GetVersion(); v != "" {
			nodes = append(nodes, n.GetId()+" "+v)
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	switch len(all) {
	case 0:
		return absent(name, "no node tells its version")
	case 1:
		return good(name, "all of %d nodes run %s", len(nodes), all[0])
	}
	return warn(name, strings.Join(nodes, ", "), "finish the upgrade: all nodes are to run one version")
}
