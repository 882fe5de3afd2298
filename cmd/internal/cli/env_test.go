package cli_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/cli"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// outcome is what one run of the program did.
type outcome struct {
	code           int
	stdout, stderr string
}

func run(env map[string]string, commands func(*cli.Env) []*cobra.Command, args ...string) outcome {
	return runWithin(0, env, commands, args...)
}

// runWithin sets what a completion may take.
func runWithin(completion time.Duration, env map[string]string, commands func(*cli.Env) []*cobra.Command, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := cli.Run(context.Background(), cli.Deps{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(k string) string { return env[k] }, Commands: commands,
		CompletionTime: completion,
	}, args)
	return outcome{code, stdout.String(), stderr.String()}
}

// one makes a command of another package.
func one(do func(*cli.Env, *cobra.Command) error) func(*cli.Env) []*cobra.Command {
	return func(e *cli.Env) []*cobra.Command {
		return []*cobra.Command{{Use: "extra", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return do(e, cmd) }}}
	}
}

func TestCommandsOfOtherPackagesStandInTheSameFrame(t *testing.T) {
	fails := func(err error) func(*cli.Env) []*cobra.Command {
		return one(func(*cli.Env, *cobra.Command) error { return err })
	}
	for name, c := range map[string]struct {
		commands func(*cli.Env) []*cobra.Command
		args     []string
		want     outcome
	}{
		"plain error": {fails(errors.New("disk full")), []string{"extra"}, outcome{1, "", "conclave: extra: disk full\n"}},
		"several lines": {fails(errors.Join(errors.New("a"), errors.New("b"))), []string{"extra"},
			outcome{1, "", "conclave: extra: a; b\n"}},
		"kind": {fails(kind.New(kind.NeedsApproval, "two officers", nil)), []string{"extra"},
			outcome{5, "", "conclave: extra: two officers\n  try: ask a security officer: this release cannot collect approvals\n"}},
		"hint of its own": {fails(kind.New(kind.Ceremony, "closed", map[string]string{"try": "conclave ceremony status x"})), []string{"extra"},
			outcome{1, "", "conclave: extra: closed\n  try: conclave ceremony status x\n"}},
		"usage": {fails(nil), []string{"extra", "x"},
			outcome{2, "", "conclave: extra: unknown command \"x\" for \"conclave extra\"\n  usage: conclave extra [flags]\n  try: conclave extra --help\n"}},
	} {
		if got := run(nil, c.commands, c.args...); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestPrintTakesAnything(t *testing.T) {
	type step struct {
		Who   string `json:"who"`
		Index uint64 `json:"index"`
	}
	value := map[string]any{"steps": []step{{"ada", 18446744073709551615}}}
	for name, c := range map[string]struct {
		value any
		args  []string
		want  string
	}{
		"struct":       {step{"ada", 7}, []string{"-o", "json"}, `{"who":"ada","index":7}` + "\n"},
		"struct table": {step{"ada", 7}, nil, "who    ada\nindex  7\n"},
		"large number": {value, []string{"--field", "steps.0.index"}, "18446744073709551615\n"},
		"nested table": {value, nil, "\nWHO  INDEX\nada  18446744073709551615\n"},
		"list":         {[]string{"a", "b"}, []string{"-o", "json"}, `{"value":["a","b"]}` + "\n"},
		"message": {&vaultpb.CeremonyReply{Ceremony: &vaultpb.Ceremony{Id: "c", Nonce: []byte{1}}, Index: 3}, []string{"--field", "ceremony.nonce"},
			"AQ==\n"},
		"enum": {&vaultpb.ChangeKeyRequest{Action: vaultpb.KeyAction_KEY_ACTION_SUSPEND}, []string{"--field", "action"}, "key_action_suspend\n"},
	} {
		print := one(func(e *cli.Env, cmd *cobra.Command) error { return e.Print(cmd, c.value) })
		if got := run(nil, print, append(c.args, "extra")...); got.stdout != c.want || got.code != 0 {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

func TestDialSpeaksToTheClusterOfTheEnvironment(t *testing.T) {
	ca := clienttest.NewCA(t, "c1")
	n := &node{catalog: newCatalog(), name: "n1", ca: ca}
	server := ca.Serve(t, clienttest.Listen(t), ca.Issue(t, ca.URI("node", "n1")), n.register)
	pair, dir := ca.Issue(t, ca.URI("administrator", "ada")), t.TempDir()
	env := map[string]string{"CONCLAVE_ADDR": " " + server.Addr + " ,"}
	for name, content := range map[string][]byte{"CONCLAVE_CACERT": ca.PEM(), "CONCLAVE_CERT": clienttest.CertificatePEM(pair), "CONCLAVE_KEY": clienttest.KeyPEM(t, pair)} {
		env[name] = filepath.Join(dir, name)
		if err := os.WriteFile(env[name], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask := one(func(e *cli.Env, cmd *cobra.Command) error {
		conn, err := e.Dial(cmd.Context())
		if err != nil {
			return err
		}
		reply, err := vaultpb.NewClusterClient(conn).Status(cmd.Context(), &vaultpb.StatusRequest{})
		if err != nil {
			return err
		}
		return e.Print(cmd, reply)
	})
	if got := run(env, ask, "extra", "--field", "cluster"); got != (outcome{0, "c1\n", ""}) {
		t.Errorf("%+v", got)
	}
	if got := run(nil, ask, "extra"); got.code != kind.ExitUsage || !strings.Contains(got.stderr, "CONCLAVE_ADDR") {
		t.Errorf("without an address: %+v", got)
	}
}
