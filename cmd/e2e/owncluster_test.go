package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
)

// ownCluster is formed by hand, command by command, as operators and custodians do.
type ownCluster struct {
	cluster
	servers map[string]*child
	// environments of servers differ in nothing.
	env  []string
	docs []nodeConfig // as first written
}

// carolsPhrase protects one of the identities; the others are in clear.
const carolsPhrase = "correct horse battery staple"

// custodians of an own cluster; two of them unseal it.
var custodians = []string{"alice", "bob", "carol"}

// own forms a cluster of three nodes, with a genesis, and unseals it. The named ones get SoftHSM tokens.
func own(t *testing.T, seal string, softHSMs ...int) *ownCluster {
	t.Helper()
	c := unfounded(t, seal)
	for _, i := range softHSMs {
		c.equip(t, c.nodes[i])
	}
	c.found(t)
	c.joinRest(t)
	c.genesis(t)
	c.unseal(t, "alice", "bob")
	c.serving(t, 20*time.Second)
	return c
}

// unfounded has configurations and nothing else.
func unfounded(t *testing.T, seal string) *ownCluster {
	t.Helper()
	dir := t.TempDir()
	c := &ownCluster{
		cluster: cluster{dir: dir, secrets: filepath.Join(dir, "secrets"), said: &transcript{}},
		servers: map[string]*child{}, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir},
	}
	c.admin = caller{env: map[string]string{"PATH": os.Getenv("PATH"), "HOME": dir}, said: c.said}
	if err := os.Mkdir(c.secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	c.configure(t, seal)
	t.Cleanup(func() { c.endAll(t) })
	return c
}

// free picks ports that nobody listens on, for TCP and UDP, and nobody takes until the test ends.
func free(t *testing.T, n int) []string {
	t.Helper()
	r, err := ports.Reserve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r.Addrs
}

// configure writes three configurations with a PIN file each.
func (c *ownCluster) configure(t *testing.T, seal string) {
	t.Helper()
	addrs := free(t, 9)
	for i := range 3 {
		n := &member{id: fmt.Sprintf("m%d", i+1), api: addrs[3*i], dir: filepath.Join(c.dir, fmt.Sprintf("m%d", i+1))}
		c.nodes = append(c.nodes, n)
		doc := nodeConfig{Node: n.id, DataDir: "data", Seal: seal, API: bind{n.api}, Cluster: bind{addrs[3*i+1]}, Gossip: bind{addrs[3*i+2]}}
		doc.HSM.PIN.File = c.secret(t, n.id+".pin", "the pin of "+n.id+" "+strconv.FormatInt(time.Now().UnixNano(), 36))
		if i > 0 {
			doc.Join.TokenFile = filepath.Join(c.secrets, n.id+".token")
		}
		doc.write(t, n)
		c.docs = append(c.docs, doc)
	}
}

// nodeConfig is what a node's YAML holds here.
type nodeConfig struct {
	Node    string `yaml:"node"`
	DataDir string `yaml:"data_dir"`
	Seal    string `yaml:"seal,omitempty"`
	API     bind   `yaml:"api"`
	Cluster bind   `yaml:"cluster"`
	Gossip  bind   `yaml:"gossip,omitempty"`
	HSM     struct {
		Type   string         `yaml:"type,omitempty"`
		PKCS11 *pkcs11Section `yaml:"pkcs11,omitempty"`
		PIN    struct {
			File string `yaml:"file,omitempty"`
			FD   int    `yaml:"fd,omitempty"`
		} `yaml:"pin"`
	} `yaml:"hsm"`
	Join struct {
		TokenFile string `yaml:"token_file,omitempty"`
	} `yaml:"join,omitempty"`
}

type bind struct {
	Bind string `yaml:"bind"`
}

func (doc nodeConfig) write(t *testing.T, n *member) {
	t.Helper()
	b, err := yaml.Marshal(doc)
	if err == nil {
		err = errors.Join(os.MkdirAll(n.dir, 0o700), os.WriteFile(n.config(), b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *member) config() string { return filepath.Join(m.dir, "node.yaml") }

// secret writes a file into the one folder for secrets.
func (c *cluster) secret(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(c.secrets, name)
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// found founds the cluster on the first node and starts it.
func (c *ownCluster) found(t *testing.T) {
	t.Helper()
	o := c.admin.ok(t, "init", "--config", c.nodes[0].config(), "--out", c.secrets)
	for line := range strings.Lines(o.out) {
		m := exportLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			t.Fatalf("init says %q", line)
		}
		c.admin = c.admin.with(m[1], m[2])
	}
	c.start(t, c.nodes[0])
	eventually(t, 20*time.Second, "the first node answers", func() error { return c.answers(t, 1) })
}

// answers looks whether so many nodes vote.
func (c *ownCluster) answers(t *testing.T, voters int) error {
	o := c.admin.run(t, "node", "list", "-o", "json", "--timeout", "5s")
	if o.code != 0 {
		return errors.New(o.errors)
	}
	if n := strings.Count(o.out, `"voter":true`); n != voters {
		return fmt.Errorf("%d nodes vote", n)
	}
	return nil
}

func (c *ownCluster) joinRest(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes[1:] {
		path := filepath.Join(c.secrets, n.id+".token")
		c.admin.ok(t, "node", "token", n.id, "--out", path)
		mode(t, path, 0o600)
		c.start(t, n)
	}
	eventually(t, 30*time.Second, "all nodes vote", func() error { return c.answers(t, len(c.nodes)) })
	c.admin = c.admin.at(c.addresses()...)
}

func (c *cluster) custodian(name string) string { return filepath.Join(c.secrets, name+".custodian") }

// as are the flags with which a custodian opens the own identity.
func (c *cluster) as(name string) []string {
	args := []string{"--identity", c.custodian(name)}
	if name == "carol" {
		args = append(args, "--passphrase-file", filepath.Join(c.secrets, "carol.pass"))
	}
	return args
}

// genesis opens the ceremony, and runs each custodian's part as a process of its own, side by side, each with another node.
func (c *ownCluster) genesis(t *testing.T) {
	t.Helper()
	c.secret(t, "carol.pass", carolsPhrase)
	open := []string{"ceremony", "genesis", "--threshold", "2"}
	for _, name := range custodians {
		args := []string{"custodian", "new", "--name", name, "--out", c.custodian(name)}
		c.admin.ok(t, append(args, c.as(name)[2:]...)...)
		mode(t, c.custodian(name), 0o600)
		open = append(open, "--custodian", c.custodian(name)+".pub")
	}
	c.admin.ok(t, open...)
	outcomes := make([]outcome, len(custodians))
	var parts sync.WaitGroup
	for i, name := range custodians {
		parts.Go(func() {
			outcomes[i] = c.admin.at(c.nodes[i].api).run(t, append([]string{"ceremony", "genesis"}, c.as(name)...)...)
		})
	}
	parts.Wait()
	for i, o := range outcomes {
		if o.code != 0 {
			t.Fatalf("%s's part of the genesis: exit %d\n%s%s", custodians[i], o.code, o.out, o.errors)
		}
	}
}

// unseal gives shares, each custodian through another node.
func (c *ownCluster) unseal(t *testing.T, names ...string) {
	t.Helper()
	for i, name := range names {
		entry := c.nodes[(i+1)%len(c.nodes)]
		c.admin.at(entry.api).ok(t, append([]string{"ceremony", "unseal"}, c.as(name)...)...)
	}
}

// start starts a node's server; its log and pid lie in its folder.
func (c *ownCluster) start(t *testing.T, n *member) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "server", "--config", n.config())
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, log, log
	s, err := spawn("conclave server "+n.id, cmd)
	if err != nil {
		t.Fatal(err)
	}
	c.servers[n.id] = s
	if err := os.WriteFile(filepath.Join(n.dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *ownCluster) stop(t *testing.T, n *member) {
	t.Helper()
	s := c.servers[n.id]
	if err := s.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := s.ended(stopTime); err != nil || code != 0 {
		t.Errorf("%s after SIGTERM: exit %d, %v", n.id, code, err)
	}
}

// restart stops all nodes and starts them again.
func (c *ownCluster) restart(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		c.stop(t, n)
	}
	for _, n := range c.nodes {
		c.start(t, n)
	}
	c.back(t)
}

// back waits until every node answers: a share that a custodian gives before reaches only those that do, and a node with a device takes a
// second or two to test it.
func (c *ownCluster) back(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, "all nodes are back", func() error {
		if err := c.answers(t, len(c.nodes)); err != nil {
			return err
		}
		for _, n := range c.status(t).Nodes {
			if n.Role == "unreachable" {
				return errors.New(n.ID + " does not answer")
			}
		}
		return nil
	})
}

func (c *ownCluster) endAll(t *testing.T) {
	for _, n := range c.nodes {
		s := c.servers[n.id]
		if s == nil {
			continue
		}
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
			t.Logf("%s: the end of its log:\n%s", n.id, b[max(0, len(b)-1500):])
		}
		if err := s.stop(stopTime); err != nil {
			t.Error(err)
		}
	}
}
