package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// commandTime bounds one call of the program.
const commandTime = 90 * time.Second

// transcript collects what the program said, to be searched for secrets.
type transcript struct {
	mu   sync.Mutex
	said []outcome
}

func (tr *transcript) add(o outcome) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.said = append(tr.said, o)
}

func (tr *transcript) all() []outcome {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.said)
}

// caller is somebody who calls the program: the environment, and where it is.
type caller struct {
	env   map[string]string
	dir   string // working folder; empty: the test's
	stdin []byte
	said  *transcript
	// secret marks output that is meant to hold a secret.
	secret bool
}

// outcome is one call's end.
type outcome struct {
	args        []string
	code        int
	out, errors string
	secret      bool
}

func (c caller) with(name, value string) caller {
	c.env = maps.Clone(c.env)
	c.env[name] = value
	return c
}

// at calls the given addresses only.
func (c caller) at(addrs ...string) caller { return c.with("CONCLAVE_ADDR", strings.Join(addrs, ",")) }

func (c caller) input(b []byte) caller {
	c.stdin = b
	return c
}

// revealing says that the output holds a secret on purpose, as datakey's does.
func (c caller) revealing() caller {
	c.secret = true
	return c
}

func (c caller) environ() []string {
	all := []string{}
	for name, value := range c.env {
		all = append(all, name+"="+value)
	}
	return all
}

func (c caller) run(t testing.TB, args ...string) outcome {
	t.Helper()
	// Not the test's context: that has ended when the clean-up checks the cluster.
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	return c.runIn(ctx, t, args...)
}

func (c caller) runIn(ctx context.Context, t testing.TB, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = c.environ(), c.dir, bytes.NewReader(c.stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("conclave %s: %v", strings.Join(args, " "), err)
	}
	o := outcome{args: args, code: cmd.ProcessState.ExitCode(), out: out.String(), errors: errs.String(), secret: c.secret}
	if strings.Contains(o.errors, "panic:") || strings.Contains(o.errors, "DATA RACE") {
		t.Errorf("conclave %s broke:\n%s", strings.Join(args, " "), o.errors)
	}
	if c.said != nil {
		c.said.add(o)
	}
	return o
}

// exits calls the program and demands an exit code. A failure must say something, on stderr alone.
func (c caller) exits(t testing.TB, code int, args ...string) outcome {
	t.Helper()
	o := c.run(t, args...)
	if o.code != code {
		t.Fatalf("conclave %s: exit %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), o.code, code, o.out, o.errors)
	}
	if code != 0 && strings.TrimSpace(o.errors) == "" {
		t.Fatalf("conclave %s: exit %d without a word on stderr", strings.Join(args, " "), o.code)
	}
	return o
}

func (c caller) ok(t testing.TB, args ...string) outcome {
	t.Helper()
	return c.exits(t, 0, args...)
}

// refuses demands an exit code and words of the message.
func (c caller) refuses(t testing.TB, code int, words string, args ...string) outcome {
	t.Helper()
	o := c.exits(t, code, args...)
	if !strings.Contains(o.errors, words) {
		t.Fatalf("conclave %s: the error does not say %q:\n%s", strings.Join(args, " "), words, o.errors)
	}
	return o
}

// document calls with -o json and decodes the one object into out, strictly one.
func (c caller) document(t testing.TB, into any, args ...string) {
	t.Helper()
	c.ok(t, append(args, "-o", "json")...).decode(t, into)
}

func (o outcome) decode(t testing.TB, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(o.out))
	if err := d.Decode(into); err != nil {
		t.Fatalf("conclave %s: %v in %q", strings.Join(o.args, " "), err, o.out)
	}
	if d.More() {
		t.Fatalf("conclave %s: more than one object in %q", strings.Join(o.args, " "), o.out)
	}
}

// field is the output of --field.
func (c caller) field(t testing.TB, path string, args ...string) string {
	t.Helper()
	return strings.TrimRight(c.ok(t, append(args, "--field", path)...).out, "\n")
}

func file(t testing.TB, content []byte) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "in")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func b64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		t.Fatalf("%q is not padded base64: %v", s, err)
	}
	return b
}

func (o outcome) String() string {
	return fmt.Sprintf("conclave %s: exit %d", strings.Join(o.args, " "), o.code)
}
