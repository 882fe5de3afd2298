package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// shell is what the command line gives.
type shell struct {
	json     bool
	out, err bytes.Buffer
}

func (s *shell) Print(_ *cobra.Command, v any) error { return json.NewEncoder(&s.out).Encode(v) }
func (s *shell) Structured() bool                    { return s.json }
func (s *shell) Text(text string) error              { _, err := s.out.WriteString(text); return err }
func (s *shell) Stderr() io.Writer                   { return &s.err }

func call(t *testing.T, structured bool, args ...string) (*shell, error) {
	t.Helper()
	s := &shell{json: structured}
	cmd := Command(s)
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	return s, cmd.ExecuteContext(t.Context())
}

// TestMeasuresEveryAlgorithm: each row has figures that came from somewhere, and nothing stays in the temporary folder.
func TestMeasuresEveryAlgorithm(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := call(t, true, "hsm", "--time", "50ms")
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Model != "conclave soft token" || len(r.Algorithms) == 0 || strings.Count(s.err.String(), "\n") != len(r.Algorithms) {
		t.Errorf("%+v, progress:\n%s", r, &s.err)
	}
	for _, a := range r.Algorithms {
		if a.Missing == "" && (a.Token <= 0 || a.Wall <= 0 || a.Open <= 0 || a.Evict <= 0 || a.Memory < 0 || a.Operation == "") {
			t.Errorf("no figures: %+v", a)
		}
		if a.Missing == "" && (a.Bare <= 0 || a.Ratio <= 0) {
			t.Errorf("nothing beside %s", a.Algorithm)
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestTable(t *testing.T) {
	text := Report{Model: "m", Algorithms: []Row{
		{Algorithm: "a", Operation: "sign", Token: 90, Wall: 1.25, Open: 3, Bare: 100, Ratio: 0.9},
		{Algorithm: "b", Operation: "mac", Token: 90, Wall: 1, Open: 3}, {Algorithm: "c", Missing: "no CKM_C"},
	}}.text()
	for _, want := range []string{"a          sign       90", "0.90", "no CKM_C"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, args := range map[string][]string{
		"use soft or softhsm": {"hsm", "--hsm", "card"}, "from 50ms": {"hsm", "--time", "1ms"}, "10m0s are": {"hsm", "--time", "1h"},
		"/nowhere.so": {"hsm", "--hsm", "softhsm", "--softhsm-module", "/nowhere.so", "--time", "50ms"},
	} {
		if _, err := call(t, false, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}
