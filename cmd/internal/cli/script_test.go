package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/cmd/internal/cli"
	"github.com/conclave-vault/conclave/cmd/internal/custody"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"conclave": func() {
			os.Exit(cli.Run(context.Background(), cli.Deps{
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Commands: ceremonies,
				CompletionTime: 15 * time.Second, // what is completed is asked here, on machines that do much else; how long it may take, elsewhere
			}, os.Args[1:]))
		},
	})
}

// ceremonies are the commands of another package that the shell completes from here.
func ceremonies(env *cli.Env) []*cobra.Command {
	return []*cobra.Command{custody.CeremonyCommand(env), custody.CustodianCommand(env)}
}

// TestScripts runs the dialogues of testdata, each against three fake nodes of its own. The environment is that of an
// administrator; $USER_CERT and $USER_KEY are a user's, $FOREIGN_CERT and $FOREIGN_KEY those of another authority.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: func(env *testscript.Env) error { return setup(t, env) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"cluster": steer,
			"mode":    mode,
			"same":    same,
			"many":    many,
			"edit":    edit,
		},
	})
}

type fakeKey struct{}

func setup(t *testing.T, env *testscript.Env) error {
	ca, state := clienttest.NewCA(t, "c1"), newCatalog()
	foreign := clienttest.NewCA(t, "c1")
	var addresses []string
	for _, name := range nodeNames {
		n := &node{catalog: state, name: name, ca: ca, pair: ca.Issue(t, ca.URI("node", name))}
		s := ca.Serve(t, clienttest.Listen(t), n.pair, n.register)
		env.Defer(s.Stop)
		addresses = append(addresses, s.Addr)
	}
	env.Values[fakeKey{}] = state
	env.Setenv("CONCLAVE_ADDR", strings.Join(addresses, ","))
	env.Setenv("GORACE", "atexit_sleep_ms=20") // else each command ends with a second's sleep under -race
	env.Setenv("BAD", "x\x1b[2Jy")             // a sequence that clears a terminal
	path := func(name string) string { return filepath.Join(env.WorkDir, ".pki", name) }
	files := map[string][]byte{"CONCLAVE_CACERT": ca.PEM()}
	large := bytes.Repeat([]byte{0x61}, 1<<20+1)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "large.txt"), large, 0o600); err != nil {
		return err
	}
	for prefix, certificate := range map[string]struct {
		ca   *clienttest.CA
		role string
	}{"CONCLAVE": {ca, "administrator"}, "USER": {ca, "user"}, "FOREIGN": {foreign, "administrator"}} {
		pair := certificate.ca.Issue(t, certificate.ca.URI(certificate.role, "ada"))
		files[prefix+"_CERT"], files[prefix+"_KEY"] = clienttest.CertificatePEM(pair), clienttest.KeyPEM(t, pair)
	}
	if err := os.Mkdir(path(""), 0o700); err != nil {
		return err
	}
	for name, content := range files {
		env.Setenv(name, path(name))
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// exits CODE COMMAND ARG… runs a command that must end with exactly that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%s did not run: %v", args[1], err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// steer changes what the fake cluster is like: cluster seal|pending|settled, cluster down NODE,
// cluster flip|rewrite|lose|unreadable NODE LEAF.
func steer(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value(fakeKey{}).(*catalog)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case neg || len(args) == 0:
		ts.Fatalf("usage: cluster VERB …")
	case len(args) == 1:
		c.sealed, c.pending = args[0] == "seal", args[0] == "pending"
	case args[0] == "down":
		c.down[args[1]] = true
	default:
		damageRecord(ts, c, args[0], args[1], args[2])
	}
}

func damageRecord(ts *testscript.TestScript, c *catalog, how, node, leaf string) {
	i, err := strconv.Atoi(leaf)
	ts.Check(err)
	record := c.records[node][i]
	switch how {
	case "flip":
		record.Data[len(record.Data)/2] ^= 1
	case "rewrite": // as someone who knows the format would: the hash beside it matches
		record.Data[len(record.Data)/2] ^= 1
		hash := tlog.RecordHash(record.Data)
		record.Hash = hash[:]
	case "lose":
		c.records[node] = append(c.records[node][:i], c.records[node][i+1:]...)
	case "unreadable":
		record.Data = unreadable
	default:
		ts.Fatalf("unknown damage %q", how)
	}
}

// edit FILE OLD NEW changes a text in a file, once.
func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	content := ts.ReadFile(args[0])
	if !strings.Contains(content, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(content, args[1], args[2], 1)), 0o600))
}

// many PREFIX N puts keys PREFIX0… into the catalog.
func many(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: many PREFIX N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	c := ts.Value(fakeKey{}).(*catalog)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		name := args[0] + strconv.Itoa(i)
		c.keys[name] = &vaultpb.Key{Name: name}
	}
}

// mode FILE PERM checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERM")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := strconv.FormatInt(int64(info.Mode().Perm()), 8); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}
