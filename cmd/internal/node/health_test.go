package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/vault/guard"
)

// wellness is what a process says of itself, all services at once.
func (w *world) wellness(p *process) map[string]bool {
	w.t.Helper()
	reply, err := p.health.List(w.ctx(), &healthpb.HealthListRequest{})
	w.must(err)
	well := map[string]bool{}
	for service, s := range reply.GetStatuses() {
		well[service] = s.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}
	return well
}

// TestHealthOfALife follows a node through its states: nobody may take a sealed or a cut off node for a dead one, nor for one that
// uses keys.
func TestHealthOfALife(t *testing.T) {
	inWorld(t, func(w *world) {
		becomes := func(p *process, what string, want map[string]bool) {
			t.Helper()
			var got map[string]bool
			w.within(15*time.Second, string(p.id)+" is "+what, func() bool {
				got = w.wellness(p)
				return cmp.Equal(got, want)
			})
		}
		sealed := map[string]bool{healthNode: true, healthUnsealed: false, healthServing: false}
		serving := map[string]bool{healthNode: true, healthUnsealed: true, healthServing: true}
		alone := map[string]bool{healthNode: true, healthUnsealed: true, healthServing: false}
		first := w.form(3)
		for _, p := range w.live() {
			becomes(p, "sealed", sealed)
		}
		w.genesis(first)
		w.unseal(w.ids()...)
		for _, p := range w.live() {
			becomes(p, "serving", serving)
		}
		for _, p := range []*process{w.leader(), w.followers()[0]} {
			w.isolate(p.id)
			becomes(p, "cut off", alone)
			w.rejoin(p.id)
			becomes(p, "back", serving)
		}
	})
}

// answering is a health socket in a data directory, whose node is as alive and ready say.
func answering(t *testing.T, dataDir string, alive, ready error) {
	t.Helper()
	l, err := listenHealth(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	h := newHealth(l, func(context.Context) error { return alive }, func() error { return ready }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// configured writes a configuration file whose data directory exists.
func configured(t *testing.T, dir string) (file, dataDir string) {
	t.Helper()
	file, dataDir = filepath.Join(dir, "node.yaml"), filepath.Join(dir, "data")
	text := "node: n1\ndata_dir: data\napi: {bind: \"127.0.0.1:1\"}\ncluster: {bind: \"127.0.0.1:2\"}\nhsm: {pin: {file: pin}}\n"
	if err := errors.Join(os.MkdirAll(dataDir, 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return file, dataDir
}

type printed []any

func (p *printed) Print(_ *cobra.Command, v any) error {
	*p = append(*p, v)
	return nil
}

func runHealth(t *testing.T, args ...string) (printed, error) {
	t.Helper()
	var out printed
	cmd := HealthCommand(&out)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out, err
}

// TestHealthCommand: what supervisors see, exit codes included.
func TestHealthCommand(t *testing.T) {
	for _, c := range []struct {
		name         string
		alive, ready error
		service      string
		code         int
		says         string
	}{
		{"well", nil, nil, "serving", 0, ""},
		{"sealed and well", nil, hsm.ErrSealed, "node", 0, ""},
		{"without a lease and well", nil, guard.ErrNoLease, "node", 0, ""},
		{"without a lease and unsealed", nil, guard.ErrNoLease, "unsealed", 0, ""},
		{"sealed", nil, hsm.ErrSealed, "unsealed", kind.ExitSealed, "is sealed"},
		{"sealed, asked for more", nil, hsm.ErrSealed, "serving", kind.ExitSealed, "is sealed"},
		{"without a lease", nil, guard.ErrNoLease, "serving", kind.ExitUnavailable, "no serving lease"},
		{"stuck", context.DeadlineExceeded, nil, "node", kind.ExitUnavailable, "consensus does not answer"},
		{"stuck, asked for more", cluster.ErrStopped, nil, "serving", kind.ExitUnavailable, "consensus does not answer"},
		{"unknown service", nil, nil, "raft", kind.ExitUsage, "there are: node, serving, unsealed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, dataDir := configured(t, t.TempDir())
			answering(t, dataDir, c.alive, c.ready)
			out, err := runHealth(t, "--config", file, "--service", c.service)
			if kind.ExitCode(err) != c.code {
				t.Errorf("exit %d, %v; want %d", kind.ExitCode(err), err, c.code)
			}
			want := printed{HealthReport{Node: "n1", Service: c.service, Status: "SERVING"}}
			if c.code != 0 {
				want = nil
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("it says %v, not %q", err, c.says)
				}
			}
			if diff := cmp.Diff(want, out); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestHealthOfNobody: no server, one that was killed and left its socket, and one that never answers are all no.
func TestHealthOfNobody(t *testing.T) {
	refused := func(t *testing.T, file, says string) {
		t.Helper()
		_, err := runHealth(t, "--config", file)
		if kind.Of(err) != kind.Unavailable || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want UNAVAILABLE and %q", kind.Of(err), err, says)
		}
	}
	t.Run("no server", func(t *testing.T) {
		file, _ := configured(t, t.TempDir())
		refused(t, file, "node n1 does not run here")
	})
	t.Run("a socket left behind", func(t *testing.T) {
		file, dataDir := configured(t, t.TempDir())
		l, err := listenHealth(dataDir)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		refused(t, file, "connection refused")
		answering(t, dataDir, nil, nil) // takes its place
		if _, err := runHealth(t, "--config", file); err != nil {
			t.Error(err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		file, dataDir := configured(t, t.TempDir())
		l, err := listenHealth(dataDir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // connections wait in its queue for ever
		refused(t, file, "node n1 does not answer")
	})
	t.Run("no configuration", func(t *testing.T) {
		if _, err := runHealth(t, "--config", filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// TestHealthSocketIsPrivate: its file is its owner's, however deep the data directory lies.
func TestHealthSocketIsPrivate(t *testing.T) {
	for _, depth := range []int{0, 1, 3} {
		dir := filepath.Join(t.TempDir(), strings.Repeat(strings.Repeat("d", 100)+"/", depth))
		file, dataDir := configured(t, dir)
		answering(t, dataDir, nil, nil)
		info, err := os.Lstat(filepath.Join(dataDir, healthFile))
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("depth %d: %v, %v", depth, info.Mode(), err)
		}
		if _, err := runHealth(t, "--config", file); err != nil {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

// TestHealthSocketErrors name the path, also where the kernel saw another one.
func TestHealthSocketErrors(t *testing.T) {
	for _, depth := range []int{0, 2} {
		dir := filepath.Join(t.TempDir(), strings.Repeat(strings.Repeat("d", 100)+"/", depth), "absent")
		_, err := listenHealth(dir)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), dir) {
			t.Errorf("listening: %v", err)
		}
		if _, err := dialHealth(t.Context(), dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), dir) {
			t.Errorf("dialling: %v", err)
		}
	}
	taken := t.TempDir()
	if err := os.MkdirAll(filepath.Join(taken, healthFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listenHealth(taken); err == nil || !strings.Contains(err.Error(), "health socket of an earlier process") {
		t.Errorf("in the place of a folder: %v", err)
	}
}

// TestHealthSpeaksTheStandardProtocol: NOT_FOUND for what it does not know, so that any probe of that protocol can tell.
func TestHealthSpeaksTheStandardProtocol(t *testing.T) {
	h := newHealth(nil, func(context.Context) error { return nil }, func() error { return nil }, slog.New(slog.DiscardHandler))
	defer h.rpc.Stop()
	if _, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
}

// TestHealthEndsWithAnError when its socket does: the node must not go on without it unseen.
func TestHealthEndsWithAnError(t *testing.T) {
	l, err := listenHealth(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := newHealth(l, nil, nil, slog.New(slog.DiscardHandler))
	l.Close()
	if err := h.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
