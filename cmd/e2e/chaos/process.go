package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// machine is what a node runs on: a process of this host, or a container.
type machine interface {
	start() error
	// end waits for the node's end; hard: it is killed.
	end(hard bool) error
	// freeze returns when no thread of the node runs; thaw lets it go on, and a node that is not frozen, too.
	freeze(ctx context.Context) error
	thaw() error
	running() bool
	// collect brings the log of a node that has ended, and its usage log, to the node's folder.
	collect(ctx context.Context) error
}

// node is one member of the cluster.
type node struct {
	id, api, cluster, dir string
	machine
}

func (n *node) config() string { return filepath.Join(n.dir, "node.yaml") }
func (n *node) log() string    { return filepath.Join(n.dir, "server.log") }

// process is a node's process on this host.
type process struct {
	*node
	binary string
	env    []string
	cmd    *exec.Cmd
	done   chan struct{}
}

// start starts the server; the kernel kills it if the campaign dies first.
func (n *process) start() error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, done, started := exec.Command(n.binary, "server", "--config", n.config()), make(chan struct{}), make(chan error)
	cmd.Env, cmd.Stdout, cmd.Stderr = n.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	go func() {
		// The death signal comes when the thread that started the process ends, so that thread waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ends is the campaign's doing, or found in its log
			close(done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", n.id, err)
	}
	n.cmd, n.done = cmd, done
	return nil
}

func (n *process) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

func (n *process) signal(s syscall.Signal) error {
	if !n.running() {
		return fmt.Errorf("%s does not run; its log is %s", n.id, n.log())
	}
	return n.cmd.Process.Signal(s)
}

// end signals the process and waits for its end, by force if it takes longer than a server may.
func (n *process) end(hard bool) error {
	if !n.running() {
		return nil
	}
	s := syscall.SIGTERM
	if hard {
		s = syscall.SIGKILL
	}
	err := n.signal(s)
	select {
	case <-n.done:
	case <-time.After(15 * time.Second):
		err = errors.Join(err, fmt.Errorf("%s did not end within 15 s of %s", n.id, s), n.signal(syscall.SIGKILL))
		<-n.done
	}
	return err
}

func (n *process) freeze(ctx context.Context) error {
	return errors.Join(n.signal(syscall.SIGSTOP), n.stopped(ctx))
}

func (n *process) thaw() error { return n.signal(syscall.SIGCONT) }

// collect has nothing to do: all is where it is looked for.
func (n *process) collect(context.Context) error { return nil }

// stopped waits until the kernel says that no thread of the process runs.
func (n *process) stopped(ctx context.Context) error {
	path := fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid)
	return poll(ctx, 5*time.Second, n.id+" is stopped", func(context.Context) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything but ends here
		if !strings.HasPrefix(rest, "T") {
			return fmt.Errorf("state %.1s", rest)
		}
		return nil
	})
}

// poll looks until look has no complaint; its last one is the error.
func poll(ctx context.Context, within time.Duration, what string, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%s: not within %s: %w", what, within, err)
		}
	}
}

// pause waits; false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
