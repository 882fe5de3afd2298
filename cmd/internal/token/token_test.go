package token_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

var quiet = slog.New(slog.DiscardHandler)

// configuration of a node with a PIN file, in a folder of its own.
func configuration(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("a pin of some length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Config{Node: "n1", DataDir: filepath.Join(dir, "data"), HSM: config.HSM{Type: config.SoftType, PIN: config.PIN{File: pin}}}
}

// TestOpenMakesNothing: only a node that is about to found or to join gets a token made, and then it is the same at every opening.
func TestOpenMakesNothing(t *testing.T) {
	cfg := configuration(t)
	if _, err := token.Open(cfg, quiet); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no token: %v", err)
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening nothing made the data folder: %v", err)
	}
	serials := map[string]bool{}
	for _, open := range []func(config.Config, *slog.Logger) (token.Token, error){token.OpenOrCreate, token.OpenOrCreate, token.Open} {
		tok, err := open(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		serials[tok.Info().Serial] = true
		if err := tok.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(serials) != 1 {
		t.Errorf("serials %v, want one", serials)
	}
}

// TestADeviceIsNotReplaced: what is wrong with a PKCS#11 token is an error, for a node that may make its keys too, and never a file.
func TestADeviceIsNotReplaced(t *testing.T) {
	for what, module := range map[string]string{"no module": "/nowhere/libcard.so", "no library": "/etc/hostname"} {
		cfg := configuration(t)
		cfg.HSM.Type, cfg.HSM.PKCS11 = config.PKCS11Type, config.PKCS11{Module: module, Token: "t"}
		for _, open := range []func(config.Config, *slog.Logger) (token.Token, error){token.Open, token.OpenOrCreate} {
			want := module
			if !pkcs11.Available {
				want = "without cgo"
			}
			if tok, err := open(cfg, quiet); err == nil || tok != nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, %v", what, tok, err)
			}
		}
		if made, err := filepath.Glob(filepath.Join(cfg.DataDir, "*")); err != nil || len(made) != 0 {
			t.Errorf("%s: made %q, %v", what, made, err)
		}
	}
}

func TestInitializeIsForDevices(t *testing.T) {
	if err := token.Initialize(configuration(t), []byte("officer"), quiet); err == nil || !strings.Contains(err.Error(), "hsm.type is soft") {
		t.Error(err)
	}
}

// TestFIPS: what is not approved is missing on the node, with the reason, and so is refused for the cluster.
func TestFIPS(t *testing.T) {
	cfg := configuration(t)
	cfg.HSM.FIPS = true
	tok, err := token.OpenOrCreate(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	for _, c := range tok.Capabilities() {
		if c.Usable() != c.Algorithm.Approved() || !c.Usable() && !strings.Contains(c.Missing, "fips: true") {
			t.Errorf("%+v", c)
		}
	}
}

func TestWrongPIN(t *testing.T) {
	cfg := configuration(t)
	tok, err := token.OpenOrCreate(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.HSM.PIN.File, []byte("another pin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(config.Config, *slog.Logger) (token.Token, error){token.Open, token.OpenOrCreate} {
		if _, err := open(cfg, quiet); !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("a wrong PIN: %v", err)
		}
	}
}

// shell is a command line of which only errors are looked at.
type shell struct{}

func (shell) Print(*cobra.Command, any) error { return nil }
func (shell) Structured() bool                { return true }
func (shell) Text(string) error               { return nil }

// TestProbeSaysWhatToDoNext: a probe of a token that does not open ends with the next step.
func TestProbeSaysWhatToDoNext(t *testing.T) {
	cfg := configuration(t)
	dir := filepath.Dir(cfg.DataDir)
	file := filepath.Join(dir, "node.yaml")
	text := "node: n1\ndata_dir: data\napi: {bind: '127.0.0.1:8200'}\ncluster: {bind: '127.0.0.1:8201'}\nhsm: {pin: {file: pin}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	probe := func() error {
		cmd := token.Command(shell{})
		cmd.SetArgs([]string{"probe", "--config", file})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		return cmd.ExecuteContext(t.Context())
	}
	says := func(what string, err, want error, text string) {
		t.Helper()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, does not say %q", what, err, text)
		}
	}
	says("no token", probe(), fs.ErrNotExist, "made by conclave init, or by joining with conclave server")
	tok, err := token.OpenOrCreate(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	if err := probe(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.HSM.PIN.File, []byte("another pin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	says("a wrong PIN", probe(), hsm.ErrPIN, "put the PIN that the token was made with where hsm.pin of "+file)
}
