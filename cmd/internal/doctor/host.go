package doctor

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxProcFile bounds what is read of one file of the kernel.
const maxProcFile = 4 << 20

// host is the machine as it is asked. Tests replace what they cannot bring about.
type host struct {
	root     string // of /proc and /sys
	now      func() time.Time
	statfs   func(path string, into *unix.Statfs_t) error
	adjtimex func(*unix.Timex) (int, error)
	gettime  func(clock int32) (time.Duration, error)
	getres   func(clock int32) (time.Duration, error)
	rlimit   func(resource int) (unix.Rlimit, error)
	lookup   func(ctx context.Context, name string) ([]net.IP, error)
	latency  func(dir string) (time.Duration, error) // median of a small write and its fsync
	patience time.Duration                           // with one call of the cluster
	built    time.Time                               // when the program's source was committed; zero: not known
}

func thisHost() host {
	return host{
		root: "/", now: time.Now, statfs: unix.Statfs, adjtimex: unix.Adjtimex, latency: syncLatency, built: buildTime(), patience: callTimeout,
		gettime: func(clock int32) (time.Duration, error) { return clockCall(unix.ClockGettime, clock) },
		getres:  func(clock int32) (time.Duration, error) { return clockCall(unix.ClockGetres, clock) },
		rlimit: func(resource int) (l unix.Rlimit, err error) {
			err = unix.Getrlimit(resource, &l)
			return l, err
		},
		lookup: func(ctx context.Context, name string) ([]net.IP, error) {
			return net.DefaultResolver.LookupIP(ctx, "ip", name)
		},
	}
}

func clockCall(call func(int32, *unix.Timespec) error, clock int32) (time.Duration, error) {
	var t unix.Timespec
	err := call(clock, &t)
	return time.Duration(t.Nano()), err
}

// read is a file of /proc or /sys without the blanks around it.
func (h host) read(path string) (string, error) {
	f, err := os.Open(filepath.Join(h.root, path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	r := bufio.NewReader(f)
	for b.Len() < maxProcFile {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			break // its end; the kernel's files have no other that helps anybody
		}
	}
	return strings.TrimSpace(b.String()), nil
}

// existing is the nearest folder at or above path that is there: where a data directory will be made.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// ownerOf is the user who owns a file.
func ownerOf(path string) (int, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return 0, err
	}
	return int(s.Uid), nil
}
