// Command conclave is a node of a Conclave cluster and the client of one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/bench"
	"github.com/conclave-vault/conclave/cmd/internal/cli"
	"github.com/conclave-vault/conclave/cmd/internal/custody"
	"github.com/conclave-vault/conclave/cmd/internal/dev"
	"github.com/conclave-vault/conclave/cmd/internal/doctor"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/cmd/internal/token"
)

func main() { os.Exit(run()) }

// run exists so that the signal handler is undone before the program ends.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.Deps{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Commands: func(env *cli.Env) []*cobra.Command {
			return []*cobra.Command{
				node.InitCommand(), node.ServerCommand(cli.Version()), node.HealthCommand(env), dev.Command(), token.Command(env), bench.Command(env),
				custody.CustodianCommand(env), custody.CeremonyCommand(env),
				doctor.Command(env),
			}
		},
	}, os.Args[1:])
}
