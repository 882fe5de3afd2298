package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
)

// engineTime bounds one call of the container engine or of compose.sh; building the image and founding the cluster are the longest.
const engineTime = 5 * time.Minute

// boxes is the compose cluster of a campaign, with names, ports and a network of its own.
type boxes struct {
	repository, home, project string
	env                       []string
}

// formContainers brings the compose cluster up, with a genesis, and unseals it.
func formContainers(ctx context.Context, repository, dir string) (*cluster, error) {
	reserved, err := ports.Reserve(3)
	if err != nil {
		return nil, err
	}
	addrs := reserved.Addrs
	b, err := newBoxes(repository, dir, addrs)
	if err != nil {
		return nil, errors.Join(err, reserved.Close())
	}
	c := &cluster{
		reserved: reserved,
		binary:   filepath.Join(b.home, "bin", "conclave"), dir: dir, secrets: filepath.Join(dir, "secrets"), net: newNetwork(ctx), discard: b.discard,
		cut:    func(n *node) error { return b.compose(context.Background(), "cut", n.id) },
		rejoin: func(n *node) error { return b.compose(context.Background(), "rejoin", n.id) },
		env: map[string]string{
			"PATH": os.Getenv("PATH"), "HOME": dir, "CONCLAVE_ADDR": strings.Join(addrs, ","), "CONCLAVE_CACERT": filepath.Join(b.home, "admin", "ca.crt"),
			"CONCLAVE_CERT": filepath.Join(b.home, "admin", "admin.crt"), "CONCLAVE_KEY": filepath.Join(b.home, "admin", "admin.key"),
		},
	}
	steps := []func(context.Context) error{
		func(context.Context) error { return os.MkdirAll(c.secrets, 0o700) },
		func(ctx context.Context) error { return b.compose(ctx, "up") },
		func(ctx context.Context) error { return b.find(ctx, c, addrs) },
		c.genesis, c.unseal, func(ctx context.Context) error { return c.serving(ctx, time.Minute) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// newBoxes picks what nobody else has: a project, a private network. The nodes are reached at addrs.
func newBoxes(repository, dir string, addrs []string) (*boxes, error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	wan, err := freeNetwork()
	if err != nil {
		return nil, err
	}
	b := &boxes{repository: repository, home: filepath.Join(dir, "home"), project: "conclave-chaos-" + hex.EncodeToString(id[:])}
	b.env = append(os.Environ(), "CONCLAVE_HOME="+b.home, "COMPOSE_PROJECT_NAME="+b.project, "CONCLAVE_IMAGE="+b.image(), "CONCLAVE_WAN="+wan)
	for i, addr := range addrs {
		_, port, _ := net.SplitHostPort(addr)
		b.env = append(b.env, fmt.Sprintf("CONCLAVE_PORT_N%d=%s", i+1, port))
	}
	return b, nil
}

func (b *boxes) image() string { return b.project + ":chaos" }

// freeNetwork picks the first three bytes of a private /24 that no interface of this machine is in; each bridge of the engine has one.
func freeNetwork() (string, error) {
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for range 1000 {
		var r [2]byte
		_, _ = rand.Read(r[:])
		prefix := fmt.Sprintf("10.%d.%d", r[0], r[1])
		_, ours, err := net.ParseCIDR(prefix + ".0/24")
		if err != nil {
			return "", err
		}
		free := true
		for _, a := range taken {
			ip, other, err := net.ParseCIDR(a.String())
			free = free && err == nil && !ours.Contains(ip) && !other.Contains(ours.IP)
		}
		if free {
			return prefix, nil
		}
	}
	return "", errors.New("no private network is free")
}

// call runs a program and returns what it printed.
func (b *boxes) call(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = b.repository, b.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func (b *boxes) compose(ctx context.Context, args ...string) error {
	_, err := b.call(ctx, "./scripts/compose.sh", args...)
	return err
}

// find makes nodes of the containers.
func (b *boxes) find(ctx context.Context, c *cluster, addrs []string) error {
	for i, addr := range addrs {
		n := &node{id: fmt.Sprintf("n%d", i+1), api: addr, dir: filepath.Join(c.dir, fmt.Sprintf("n%d", i+1))}
		id, err := b.call(ctx, "docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+b.project, "--filter", "label=com.docker.compose.service="+n.id)
		if err != nil {
			return err
		}
		if id == "" || strings.Contains(id, "\n") {
			return fmt.Errorf("%s has not one container: %q", n.id, id)
		}
		n.machine = &container{node: n, boxes: b, name: id, up: true}
		c.nodes = append(c.nodes, n)
	}
	return nil
}

// discard leaves nothing in the engine.
func (b *boxes) discard() error {
	err := b.compose(context.Background(), "destroy")
	_, e := b.call(context.Background(), "docker", "image", "rm", b.image())
	return errors.Join(err, e)
}

// container is a node in one.
type container struct {
	*node
	boxes  *boxes
	name   string
	up     bool
	frozen bool
}

func (n *container) docker(args ...string) error {
	_, err := n.boxes.call(context.Background(), "docker", append(args, n.name)...)
	return err
}

func (n *container) start() error {
	n.up = true
	return n.docker("start")
}

// end is the engine's kill or stop; both return when the container has ended.
func (n *container) end(hard bool) error {
	n.up = false
	if hard {
		return n.docker("kill")
	}
	return n.docker("stop")
}

func (n *container) running() bool { return n.up }

// freeze puts every thread into the freezer; it returns when they are there.
func (n *container) freeze(context.Context) error {
	n.frozen = true
	return n.docker("pause")
}

func (n *container) thaw() error {
	if !n.frozen {
		return nil
	}
	n.frozen = false
	return n.docker("unpause")
}

// collect copies both logs out of the engine.
func (n *container) collect(ctx context.Context) error {
	data := filepath.Join(n.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	_, err := n.boxes.call(ctx, "docker", "cp", n.name+":/var/lib/conclave/"+n.id+"/usage", data)
	said, e := exec.CommandContext(ctx, "docker", "logs", n.name).CombinedOutput()
	return errors.Join(err, e, os.WriteFile(n.log(), said, 0o600))
}
