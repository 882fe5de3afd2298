package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	readyLine = "conclave dev: ready\n"
	// formTime is what a start gets: it takes five seconds on an idle machine.
	formTime = 90 * time.Second
	// stopTime is the contract's.
	stopTime = 10 * time.Second
)

// devCluster is a cluster of `conclave dev`.
type devCluster struct {
	cluster
	*child
}

// devProcess starts `conclave dev` and does not wait.
func devProcess(dir string, args ...string) (*child, error) {
	cmd := exec.Command(program, append([]string{"dev", "--dir", dir}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(dir), "LANG=C.UTF-8"}
	return spawn("conclave dev --dir "+dir, cmd)
}

// formed waits for the ready line.
func formed(c *child) error {
	return patiently(formTime, func() error {
		switch {
		case c.out.String() == readyLine:
			return nil
		case !c.running():
			return nil // told apart below
		}
		return errors.New("not ready")
	})
}

func openDev(dir string, args ...string) (*devCluster, error) {
	c, err := devProcess(dir, args...)
	if err != nil {
		return nil, err
	}
	if err := formed(c); err != nil || c.out.String() != readyLine {
		_ = c.stop(stopTime)
		return nil, fmt.Errorf("%s: %w: stdout %q, stderr:\n%s", c.name, errors.Join(err, errors.New("did not become ready")), c.out, c.err)
	}
	d := &devCluster{child: c, cluster: cluster{dir: dir, secrets: filepath.Join(dir, "dev-secrets"), said: &transcript{}}}
	return d, d.look()
}

// look reads what dev left in its folder.
func (d *devCluster) look() error {
	var ports []struct{ ID, API, HSM string }
	b, err := os.ReadFile(filepath.Join(d.dir, "ports.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &ports); err != nil {
		return err
	}
	for _, p := range ports {
		d.nodes = append(d.nodes, &member{id: p.ID, api: p.API, dir: filepath.Join(d.dir, p.ID), hsm: p.HSM})
	}
	admin, err := envFile(filepath.Join(d.dir, "env.sh"))
	if err != nil {
		return err
	}
	user, err := envFile(filepath.Join(d.dir, "user.env.sh"))
	d.admin, d.user = caller{env: admin, said: d.said}, caller{env: user, said: d.said}
	return err
}

var exportLine = regexp.MustCompile(`^export ([A-Z_]+)='([^']*)'$`)

// envFile reads a file of export lines, and refuses anything else in it.
func envFile(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for line := range strings.Lines(string(b)) {
		m := exportLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fmt.Errorf("%s: the line %q is no export NAME='value'", path, line)
		}
		env[m[1]] = m[2]
	}
	return env, nil
}

// dev starts a cluster that is the test's alone, and stops and checks it in the end.
func dev(t testing.TB, args ...string) *devCluster {
	t.Helper()
	d := devAt(t, filepath.Join(t.TempDir(), "dev"), args...)
	t.Cleanup(func() {
		if !t.Failed() && d.running() {
			d.serving(t, 30*time.Second)
			d.healthy(t)
		}
	})
	return d
}

func devAt(t testing.TB, dir string, args ...string) *devCluster {
	t.Helper()
	d, err := openDev(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.end(t) })
	return d
}

// end stops dev and demands that no node outlives it.
func (d *devCluster) end(t testing.TB) {
	t.Helper()
	pids := d.pids()
	if t.Failed() {
		for _, n := range d.nodes {
			b, _ := os.ReadFile(filepath.Join(n.dir, "server.log"))
			t.Logf("%s: the end of its log:\n%s", n.id, b[max(0, len(b)-1500):])
		}
		t.Logf("dev:\n%s", d.err)
	}
	if err := d.child.stop(stopTime); err != nil {
		t.Error(err)
	}
	d.gone(t, pids)
}

func (d *devCluster) pids() map[string]int {
	all := map[string]int{}
	for _, n := range d.nodes {
		if pid, err := n.pid(); err == nil {
			all[n.dir] = pid
		}
	}
	return all
}

// gone demands that the processes end; it ends those that do not.
func (d *devCluster) gone(t testing.TB, pids map[string]int) {
	t.Helper()
	for dir, pid := range pids {
		err := patiently(stopTime, func() error {
			if alive(pid, dir) {
				return fmt.Errorf("node process %d of %s outlives dev", pid, dir)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
			_ = send(pid, dir, syscall.SIGKILL)
		}
	}
}
