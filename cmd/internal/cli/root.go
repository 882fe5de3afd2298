package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/kind"
)

// Deps is what the program gives its commands. All fields but Commands and CompletionTime are required.
type Deps struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	// CompletionTime is what a Tab key may take; 0: a second.
	CompletionTime time.Duration
	// Commands makes the commands of other packages, which stand beside those of this one. nil: none.
	Commands func(*Env) []*cobra.Command
}

// Root makes the command tree. Its errors are not printed: Run does that, in one place.
func Root(d Deps) *cobra.Command {
	root, _ := newRoot(d)
	return root
}

// Run executes the command in args, prints its error, and returns the exit code of the program.
func Run(ctx context.Context, d Deps, args []string) int {
	root, env := newRoot(d)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return kind.ExitOK
	}
	if !env.started { // refused before any command ran: flags, arguments, an unknown command
		err = kind.New(kind.InvalidArgument, err.Error(), nil)
	}
	env.report(cmd, err)
	return kind.ExitCode(err)
}

func newRoot(d Deps) (*cobra.Command, *Env) {
	if d.CompletionTime == 0 {
		d.CompletionTime = completionTime
	}
	env := &Env{deps: d}
	root := &cobra.Command{
		Use:   "conclave",
		Short: "A distributed, replicated key vault cluster",
		Long: `Conclave keeps cryptographic keys from birth to destruction and uses them on every node of a cluster.

Where the cluster is and who you are comes from the environment or from the flags of the same name:

  CONCLAVE_ADDR    addresses of nodes, host:port, comma separated, tried in this order
  CONCLAVE_CACERT  file: PEM certificate of the cluster's CA
  CONCLAVE_CERT    file: your PEM certificate
  CONCLAVE_KEY     file: its PEM private key

Load the shell's completion, which knows the names of keys:  source <(conclave completion bash)   (also zsh, fish, powershell).

Exit codes: 0 ok, 1 error, 2 bad usage or argument, 3 not found, 4 unauthenticated or denied, 5 needs approval,
6 unavailable or pending, 7 sealed, 8 refused by the key's state, 9 does not verify.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetIn(d.Stdin)
	root.SetOut(d.Stdout)
	root.SetErr(d.Stderr)
	env.globalFlags(root.PersistentFlags())
	root.AddCommand(
		env.keyCommand(), env.classCommand(), env.signCommand(), env.verifyCommand(), env.macCommand(), env.verifyMacCommand(),
		env.encryptCommand(), env.decryptCommand(), env.rewrapCommand(), env.dataKeyCommand(), env.agreeCommand(), env.encapsulateCommand(),
		env.decapsulateCommand(), env.statusCommand(), env.sealCommand(),
		env.nodeCommand(), env.pkiCommand(), env.logCommand(), env.usageCommand(), env.levelCommand(), env.watchCommand(), env.versionCommand(),
	)
	if d.Commands != nil {
		root.AddCommand(d.Commands(env)...)
	}
	env.addCompletion(root)
	for _, c := range root.Commands() {
		env.frame(c)
	}
	return root, env
}

// frame prepares a command and those below it: a group demands one of its commands (by itself cobra would print help and exit 0,
// and a script's typing error would pass for success), and a command notes that it was reached.
func (e *Env) frame(c *cobra.Command) {
	for _, sub := range c.Commands() {
		e.frame(sub)
	}
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = needsSubcommand
		return
	}
	run := c.RunE
	if run == nil {
		return
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		e.started, e.args = true, args
		if err := e.checkOutput(); err != nil { // before anything is done in the cluster
			return err
		}
		return run(cmd, args)
	}
}

func needsSubcommand(c *cobra.Command, args []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	what := "a command is missing"
	if len(args) > 0 {
		what = fmt.Sprintf("unknown command %q", args[0])
	}
	return fmt.Errorf("%s; there are: %s", what, strings.Join(names, ", "))
}
