package e2e_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// devContract is what scripts rely on after the ready line.
func devContract(t *testing.T, c *devCluster) {
	if got := c.child.out.String(); got != readyLine {
		t.Errorf("stdout is %q", got)
	}
	mode(t, c.dir, 0o700)
	mode(t, c.secrets, 0o700)
	for _, path := range c.secretFiles(t) {
		if filepath.Ext(path) != ".crt" {
			mode(t, path, 0o600)
		}
	}
	for _, n := range c.nodes {
		if pid, err := n.pid(); err != nil || !alive(pid, n.dir) {
			t.Errorf("%s/pid: %d, %v: no such node", n.dir, pid, err)
		}
	}
	for _, file := range []string{"env.sh", "user.env.sh"} {
		checkEnv(t, filepath.Join(c.dir, file))
		worksInShell(t, c, filepath.Join(c.dir, file))
	}
	s := c.status(t)
	if !s.Dev || len(s.Nodes) != 3 || s.Cluster == "" {
		t.Errorf("status: %+v", s)
	}
}

func mode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != want {
		t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
	}
}

func (c *cluster) secretFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(c.secrets, "*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %d files, %v", c.secrets, len(all), err)
	}
	return all
}

func checkEnv(t *testing.T, path string) {
	t.Helper()
	env, err := envFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(env))
	if want := []string{"CONCLAVE_ADDR", "CONCLAVE_CACERT", "CONCLAVE_CERT", "CONCLAVE_KEY", "PATH"}; !slices.Equal(names, want) {
		t.Errorf("%s sets %q, want %q", path, names, want)
	}
	for _, name := range []string{"CONCLAVE_CACERT", "CONCLAVE_CERT", "CONCLAVE_KEY", "PATH"} {
		if !filepath.IsAbs(env[name]) {
			t.Errorf("%s: %s=%q is not absolute", path, name, env[name])
		}
	}
	for addr := range strings.SplitSeq(env["CONCLAVE_ADDR"], ",") {
		if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
			t.Errorf("%s: address %q: %v", path, addr, err)
		}
	}
}

// worksInShell loads the file in a plain shell, which must find program and cluster.
func worksInShell(t *testing.T, c *devCluster, path string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `. "$1" && command -v conclave && conclave sign dev/probe --in - --field node`, "sh", path)
	cmd.Env, cmd.Stdin = []string{"PATH=/usr/bin:/bin"}, strings.NewReader("from a shell")
	out, err := cmd.Output()
	if want := filepath.Join(c.dir, "bin", "conclave") + "\nn1\n"; err != nil || string(out) != want {
		t.Errorf("%s in sh: %v, %q, want %q", path, err, out, want)
	}
}

// devOnce: a second dev on the folder ends with the pid of the first, and changes nothing.
func devOnce(t *testing.T, c *devCluster) {
	second, err := devProcess(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	code, err := second.ended(stopTime)
	if err != nil || code != 1 {
		t.Errorf("a second dev: exit %d, %v", code, err)
	}
	if pid := strconv.Itoa(c.cmd.Process.Pid); !strings.Contains(second.err.String(), pid) {
		t.Errorf("a second dev does not name pid %s: %s", pid, second.err)
	}
	if second.out.String() != "" {
		t.Errorf("a second dev says %q", second.out)
	}
}

// TestDevTakesUpTheSameCluster stops a cluster in each way and starts it again.
func TestDevTakesUpTheSameCluster(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dev")
	d := devAt(t, dir)
	first := remember(t, d)
	stopsWith(t, d, syscall.SIGTERM)

	squatter, err := net.Listen("tcp", d.nodes[1].api) // somebody else took a port meanwhile
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	again := devAt(t, dir)
	if again.nodes[1].api == d.nodes[1].api || again.nodes[0].api != d.nodes[0].api {
		t.Errorf("addresses were %q and are %q", d.addresses(), again.addresses())
	}
	first.stillThere(t, again)
	again.healthy(t)
	killed(t, again)

	last := devAt(t, dir)
	first.stillThere(t, last)
	last.healthy(t)
	stopsWith(t, last, syscall.SIGINT)
}

// memory is what must not change over a restart.
type memory struct{ cluster, pem, signature, message string }

func remember(t *testing.T, d *devCluster) memory {
	t.Helper()
	m := memory{cluster: d.status(t).Cluster, message: file(t, []byte("remember me"))}
	d.admin.ok(t, "key", "create", "kept", "--algorithm", d.signer())
	m.pem = d.admin.ok(t, "key", "public", "kept").out
	m.signature = d.admin.field(t, "signature", "sign", "kept", "--in", m.message)
	return m
}

func (m memory) stillThere(t *testing.T, d *devCluster) {
	t.Helper()
	if got := d.status(t).Cluster; got != m.cluster {
		t.Errorf("the cluster was %s and is %s", m.cluster, got)
	}
	for _, n := range d.nodes {
		who := d.admin.at(n.api)
		if got := who.ok(t, "key", "public", "kept").out; got != m.pem {
			t.Errorf("%s: the public key was %q and is %q", n.id, m.pem, got)
		}
		who.ok(t, "verify", "kept", "--in", m.message, "--signature", m.signature)
		who.ok(t, "sign", "kept", "--in", m.message)
	}
}

// stopsWith ends dev by a signal: all of it, in time, and with exit code 0.
func stopsWith(t *testing.T, d *devCluster, s syscall.Signal) {
	t.Helper()
	pids, start := d.pids(), time.Now()
	if err := d.signal(s); err != nil {
		t.Fatal(err)
	}
	code, err := d.ended(stopTime)
	if err != nil || code != 0 {
		t.Errorf("dev after %s: exit %d, %v\n%s", s, code, err, d.err)
	}
	for dir, pid := range pids {
		if alive(pid, dir) {
			t.Errorf("dev ended before its node %s", dir)
		}
	}
	t.Logf("dev stopped %s after %s", time.Since(start).Round(time.Millisecond), s)
}

// killed ends dev without a chance to tidy up: the nodes end by themselves.
func killed(t *testing.T, d *devCluster) {
	t.Helper()
	pids, start := d.pids(), time.Now()
	if len(pids) != len(d.nodes) {
		t.Fatalf("%d pid files", len(pids))
	}
	if err := d.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.gone(t, pids)
	t.Logf("the nodes ended %s after dev was killed", time.Since(start).Round(time.Millisecond))
}

// interruptions are moments of forming at which dev is killed, in their order.
var interruptions = []string{
	"[1/9]", "[2/9]", "[3/9]", "[4/9]", "[5/9]", "bob committed", "phase reveal", "carol sent its contribution", "alice verified and stored",
	"[6/9]", "alice: node n2 accepted", "[7/9]", "[8/9]", "[9/9]",
}

// TestDevTakesUpAnInterruptedStart kills dev at each step of forming. Each next start goes on from where the last one ended.
func TestDevTakesUpAnInterruptedStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dev")
	for _, moment := range interruptions {
		start := time.Now()
		c, err := devProcess(dir)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, formTime, "dev says "+moment, func() error {
			if strings.Contains(c.err.String(), moment) || !c.running() {
				return nil
			}
			return fmt.Errorf("it says:\n%s", c.err)
		})
		if !c.running() {
			t.Fatalf("dev ended before it said %q:\n%s", moment, c.err)
		}
		if err := c.signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ended(stopTime); err != nil {
			t.Fatal(err)
		}
		t.Logf("killed at %q after %s", moment, time.Since(start).Round(10*time.Millisecond))
	}
	d := devAt(t, dir)
	d.admin.ok(t, "key", "create", "after-all", "--algorithm", d.signer())
	d.healthy(t)
}
