package doctor_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/cli"
	"github.com/conclave-vault/conclave/cmd/internal/doctor"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/cmd/internal/ports"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"conclave": func() {
		os.Exit(cli.Run(context.Background(), cli.Deps{
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
			Commands: func(env *cli.Env) []*cobra.Command {
				return []*cobra.Command{doctor.Command(env), node.InitCommand(), node.ServerCommand("v-test")}
			},
		}, os.Args[1:]))
	}})
}

// TestScripts runs the program, and beside it real servers, on loopback ports of their own: $API, $CLUSTER, $GOSSIP.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=20")
			reserved, err := ports.Reserve(3)
			if err != nil {
				return err
			}
			env.Defer(func() { reserved.Close() })
			for i, name := range []string{"API", "CLUSTER", "GOSSIP"} {
				env.Setenv(name, reserved.Addrs[i])
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"expand": expand, "await": await, "until": until},
	})
}

// expand FILE… replaces $NAME in files.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		path := filepath.Clean(ts.MkAbs(name))
		ts.Check(os.WriteFile(path, []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
	}
}

// await ADDR waits until somebody listens.
func await(ts *testscript.TestScript, neg bool, args []string) {
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.Dial("tcp", args[0]); err == nil {
			ts.Check(conn.Close())
			return
		}
	}
	ts.Fatalf("nobody listens on %s: %v", fmt.Sprint(args), err)
}

// until ARG… runs conclave until it succeeds.
func until(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if ts.Exec("conclave", args...) == nil {
			return
		}
	}
	ts.Fatalf("conclave %v never succeeds:\n%s", args, ts.ReadFile("stderr"))
}
