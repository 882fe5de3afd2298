package dev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// restartDelay is how long a node that ended by itself stays away: long enough to watch the others without it, short enough
	// to watch it rejoin.
	restartDelay = 5 * time.Second
	// stopTime is what nodes get to stop before they are killed; dev promises 10 s in all.
	stopTime = 7 * time.Second
)

// process is one node's process, started again when it ends.
type process struct {
	id   string
	l    layout
	say  func(string, ...any)
	wake func() // the node was started again and is sealed
	env  []string

	mu       sync.Mutex
	cmd      *exec.Cmd
	lifeline *os.File // closing it, however this process dies, stops the node
}

// start starts the process once.
func (p *process) start() (<-chan error, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	logFile, err := os.OpenFile(p.l.log(p.id), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command(p.l.binary(), "server", "--config", p.l.config(p.id), "--lifeline-fd", "3")
	cmd.ExtraFiles = []*os.File{read} // file descriptor 3 there
	cmd.Stdout, cmd.Stderr, cmd.Env = logFile, logFile, p.env
	// A group of its own: Ctrl-C on the terminal is for dev, which then stops its nodes in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.cmd, p.lifeline = cmd, write
	p.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, writeFile(p.l.pid(p.id), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"))
}

func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// supervise keeps the node running until ctx ends, then stops it. An end before the cluster is formed is an error.
func (p *process) supervise(ctx context.Context, formed <-chan struct{}) error {
	for again := false; ; again = true {
		done, err := p.start()
		if err != nil {
			return fmt.Errorf("starting %s: %w", p.id, err)
		}
		if again {
			p.wake()
		}
		select {
		case <-ctx.Done():
			p.stop(done)
			return nil
		case err := <-done:
			p.lifeline.Close()
			select {
			case <-formed:
			default:
				return fmt.Errorf("%s ended (%v); its log: %s\n%s", p.id, err, p.l.log(p.id), tail(p.l.log(p.id)))
			}
			p.say("%s ended (%v); it is started again in %s", p.id, err, restartDelay)
		}
		select {
		case <-time.After(restartDelay):
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *process) stop(done <-chan error) {
	p.lifeline.Close()
	kill := time.AfterFunc(stopTime, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-done
	_ = os.Remove(p.l.pid(p.id))
}

// leftovers waits for nodes that an earlier dev left behind when it was killed: they end by themselves, and until then they hold
// their tokens and ports.
func (l layout) leftovers(ctx context.Context, places []place) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	for _, p := range places {
		err := until(ctx, func(context.Context) error {
			if pid := l.running(p.ID); pid != "" {
				return fmt.Errorf("node %s of an earlier dev still runs, with pid %s", p.ID, pid)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// running returns the pid of the node's process, if there is one. It is found by its command line and not by the pid file, which
// a dev that was killed may not have written any more.
func (l layout) running(id string) string {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return ""
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && bytes.Contains(line, []byte("\x00server\x00--config\x00"+l.config(id)+"\x00")) {
			return filepath.Base(filepath.Dir(path))
		}
	}
	return ""
}

// tailBytes of a log are shown when a node fails.
const tailBytes = 2000

func tail(path string) string {
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-tailBytes):])
}
