package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
)

// cluster is running nodes and those who call them, whoever started them.
type cluster struct {
	dir   string // everything of the cluster is below it
	nodes []*member
	admin caller
	user  caller // may use keys with the label users=demo
	said  *transcript
	// secrets is the only folder that may hold secrets.
	secrets string
}

// member is one node.
type member struct {
	id, api string
	hsm     string // softhsm, or else the embedded token
	dir     string // with node.yaml, pid, server.log, data
}

// statusDocument is `conclave status -o json`, strict about the fields of the contract.
type statusDocument struct {
	Cluster string       `json:"cluster"`
	Leader  string       `json:"leader"`
	Nodes   []nodeStatus `json:"nodes"`
	Dev     bool         `json:"dev"`
	LogSize uint64       `json:"log_size"`
}

type nodeStatus struct {
	ID          string `json:"id"`
	Addr        string `json:"addr"`
	Datacenter  string `json:"datacenter"`
	HSM         string `json:"hsm"`
	Library     string `json:"hsm_library"`
	Sealed      bool   `json:"sealed"`
	Role        string `json:"role"`
	Applied     uint64 `json:"applied"`
	Digest      string `json:"digest"`
	DigestIndex uint64 `json:"digest_index"`
	Lease       bool   `json:"lease"`
	Term        uint64 `json:"term"`
	Error       string `json:"error"`
}

func (c *cluster) status(t testing.TB) statusDocument {
	t.Helper()
	var s statusDocument
	c.admin.document(t, &s, "status")
	return s
}

func (c *cluster) node(id string) *member {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (c *cluster) addresses() []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.api)
	}
	return all
}

func (c *cluster) leader(t testing.TB) *member {
	t.Helper()
	var leader *member
	eventually(t, 10*time.Second, "a leader", func() error {
		id := c.status(t).Leader
		if leader = c.node(id); leader == nil {
			return fmt.Errorf("the leader is %q", id)
		}
		return nil
	})
	return leader
}

// term is the number of the current leadership.
func (c *cluster) term(t testing.TB) uint64 {
	t.Helper()
	var term uint64
	for _, n := range c.status(t).Nodes {
		term = max(term, n.Term)
	}
	return term
}

// follower is some node that does not lead.
func (c *cluster) follower(t testing.TB) *member {
	t.Helper()
	leader := c.leader(t)
	for _, n := range c.nodes {
		if n.id != leader.id {
			return n
		}
	}
	t.Fatal("the cluster has one node")
	return nil
}

// sdk is a client of the SDK with the caller's certificate.
func (c *cluster) sdk(t testing.TB, who caller, addrs ...string) *client.Client {
	t.Helper()
	cfg := client.Config{Addresses: addrs}
	if err := cfg.LoadFiles(who.env["CONCLAVE_CACERT"], who.env["CONCLAVE_CERT"], who.env["CONCLAVE_KEY"]); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return api
}

func (m *member) data() string { return filepath.Join(m.dir, "data") }

// pid of the node's process now.
func (m *member) pid() (int, error) {
	b, err := os.ReadFile(filepath.Join(m.dir, "pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (m *member) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	pid, err := m.pid()
	if err == nil {
		err = send(pid, m.dir, s)
	}
	if err != nil {
		t.Fatalf("%s: %v", m.id, err)
	}
}

// pause stops the node's process without a word until resume, or the end of the test.
func (m *member) pause(t testing.TB) (resume func()) {
	t.Helper()
	pid, err := m.pid()
	if err == nil {
		err = send(pid, m.dir, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatalf("%s: %v", m.id, err)
	}
	eventually(t, 30*time.Second, m.id+" is stopped", func() error { return stopped(pid) })
	resume = func() { _ = send(pid, m.dir, syscall.SIGCONT) } // harmless where it goes on already
	t.Cleanup(resume)
	return resume
}

// stopped says whether the kernel has stopped a process: the signal is taken by one thread, and if that one waits for the disk the
// others go on until it is done.
func stopped(pid int) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	halted := 0
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return err
		}
		_, state, _ := strings.Cut(string(b), ") ") // the name may hold anything but ends here
		switch state[:min(1, len(state))] {
		case "T":
			halted++
		case "D": // stops before it runs again
		default:
			return fmt.Errorf("%s: state %.1q", path, state)
		}
	}
	if halted == 0 {
		return fmt.Errorf("no thread of %d is stopped", len(tasks))
	}
	return nil
}

// serving waits until every node is unsealed and may serve.
func (c *cluster) serving(t testing.TB, within time.Duration) {
	t.Helper()
	eventually(t, within, "every node serves", func() error {
		var errs []error
		for _, n := range c.status(t).Nodes {
			if n.Sealed || !n.Lease {
				errs = append(errs, fmt.Errorf("%s: role %s, sealed %t, lease %t", n.ID, n.Role, n.Sealed, n.Lease))
			}
		}
		return errors.Join(errs...)
	})
}

// equalDigests demands that all nodes show one digest at one index.
func (c *cluster) equalDigests(t testing.TB) {
	t.Helper()
	eventually(t, 15*time.Second, "equal digests at an equal index", func() error {
		s := c.status(t)
		if len(s.Nodes) != len(c.nodes) {
			return fmt.Errorf("status shows %d of %d nodes", len(s.Nodes), len(c.nodes))
		}
		for _, n := range s.Nodes {
			if n.DigestIndex != s.Nodes[0].DigestIndex {
				return fmt.Errorf("%s is at %d, %s at %d", n.ID, n.DigestIndex, s.Nodes[0].ID, s.Nodes[0].DigestIndex)
			}
			if n.Digest != s.Nodes[0].Digest || n.Digest == "" {
				return fmt.Errorf("at %d: %s has %q, %s has %q", n.DigestIndex, n.ID, n.Digest, s.Nodes[0].ID, s.Nodes[0].Digest)
			}
		}
		return nil
	})
}

// healthy is how every cluster ends: equal state, verified log, no secret anywhere, no panic in a log.
func (c *cluster) healthy(t testing.TB) {
	t.Helper()
	c.equalDigests(t)
	c.admin.ok(t, "log", "verify")
	c.clean(t)
}

// clean searches for secrets and for signs of a crash.
func (c *cluster) clean(t testing.TB) {
	t.Helper()
	canaries := c.canaries(t)
	c.search(t, canaries)
	for _, n := range c.nodes {
		b, err := os.ReadFile(filepath.Join(n.dir, "server.log"))
		if err != nil {
			t.Error(err)
		}
		for _, word := range []string{"panic:", "DATA RACE", "fatal error:"} {
			if strings.Contains(string(b), word) {
				t.Errorf("%s broke (%s); the end of its log:\n%s", n.id, word, b[max(0, len(b)-4000):])
			}
		}
	}
}
