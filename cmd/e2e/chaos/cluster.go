package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// cluster is real nodes on loopback that reach each other through a network of proxies, and clients directly.
type cluster struct {
	binary, dir, secrets string
	nodes                []*node
	net                  *network
	// In containers: what takes a node off the wan and puts it back, and what removes everything. nil: the nodes are processes.
	cut, rejoin func(n *node) error
	discard     func() error
	away        []*node           // that are off the wan
	env         map[string]string // of the administrator, as init exported it
	reserved    io.Closer         // the processes' ports
}

// isolate takes a node off the network, in both directions, until heal.
func (c *cluster) isolate(n *node) error {
	if c.cut != nil {
		c.away = append(c.away, n)
		return c.cut(n)
	}
	for _, other := range c.nodes {
		c.net.cut(route{n.id, other.id})
		c.net.cut(route{other.id, n.id})
	}
	return nil
}

// heal ends everything that was done to the network.
func (c *cluster) heal() error {
	c.net.heal()
	var errs []error
	for _, n := range c.away {
		errs = append(errs, c.rejoin(n))
	}
	c.away = nil
	return errors.Join(errs...)
}

// custodians of the cluster; as many as threshold unseal it.
var custodians = []string{"alice", "bob", "carol"}

const threshold = 2

// form founds a cluster of so many nodes in dir, with a genesis, and unseals it.
func form(ctx context.Context, binary, dir string, count int) (*cluster, error) {
	c := &cluster{binary: binary, dir: dir, secrets: filepath.Join(dir, "secrets"), net: newNetwork(ctx),
		env: map[string]string{"PATH": os.Getenv("PATH"), "HOME": dir}}
	steps := []func(context.Context) error{
		func(context.Context) error { return c.configure(count) }, c.found, c.join, c.genesis, c.unseal,
		func(ctx context.Context) error { return c.serving(ctx, time.Minute) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// close ends all processes in order, stopped ones included.
func (c *cluster) close() error {
	var errs []error
	for _, n := range c.nodes {
		if n.running() {
			errs = append(errs, n.thaw(), n.end(false))
		}
	}
	c.net.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range c.nodes {
		errs = append(errs, n.collect(ctx))
	}
	if c.discard != nil {
		errs = append(errs, c.discard())
	}
	if c.reserved != nil {
		errs = append(errs, c.reserved.Close())
	}
	return errors.Join(errs...)
}

func (c *cluster) configure(count int) error {
	if err := os.MkdirAll(c.secrets, 0o700); err != nil {
		return err
	}
	reserved, err := ports.Reserve(3 * count)
	if err != nil {
		return err
	}
	c.reserved = reserved
	addrs := reserved.Addrs
	for i := range count {
		id := fmt.Sprintf("m%d", i+1)
		n := &node{id: id, api: addrs[3*i], cluster: addrs[3*i+1], dir: filepath.Join(c.dir, id)}
		n.machine = &process{node: n, binary: c.binary, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir}}
		c.nodes = append(c.nodes, n)
	}
	for i, n := range c.nodes {
		if err := c.configureNode(n, addrs[3*i+2]); err != nil {
			return err
		}
	}
	return nil
}

// configureNode writes what an operator would. The node finds the others at the proxies that are made for it alone; snapshots
// come often, so that a node that was away gets one now and then.
func (c *cluster) configureNode(n *node, gossip string) error {
	peers := map[string]string{}
	for _, other := range c.nodes {
		if other == n {
			continue
		}
		addr, err := c.net.connect(route{n.id, other.id}, other.cluster)
		if err != nil {
			return err
		}
		peers[other.id] = addr
	}
	pin := filepath.Join(c.secrets, n.id+".pin")
	bind := func(addr string) map[string]string { return map[string]string{"bind": addr} }
	doc := map[string]any{
		"node": n.id, "data_dir": "data", "api": bind(n.api), "cluster": bind(n.cluster), "gossip": bind(gossip), "peers": peers,
		"hsm": map[string]any{"pin": map[string]string{"file": pin}}, "snapshot": map[string]any{"threshold": 64, "trailing_logs": 64, "interval": "2s"},
	}
	if n != c.nodes[0] {
		doc["join"] = map[string]string{"token_file": c.tokenFile(n)}
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(n.dir, 0o700), os.WriteFile(n.config(), b, 0o600), os.WriteFile(pin, []byte("pin of "+n.id+"\n"), 0o600))
}

func (c *cluster) tokenFile(n *node) string { return filepath.Join(c.secrets, n.id+".token") }

// run calls the program as the administrator, at the given node or, if that is nil, wherever the environment says.
func (c *cluster) run(ctx context.Context, at *node, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.binary, args...)
	for name, value := range c.env {
		if name == "CONCLAVE_ADDR" && at != nil {
			value = at.api
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("conclave %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

var exportLine = regexp.MustCompile(`^export ([A-Z_]+)='([^']*)'$`)

func (c *cluster) found(ctx context.Context) error {
	first := c.nodes[0]
	out, err := c.run(ctx, nil, "init", "--config", first.config(), "--out", c.secrets)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if m := exportLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			c.env[m[1]] = m[2]
		}
	}
	if err := first.start(); err != nil {
		return err
	}
	return c.voting(ctx, 1)
}

// voting waits until so many nodes vote.
func (c *cluster) voting(ctx context.Context, count int) error {
	return poll(ctx, time.Minute, fmt.Sprintf("%d voters", count), func(ctx context.Context) error {
		out, err := c.run(ctx, c.nodes[0], "node", "list", "-o", "json", "--timeout", "5s")
		if n := strings.Count(out, `"voter":true`); err == nil && n != count {
			err = fmt.Errorf("%d nodes vote", n)
		}
		return err
	})
}

func (c *cluster) join(ctx context.Context) error {
	for _, n := range c.nodes[1:] {
		if _, err := c.run(ctx, c.nodes[0], "node", "token", n.id, "--out", c.tokenFile(n)); err != nil {
			return err
		}
		if err := n.start(); err != nil {
			return err
		}
	}
	c.env["CONCLAVE_ADDR"] = strings.Join(c.addresses(0), ",")
	return c.voting(ctx, len(c.nodes))
}

// addresses of all nodes for clients, beginning with one of them.
func (c *cluster) addresses(first int) []string {
	var all []string
	for i := range c.nodes {
		all = append(all, c.nodes[(first+i)%len(c.nodes)].api)
	}
	return all
}

func (c *cluster) identity(name string) string { return filepath.Join(c.secrets, name+".custodian") }

func (c *cluster) genesis(ctx context.Context) error {
	open := []string{"ceremony", "genesis", "--threshold", fmt.Sprint(threshold)}
	for _, name := range custodians {
		if _, err := c.run(ctx, nil, "custodian", "new", "--name", name, "--out", c.identity(name)); err != nil {
			return err
		}
		open = append(open, "--custodian", c.identity(name)+".pub")
	}
	if _, err := c.run(ctx, nil, open...); err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	for i, name := range custodians {
		parts.Go(func() error {
			_, err := c.run(ctx, c.nodes[i%len(c.nodes)], "ceremony", "genesis", "--identity", c.identity(name))
			return err
		})
	}
	return parts.Wait()
}

// unseal has as many custodians as it takes give their shares, through any node.
func (c *cluster) unseal(ctx context.Context) error {
	for _, name := range custodians[:threshold] {
		err := poll(ctx, time.Minute, "a share is accepted", func(ctx context.Context) error {
			_, err := c.run(ctx, nil, "ceremony", "unseal", "--identity", c.identity(name))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// api is a client of the SDK with the administrator's certificate. The caller closes it.
func (c *cluster) api(addrs ...string) (*client.Client, error) {
	cfg, err := c.config(addrs)
	if err != nil {
		return nil, err
	}
	return client.New(cfg)
}

// config is the administrator's.
func (c *cluster) config(addrs []string) (client.Config, error) {
	cfg := client.Config{Addresses: addrs}
	err := cfg.LoadFiles(c.env["CONCLAVE_CACERT"], c.env["CONCLAVE_CERT"], c.env["CONCLAVE_KEY"])
	return cfg, err
}

// serving waits until every node is unsealed and holds a lease.
func (c *cluster) serving(ctx context.Context, within time.Duration) error {
	api, err := c.api(c.addresses(0)...)
	if err != nil {
		return err
	}
	defer api.Close()
	return poll(ctx, within, "every node serves", func(ctx context.Context) error {
		s, err := api.Status(ctx, &vaultpb.StatusRequest{})
		if err != nil {
			return err
		}
		for _, n := range s.GetNodes() {
			if n.GetSealed() || !n.GetLease() {
				return fmt.Errorf("%s: role %s, sealed %t, lease %t", n.GetId(), n.GetRole(), n.GetSealed(), n.GetLease())
			}
		}
		return nil
	})
}

// leader asks who leads.
func (c *cluster) leader(ctx context.Context) (leader *node, err error) {
	api, err := c.api(c.addresses(0)...)
	if err != nil {
		return nil, err
	}
	defer api.Close()
	return leader, poll(ctx, 20*time.Second, "a leader", func(ctx context.Context) error {
		s, err := api.Status(ctx, &vaultpb.StatusRequest{})
		if err != nil {
			return err
		}
		for _, n := range c.nodes {
			if n.id == s.GetLeader() {
				leader = n
				return nil
			}
		}
		return errors.New("none is known")
	})
}
