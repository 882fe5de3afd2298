package compose_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// nodes of docker-compose.yml.
var nodes = []string{"n1", "n2", "n3"}

// containers are one run's cluster.
type containers struct {
	chapters
	home, project, image string
	wan                  string // the first three bytes of its addresses
	api                  map[string]string
	settings             []string
	said                 []outcome // what the README's commands printed, to be searched for secrets
}

// begin picks names that nobody has and promises to leave nothing behind. It starts nothing.
func begin(t *testing.T) *containers {
	t.Helper()
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	c := &containers{
		chapters: readme(t), home: filepath.Join(t.TempDir(), "home"), project: "conclave-test-" + hex.EncodeToString(id[:]),
		wan: freeNetwork(t), api: map[string]string{},
	}
	c.image = c.project + ":dev"
	c.settings = []string{"CONCLAVE_HOME=" + c.home, "COMPOSE_PROJECT_NAME=" + c.project, "CONCLAVE_IMAGE=" + c.image, "CONCLAVE_WAN=" + c.wan}
	reserved, err := ports.Reserve(len(nodes))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reserved.Close() })
	for i, addr := range reserved.Addrs {
		_, port, _ := net.SplitHostPort(addr)
		c.api[nodes[i]] = addr
		c.settings = append(c.settings, fmt.Sprintf("CONCLAVE_PORT_N%d=%s", i+1, port))
	}
	t.Cleanup(func() { c.end(t) })
	return c
}

// freeNetwork picks a private /24 that no interface of this machine is in; each bridge of the engine has one.
func freeNetwork(t *testing.T) string {
	t.Helper()
	taken, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		var b [2]byte
		_, _ = rand.Read(b[:])
		prefix := fmt.Sprintf("10.%d.%d", b[0], b[1])
		_, ours, err := net.ParseCIDR(prefix + ".0/24")
		if err != nil {
			t.Fatal(err)
		}
		free := true
		for _, a := range taken {
			ip, other, err := net.ParseCIDR(a.String())
			free = free && err == nil && !ours.Contains(ip) && !other.Contains(ours.IP)
		}
		if free {
			return prefix
		}
	}
	t.Fatal("no private network is free")
	return ""
}

// end takes everything away and looks that it is gone.
func (c *containers) end(t *testing.T) {
	if t.Failed() {
		t.Logf("what the nodes said:\n%s", c.shell(t, "./scripts/compose.sh logs --no-color --tail 60").out)
	}
	if o := c.shell(t, c.drill(t, "destroy", "")); o.code != 0 {
		t.Errorf("destroy: exit %d\n%s", o.code, o.errors)
	}
	if docker(t, "image", "ls", "--quiet", c.image) != "" {
		docker(t, "image", "rm", c.image)
	}
	label := "label=com.docker.compose.project=" + c.project
	for _, left := range []string{
		docker(t, "ps", "--all", "--quiet", "--filter", label), docker(t, "volume", "ls", "--quiet", "--filter", label),
		docker(t, "network", "ls", "--quiet", "--filter", label), docker(t, "image", "ls", "--quiet", c.image),
	} {
		if left != "" {
			t.Errorf("left in the engine: %s", left)
		}
	}
	for _, name := range []string{"n1.pin", "n2.token", "admin", "env.sh", "settings"} {
		if _, err := os.Lstat(filepath.Join(c.home, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// described is what the engine says of a container.
type described struct {
	ID    string `json:"Id"`
	State struct {
		Running bool
		Pid     int
		Health  struct{ Status string }
	}
	Config struct {
		User string
		Env  []string
	}
	HostConfig struct {
		ReadonlyRootfs bool
		CapDrop        []string
		CapAdd         []string
		SecurityOpt    []string
		Privileged     bool
		PortBindings   map[string][]struct{ HostIP, HostPort string }
	}
	Mounts          []struct{ Type, Destination string }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

// container is a node's, running or not.
func (c *containers) container(t *testing.T, node string) described {
	t.Helper()
	id := docker(t, "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+c.project,
		"--filter", "label=com.docker.compose.service="+node)
	var all []described
	if err := json.Unmarshal([]byte(docker(t, "inspect", id)), &all); err != nil || len(all) != 1 {
		t.Fatalf("%s has %d containers, %v", node, len(all), err)
	}
	return all[0]
}

// healthy waits until the engine calls these nodes healthy.
func (c *containers) healthy(t *testing.T, which ...string) {
	t.Helper()
	for _, n := range which {
		eventually(t, 45*time.Second, n+" is healthy", func() error {
			if d := c.container(t, n); !d.State.Running || d.State.Health.Status != "healthy" {
				return fmt.Errorf("running %t, health %q", d.State.Running, d.State.Health.Status)
			}
			return nil
		})
	}
}

// health asks in the container, as the health check does, and demands an exit code.
func (c *containers) health(t *testing.T, node, service string, code int) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("health of %s, %s, exits %d", node, service, code), func() error {
		o := run(t, os.Environ(), "docker", "exec", c.container(t, node).ID,
			"/conclave", "health", "--config", "/etc/conclave/node.yaml", "--service", service)
		if o.code != code {
			return fmt.Errorf("exit %d: %s%s", o.code, o.out, o.errors)
		}
		return nil
	})
}

// at is a client of the administrator that calls the named nodes and no others.
func (c *containers) at(t *testing.T, which ...string) *client.Client {
	t.Helper()
	var cfg client.Config
	for _, n := range which {
		cfg.Addresses = append(cfg.Addresses, c.api[n])
	}
	admin := filepath.Join(c.home, "admin")
	if err := cfg.LoadFiles(filepath.Join(admin, "ca.crt"), filepath.Join(admin, "admin.crt"), filepath.Join(admin, "admin.key")); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return api
}

func (c *containers) status(ctx context.Context, api *client.Client) (*vaultpb.StatusReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return api.Status(ctx, &vaultpb.StatusRequest{})
}

// leader waits for one among the nodes that are asked.
func (c *containers) leader(t *testing.T, among ...string) string {
	t.Helper()
	api := c.at(t, among...)
	var leader string
	eventually(t, 15*time.Second, "a leader among "+strings.Join(among, ", "), func() error {
		s, err := c.status(t.Context(), api)
		if err != nil {
			return err
		}
		for _, n := range s.GetNodes() {
			if n.GetRole() == "leader" && strings.Contains(strings.Join(among, ","), n.GetId()) {
				leader = n.GetId()
				return nil
			}
		}
		return fmt.Errorf("the leader is %q", s.GetLeader())
	})
	return leader
}

// others are the nodes but one.
func others(node string) []string {
	var all []string
	for _, n := range nodes {
		if n != node {
			all = append(all, n)
		}
	}
	return all
}
