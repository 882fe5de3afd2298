package compose_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repository is where the README's commands are typed.
const repository = "../../.."

// Limits. commandTime bounds one command, building the image included.
const (
	commandTime = 4 * time.Minute
	pollEvery   = 20 * time.Millisecond
)

// eventually looks until try has no complaint; the last complaint fails the test.
func eventually(t *testing.T, within time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		<-time.After(pollEvery)
	}
}

// outcome is one command's end.
type outcome struct {
	code        int
	out, errors string
}

func run(t testing.TB, environment []string, name string, args ...string) outcome {
	t.Helper()
	// Not the test's context: that has ended when the clean-up runs.
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = repository, environment
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// environ is what commands see: the caller's, because the docker program needs its own variables, without what settles Conclave.
func (c *containers) environ() []string {
	var all []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONCLAVE_") && !strings.HasPrefix(v, "COMPOSE_") {
			all = append(all, v)
		}
	}
	return append(all, c.settings...)
}

// shell runs commands as the README has them, in the repository's folder. Only the name of the folder for the nodes' files differs.
func (c *containers) shell(t testing.TB, script string) outcome {
	t.Helper()
	script = strings.ReplaceAll(script, "compose-state", c.home)
	if _, err := os.Stat(filepath.Join(c.home, "env.sh")); err == nil {
		script = ". " + c.home + "/env.sh\n" + script
	}
	return run(t, c.environ(), "bash", "-euo", "pipefail", "-c", script)
}

func (c *containers) ok(t testing.TB, script string) string {
	t.Helper()
	o := c.shell(t, script)
	c.said = append(c.said, o)
	if o.code != 0 {
		t.Fatalf("exit %d of\n%s\nstdout: %s\nstderr: %s", o.code, script, o.out, o.errors)
	}
	return o.out
}

// exits demands an exit code of the program.
func (c *containers) exits(t testing.TB, code int, script string) {
	t.Helper()
	if o := c.shell(t, script); o.code != code {
		t.Fatalf("exit %d, want %d, of\n%s\nstdout: %s\nstderr: %s", o.code, code, script, o.out, o.errors)
	}
}

// docker calls the engine.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	o := run(t, os.Environ(), "docker", args...)
	if o.code != 0 {
		t.Fatalf("docker %s: exit %d\n%s", strings.Join(args, " "), o.code, o.errors)
	}
	return strings.TrimSpace(o.out)
}
