package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/ports"
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
// dev left behind have ended before the ports are tried. The reservation is to last as long as the nodes may start.
func (l layout) places(ctx context.Context, count int, kinds []string) ([]place, *ports.Reservation, error) {
	kept, err := l.kept()
	if err != nil {
		return nil, nil, err
	}
	if err := l.leftovers(ctx, kept); err != nil {
		return nil, nil, err
	}
	switch {
	case count == 0 && len(kept) != 0:
		count = len(kept)
	case count == 0:
		count = defaultNodes
	case len(kept) != 0 && len(kept) != count:
		return nil, nil, fmt.Errorf("%s holds a cluster of %d nodes; start it with --nodes %d, or give another --dir", l.dir, len(kept), len(kept))
	}
	known := len(kept)
	for i := known; i < count; i++ {
		kept = append(kept, place{ID: "n" + strconv.Itoa(i+1)})
	}
	if err := equip(kept, known, kinds); err != nil {
		return nil, nil, err
	}
	reserved, err := assign(kept)
	if err != nil {
		return nil, nil, err
	}
	b, err := json.MarshalIndent(kept, "", "  ")
	if err == nil {
		err = writeFile(l.ports(), b) // whole or not at all: a damaged file ends the next start
	}
	if err != nil {
		return nil, nil, errors.Join(err, reserved.Close())
	}
	return kept, reserved, nil
}

// assign keeps the ports that are free and picks others for the rest.
func assign(places []place) (*ports.Reservation, error) {
	var addrs []string
	for _, p := range places {
		addrs = append(addrs, p.API, p.Cluster, p.Gossip)
	}
	r, err := ports.Keep(addrs)
	if err != nil {
		return nil, err
	}
	for i := range places {
		places[i].API, places[i].Cluster, places[i].Gossip = r.Addrs[3*i], r.Addrs[3*i+1], r.Addrs[3*i+2]
	}
	return r, nil
}
