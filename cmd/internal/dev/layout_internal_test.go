package dev

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLayout(t testing.TB, dir string) layout {
	t.Helper()
	l := layout{dir}
	must(t, os.MkdirAll(l.secrets(), 0o700))
	return l
}

func TestDefaultDir(t *testing.T) {
	for name, c := range map[string]struct{ state, home, want string }{
		"absolute": {"/var/lib/me", "/home/me", "/var/lib/me/conclave/dev"},
		"relative": {"state", "/home/me", "/home/me/.local/state/conclave/dev"},
		"absent":   {"", "/home/me", "/home/me/.local/state/conclave/dev"},
		"no home":  {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_STATE_HOME", c.state)
			t.Setenv("HOME", c.home)
			got, err := DefaultDir()
			if got != c.want || (err == nil) != (c.want != "") || (err != nil && !strings.Contains(err.Error(), "--dir")) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestNewDev(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for nodes, ok := range map[int]bool{0: true, 1: true, 7: true, 8: false, -1: false} {
		d, err := newDev(Options{Nodes: nodes, Stderr: &strings.Builder{}})
		if (err == nil) != ok || (err != nil && !errors.Is(err, ErrOptions)) {
			t.Errorf("%d nodes: %v", nodes, err)
		}
		if ok && (!filepath.IsAbs(d.dir) || filepath.Base(d.dir) != "dev") {
			t.Errorf("%d nodes: %s with %d", nodes, d.dir, d.opt.Nodes)
		}
	}
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	must(t, err)
	d, err := newDev(Options{Dir: "x y"})
	if err != nil || d.dir != filepath.Join(here, "x y") {
		t.Errorf("a relative folder became %s, %v", d.dir, err)
	}
}

func TestOneDevOnAFolder(t *testing.T) {
	l := newLayout(t, t.TempDir())
	must(t, os.WriteFile(filepath.Join(l.dir, "dev.pid"), []byte("99999999999 of a dev that died"), 0o600))
	first, err := l.lock()
	must(t, err)
	pid := strconv.Itoa(os.Getpid())
	if b, err := os.ReadFile(filepath.Join(l.dir, "dev.pid")); err != nil || string(b) != pid {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if _, err := l.lock(); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "with pid "+pid+";") || !strings.Contains(err.Error(), l.dir) {
		t.Errorf("a second one: %v", err)
	}
	other, err := newLayout(t, t.TempDir()).lock()
	must(t, err)
	must(t, other.Close())
	must(t, first.Close())
	again, err := l.lock()
	must(t, err)
	must(t, again.Close())
	if _, err := (layout{filepath.Join(l.dir, "none")}).lock(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// addresses of all nodes, which must be different loopback ports.
func addresses(t *testing.T, all []place) []string {
	t.Helper()
	var addrs []string
	seen := map[string]bool{}
	for _, p := range all {
		for _, a := range []string{p.API, p.Cluster, p.Gossip} {
			host, port, err := net.SplitHostPort(a)
			if err != nil || host != "127.0.0.1" || port == "0" || seen[a] {
				t.Errorf("%s: address %q", p.ID, a)
			}
			seen[a] = true
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// choose is what a start chooses, and it ends at once.
func choose(t *testing.T, l layout, count int, kinds []string) ([]place, error) {
	t.Helper()
	places, reserved, err := l.places(t.Context(), count, kinds)
	if err == nil {
		must(t, reserved.Close())
	}
	return places, err
}

func TestPortsAreKept(t *testing.T) {
	l := newLayout(t, t.TempDir())
	first, err := choose(t, l, 3, nil)
	must(t, err)
	if addresses(t, first); first[0].ID != "n1" || first[2].ID != "n3" {
		t.Errorf("they are called %v", first)
	}
	for _, a := range addresses(t, first) { // they were let go again
		conn, err := net.Listen("tcp", a)
		must(t, err)
		must(t, conn.Close())
	}
	again, err := choose(t, l, 3, nil)
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
}

// TestATakenPortIsReplaced and the others stay: clients of the other nodes need not learn anything.
func TestATakenPortIsReplaced(t *testing.T) {
	for name, take := range map[string]func(string) (interface{ Close() error }, error){
		"TCP": func(a string) (interface{ Close() error }, error) { return net.Listen("tcp", a) },
		"UDP": func(a string) (interface{ Close() error }, error) { return net.ListenPacket("udp", a) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t, t.TempDir())
			first, err := choose(t, l, 3, nil)
			must(t, err)
			thief, err := take(first[1].API)
			must(t, err)
			defer thief.Close()
			got, err := choose(t, l, 3, nil)
			must(t, err)
			addresses(t, got)
			want := append([]place(nil), first...)
			want[1].API = got[1].API
			if diff := cmp.Diff(want, got); diff != "" || got[1].API == first[1].API {
				t.Errorf("%s was taken and is now %s\n%s", first[1].API, got[1].API, diff)
			}
			again, err := choose(t, l, 3, nil)
			must(t, err)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("the replacement is not kept:\n%s", diff)
			}
		})
	}
}

func TestAClusterKeepsItsSize(t *testing.T) {
	l := newLayout(t, t.TempDir())
	_, err := choose(t, l, 2, nil)
	must(t, err)
	if _, err := choose(t, l, 3, nil); err == nil || !strings.Contains(err.Error(), "start it with --nodes 2") {
		t.Errorf("%v", err)
	}
	if same, err := choose(t, l, 0, nil); err != nil || len(same) != 2 {
		t.Errorf("without a number: %d nodes, %v", len(same), err)
	}
	must(t, os.WriteFile(filepath.Join(l.dir, "ports.json"), []byte("[{"), 0o600))
	if _, err := choose(t, l, 2, nil); err == nil || !strings.Contains(err.Error(), "ports.json is damaged") {
		t.Errorf("%v", err)
	}
}

func TestPortsFileIsReadable(t *testing.T) {
	l := newLayout(t, t.TempDir())
	want := []place{{"n1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", ""}}
	b, err := json.Marshal(want)
	must(t, err)
	if got := `[{"id":"n1","api":"127.0.0.1:1","cluster":"127.0.0.1:2","gossip":"127.0.0.1:3"}]`; string(b) != got {
		t.Errorf("the file of an earlier release reads %s, this one's %s", got, b)
	}
	_, err = choose(t, l, 1, nil)
	must(t, err)
	left, err := filepath.Glob(filepath.Join(l.dir, "*"))
	must(t, err)
	if diff := cmp.Diff([]string{l.secrets(), filepath.Join(l.dir, "ports.json")}, left); diff != "" {
		t.Error(diff)
	}
}

func TestPrepare(t *testing.T) {
	l := layout{filepath.Join(t.TempDir(), "a b", "dev")}
	for range 2 { // the second time the program is there already
		must(t, l.prepare())
	}
	for _, dir := range []string{l.dir, l.secrets(), filepath.Dir(l.binary())} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	self, err := os.Executable()
	must(t, err)
	want, err := os.ReadFile(self)
	must(t, err)
	got, err := os.ReadFile(l.binary())
	must(t, err)
	info, err := os.Stat(l.binary())
	if err != nil || string(got) != string(want) || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("the copy has %d of %d bytes, %v, %v", len(got), len(want), info.Mode(), err)
	}
}
