package custody_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/cmd/internal/custody"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// terminal is the command line of a test: output as JSON, answers prepared.
type terminal struct {
	t       *testing.T
	conn    grpc.ClientConnInterface
	answers []string
	out     map[string]any
	stderr  bytes.Buffer
}

func (e *terminal) Dial(context.Context) (grpc.ClientConnInterface, error) {
	if e.conn == nil {
		return nil, errors.New("no cluster is set")
	}
	return e.conn, nil
}

func (e *terminal) Print(_ *cobra.Command, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	e.out = nil
	return json.Unmarshal(b, &e.out)
}

func (e *terminal) Stderr() io.Writer { return &e.stderr }

func (e *terminal) Prompt(question string) ([]byte, error) {
	if len(e.answers) == 0 {
		return nil, errors.New("nobody answers: " + question)
	}
	answer := e.answers[0]
	e.answers = e.answers[1:]
	return []byte(answer), nil
}

// run executes one command line. Its input is no terminal.
func (e *terminal) run(args ...string) error {
	e.t.Helper()
	root := &cobra.Command{Use: "conclave", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(custody.CustodianCommand(e), custody.CeremonyCommand(e))
	root.SetArgs(args)
	root.SetIn(strings.NewReader(""))
	root.SetOut(io.Discard)
	root.SetErr(&e.stderr)
	return root.ExecuteContext(within(e.t))
}

func (e *terminal) must(args ...string) map[string]any {
	e.t.Helper()
	if err := e.run(args...); err != nil {
		e.t.Fatalf("conclave %s: %v", strings.Join(args, " "), err)
	}
	return e.out
}

func isUsage(err error) bool { return status.Code(err) == codes.InvalidArgument }

func TestCustodianNewAndShow(t *testing.T) {
	e := &terminal{t: t}
	path := filepath.Join(t.TempDir(), "alice.id")
	made := e.must("custodian", "new", "--name", "alice", "--out", path)
	if made["name"] != "alice" || made["encrypted"] != false || !strings.Contains(e.stderr.String(), "not encrypted") {
		t.Errorf("%v, %q", made, e.stderr.String())
	}
	card, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ceremony.ParsePublic(card)
	if err != nil || c.Recipient != made["recipient"] || string(card) != made["card"].(string)+"\n" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, file := range []string{path, path + ".pub"} {
		shown := e.must("custodian", "show", file)
		if shown["recipient"] != made["recipient"] || shown["card"] != made["card"] {
			t.Errorf("%s: %v", file, shown)
		}
	}
}

func TestCustodianNewNeverOverwrites(t *testing.T) {
	e := &terminal{t: t}
	for _, taken := range []string{"a", "a.pub"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, taken), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := e.run("custodian", "new", "--name", "alice", "--out", filepath.Join(dir, "a"))
		if !isUsage(err) || !strings.Contains(err.Error(), taken+" exists") {
			t.Errorf("%s: %v", taken, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: %d files, %v", taken, len(entries), err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, taken)); err != nil || string(b) != "precious" {
			t.Errorf("%s: %q, %v", taken, b, err)
		}
	}
}

// TestPassphrases has few encryptions: each takes seconds under the race detector.
func TestPassphrases(t *testing.T) {
	e := &terminal{t: t}
	dir := t.TempDir()
	path := filepath.Join(dir, "alice.id")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("correct horse"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	made := e.must("custodian", "new", "--name", "alice", "--out", path, "--passphrase-fd", descriptor(t, r))
	if made["encrypted"] != true || e.stderr.Len() > 0 {
		t.Errorf("%v, %q", made, e.stderr.String())
	}
	phrase := filepath.Join(dir, "phrase")
	writeFile(t, phrase, "correct horse\n", 0o600)
	shown := e.must("custodian", "show", path, "--passphrase-file", phrase)
	if shown["card"] != made["card"] || shown["encrypted"] != true {
		t.Errorf("%v", shown)
	}
	e.answers = []string{""}
	if err := e.run("custodian", "show", path); !errors.Is(err, ceremony.ErrPassphrase) || len(e.answers) > 0 {
		t.Errorf("an empty answer: %v", err)
	}
	if err := e.run("custodian", "show", path); err == nil || !strings.Contains(err.Error(), "passphrase of "+path) {
		t.Errorf("nobody to answer: %v", err)
	}
}

func TestPassphraseFilesAreChecked(t *testing.T) {
	e := &terminal{t: t}
	dir := t.TempDir()
	out := func() string { return filepath.Join(dir, "x.id") }
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    func(error) bool
	}{
		"readable": {"phrase", 0o644, func(err error) bool { return errors.Is(err, ceremony.ErrPermissions) }},
		"empty":    {"\n", 0o600, isUsage},
		"large":    {strings.Repeat("x", 2000), 0o600, func(err error) bool { return err != nil }},
	} {
		path := filepath.Join(dir, name)
		writeFile(t, path, c.content, c.mode)
		if err := e.run("custodian", "new", "--name", "a", "--out", out(), "--passphrase-file", path); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := e.run("custodian", "new", "--name", "a", "--out", out(), "--passphrase-fd", "-7"); !isUsage(err) {
		t.Errorf("no descriptor: %v", err)
	}
	if _, err := os.Stat(out()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an identity was written: %v", err)
	}
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestUsageErrors(t *testing.T) {
	e := &terminal{t: t}
	card := filepath.Join(t.TempDir(), "card")
	if err := os.WriteFile(card, []byte("no card"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"custodian new --name alice",
		"custodian new --out x",
		"custodian new --name a/b --out " + filepath.Join(t.TempDir(), "x"),
		"ceremony genesis",
		"ceremony genesis --threshold 2",
		"ceremony genesis --custodian " + card,
		"ceremony genesis --threshold 2 --custodian " + card,
		"ceremony genesis --threshold 1 --custodian " + card,
		"ceremony genesis --threshold 1 --custodian " + card + " --ttl -1s",
		"ceremony genesis --threshold 1 --custodian " + card + ".absent",
		"ceremony unseal",
		"ceremony roster --admit n2",
		"ceremony roster --identity x",
		"ceremony abort 123",
	} {
		if err := e.run(strings.Fields(line)...); !isUsage(err) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestCeremoniesByCommand walks the commands as an administrator and two custodians would, in one place.
func TestCeremoniesByCommand(t *testing.T) {
	c := newCluster(t, "n1")
	e := &terminal{t: t, conn: c.conn}
	dir := t.TempDir()
	var cards, identities []string
	for _, name := range []string{"alice", "bob"} {
		path := filepath.Join(dir, name)
		e.must("custodian", "new", "--name", name, "--out", path)
		cards = append(cards, "--custodian", path+".pub")
		identities = append(identities, "--identity", path)
	}
	if err := e.run("ceremony", "status"); status.Code(err) != codes.NotFound {
		t.Errorf("before any ceremony: %v", err)
	}
	open := e.must(append([]string{"ceremony", "genesis", "--threshold", "2"}, cards...)...)
	if open["phase"] != "commit" || len(open["custodians"].([]any)) != 2 {
		t.Errorf("%v", open)
	}
	aborted := e.must("ceremony", "abort", open["id"].(string), "--reason", "rehearsal")
	if aborted["phase"] != "aborted" || aborted["reason"] != "rehearsal" {
		t.Errorf("%v", aborted)
	}
	done := e.must(append(append([]string{"ceremony", "genesis", "--threshold", "2"}, cards...), identities...)...)
	if done["phase"] != "done" || done["master_generation"] != 1.0 {
		t.Errorf("%v", done)
	}
	if strings.Contains(string(mustJSON(t, done)), "ciphertext") {
		t.Error("sealed shares are printed")
	}
	shown := e.must("custodian", "show", filepath.Join(dir, "bob"))
	pinned := shown["clusters"].([]any)[0].(map[string]any)
	if pinned["cluster"] != clusterID || pinned["roster_sha256"] != done["roster_sha256"] || len(shown["shares"].([]any)) != 1 {
		t.Errorf("%v", shown)
	}
	unsealed := e.must(append([]string{"ceremony", "unseal"}, identities...)...)
	if n := unsealed["nodes"].([]any)[0].(map[string]any); n["unsealed"] != true {
		t.Errorf("%v", unsealed)
	}
	if s := e.must("ceremony", "status", unsealed["ceremony"].(string)); s["phase"] != "done" || len(s["verdicts"].([]any)) != 2 {
		t.Errorf("%v", s)
	}
	if s := e.must("ceremony", "status", "--purpose", "genesis"); s["id"] != done["id"] {
		t.Errorf("%v", s)
	}
	c.join("n2")
	if s := e.must(append([]string{"ceremony", "roster", "--admit", "n2"}, identities...)...); s["phase"] != "done" {
		t.Errorf("%v", s)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// descriptor duplicates f's descriptor, because the command closes the one it is given.
func descriptor(t *testing.T, f *os.File) string {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(fd)
}
