package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// layout is where everything of a dev cluster lies.
type layout struct{ dir string }

func (l layout) secrets() string           { return filepath.Join(l.dir, "dev-secrets") }
func (l layout) secret(name string) string { return filepath.Join(l.secrets(), name) }
func (l layout) binary() string            { return filepath.Join(l.dir, "bin", "conclave") }
func (l layout) node(id string) string     { return filepath.Join(l.dir, id) }
func (l layout) config(id string) string   { return filepath.Join(l.node(id), "node.yaml") }
func (l layout) log(id string) string      { return filepath.Join(l.node(id), "server.log") }
func (l layout) pid(id string) string      { return filepath.Join(l.node(id), "pid") }
func (l layout) membership(id string) string {
	return filepath.Join(l.node(id), "data", "membership.json")
}
func (l layout) custodian(name string) string { return l.secret(name + ".custodian") }

// DefaultDir is $XDG_STATE_HOME/conclave/dev.
func DefaultDir() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" || !filepath.IsAbs(state) { // the specification says to ignore relative ones
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no home folder for the cluster's state; give --dir: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "conclave", "dev"), nil
}

// prepare makes the folders, and copies this program to DIR/bin, because the one that runs may be a temporary file of the go
// command.
func (l layout) prepare() error {
	for _, d := range []string{l.dir, l.secrets(), filepath.Dir(l.binary())} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self == l.binary() {
		return nil
	}
	return copyFile(self, l.binary())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := to + ".tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, to) // a running program cannot be written over
}

// ErrRunning: another dev runs on the folder.
var ErrRunning = errors.New("already running")

// lock makes this the only dev on the folder. The file holds the pid; the lock goes with the process.
func (l layout) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, "dev.pid"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		b, _ := io.ReadAll(io.LimitReader(f, 32))
		return nil, errors.Join(fmt.Errorf("conclave dev is %w on %s with pid %s; stop it first, or give another --dir", ErrRunning, l.dir, string(b)), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return f, err
}

// place is where a node listens.
type place struct {
	ID      string `json:"id"`
	API     string `json:"api"`
	Cluster string `json:"cluster"`
	Gossip  string `json:"gossip"`
	HSM     string `json:"hsm,omitempty"` // hsmSoft if empty
}

// kept are the nodes of earlier starts with the addresses that they had.
func (l layout) kept() ([]place, error) {
	var kept []place
	b, err := os.ReadFile(l.ports())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", l.ports(), err)
	}
	return kept, nil
}

func (l layout) ports() string { return filepath.Join(l.dir, "ports.json") }

// places returns the nodes' kinds of HSM and their addresses: those of the last start, with another port where one is taken now. Nodes that an earlier
// dev left behind have ended before the ports are tried.
func (l layout) places(ctx context.Context, count int, kinds []string) ([]place, error) {
	kept, err := l.kept()
	if err != nil {
		return nil, err
	}
	if err := l.leftovers(ctx, kept); err != nil {
		return nil, err
	}
	switch {
	case count == 0 && len(kept) != 0:
		count = len(kept)
	case count == 0:
		count = defaultNodes
	case len(kept) != 0 && len(kept) != count:
		return nil, fmt.Errorf("%s holds a cluster of %d nodes; start it with --nodes %d, or give another --dir", l.dir, len(kept), len(kept))
	}
	known := len(kept)
	for i := known; i < count; i++ {
		kept = append(kept, place{ID: "n" + strconv.Itoa(i+1)})
	}
	if err := equip(kept, known, kinds); err != nil {
		return nil, err
	}
	if err := assign(kept); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return nil, err
	}
	return kept, writeFile(l.ports(), b) // whole or not at all: a damaged file ends the next start
}

// assign keeps the ports that are free and picks others for the rest. All are held until all are chosen, so that none is given
// twice.
func assign(places []place) error {
	var held []io.Closer
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for i := range places {
		for _, port := range []*string{&places[i].API, &places[i].Cluster, &places[i].Gossip} {
			closers, err := hold(port)
			held = append(held, closers...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// maxPortTries bounds the search for a port that is free for TCP and UDP.
const maxPortTries = 50

// hold listens on *addr for TCP and UDP (gossip needs both), on another port if that one is taken.
func hold(addr *string) ([]io.Closer, error) {
	if *addr == "" {
		*addr = "127.0.0.1:0"
	}
	for range maxPortTries {
		t, err := net.Listen("tcp", *addr)
		if err == nil {
			u, err := net.ListenPacket("udp", t.Addr().String())
			if err == nil {
				*addr = t.Addr().String()
				return []io.Closer{t, u}, nil
			}
			t.Close()
		}
		*addr = "127.0.0.1:0"
	}
	return nil, errors.New("no free port on 127.0.0.1")
}
