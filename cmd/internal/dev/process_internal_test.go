package dev

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standIn puts a shell script where the node's program is looked for.
func standIn(t *testing.T, script string) (*process, layout) {
	t.Helper()
	l := newLayout(t, filepath.Join(t.TempDir(), "it's here"))
	must(t, os.MkdirAll(filepath.Dir(l.binary()), 0o700))
	must(t, os.MkdirAll(l.node("n1"), 0o700))
	must(t, os.WriteFile(l.binary(), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	return &process{id: "n1", l: l, say: t.Logf, wake: func() {}}, l
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestANodeEndsWithItsLifeline: it is told how to live, its pid is known, and it ends when the other end of its pipe closes.
func TestANodeEndsWithItsLifeline(t *testing.T) {
	p, l := standIn(t, `echo "$@"; cat <&3; echo ended`)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.supervise(ctx, make(chan struct{})) }()
	eventually(t, "its log", func() bool { return strings.Contains(tail(l.log("n1")), "\n") && exists(l.pid("n1")) })
	if got, want := tail(l.log("n1")), "server --config "+l.config("n1")+" --lifeline-fd 3\n"; got != want {
		t.Errorf("it was started with %q, want %q", got, want)
	}
	b, err := os.ReadFile(l.pid("n1"))
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
	started := time.Now()
	stop()
	must(t, <-ended)
	if took := time.Since(started); took > stopTime {
		t.Errorf("it was killed, after %v", took)
	}
	if !strings.HasSuffix(tail(l.log("n1")), "ended\n") || exists(l.pid("n1")) || syscall.Kill(pid, 0) == nil {
		t.Errorf("something is left of it; its log: %s", tail(l.log("n1")))
	}
}

// TestANodeThatEndsTooEarly shows why.
func TestANodeThatEndsTooEarly(t *testing.T) {
	p, l := standIn(t, `echo the port is taken >&2; exit 3`)
	err := p.supervise(t.Context(), make(chan struct{}))
	for _, part := range []string{"n1 ended", "exit status 3", l.log("n1"), "the port is taken"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not said: %v", part, err)
		}
	}
}

func TestANodeWithoutAProgram(t *testing.T) {
	p, l := standIn(t, "")
	must(t, os.Remove(l.binary()))
	if err := p.supervise(t.Context(), make(chan struct{})); err == nil || !strings.Contains(err.Error(), "starting n1") {
		t.Errorf("%v", err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := tail(path); got != "" {
		t.Errorf("no file has %q", got)
	}
	must(t, os.WriteFile(path, []byte("begin"+strings.Repeat("x", tailBytes-3)+"end"), 0o600))
	if got := tail(path); len(got) != tailBytes || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes, %.10q", len(got), got)
	}
}
