package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// child is a process of this test.
type child struct {
	name     string
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{} // closed when it has ended
}

// spawn starts a process that the kernel kills if the test process dies first.
func spawn(name string, cmd *exec.Cmd) (*child, error) {
	c := &child{name: name, cmd: cmd, out: &output{}, err: &output{}, done: make(chan struct{})}
	if cmd.Stdout == nil && cmd.Stderr == nil { // a log file is the caller's
		cmd.Stdout, cmd.Stderr = c.out, c.err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The death signal comes when the thread that started the process ends, so that thread waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the exit code tells
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return c, nil
}

func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (c *child) signal(s syscall.Signal) error {
	if !c.running() {
		return nil
	}
	return c.cmd.Process.Signal(s)
}

var errSlow = errors.New("has not ended")

// ended waits for the process's end and returns its exit code; -1 if a signal ended it.
func (c *child) ended(within time.Duration) (int, error) {
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("%s %w within %s; its errors:\n%s", c.name, errSlow, within, c.err)
	}
}

// stop ends the process in order, or by force if it takes too long.
func (c *child) stop(within time.Duration) error {
	_ = c.signal(syscall.SIGTERM)
	_, err := c.ended(within)
	if err != nil {
		_ = c.signal(syscall.SIGKILL)
		<-c.done
	}
	return err
}

// alive reports whether pid is a process whose command line holds word. Asking for the word keeps a test away from a stranger
// that got the number of a process that ended.
func alive(pid int, word string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(line), word)
}

// send signals a process that is no child of the test, after a look at whose it is.
func send(pid int, word string, s syscall.Signal) error {
	if !alive(pid, word) {
		return fmt.Errorf("pid %d is not a process of %s", pid, word)
	}
	return syscall.Kill(pid, s)
}
