package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/conclave-vault/conclave/transport/client"
)

// Bounds of what a Tab key asks of the cluster.
const (
	// completionTime is for everything together: longer, and a person believes that the shell hangs.
	completionTime = time.Second
	// maxCompletions is how many names are offered. Nobody reads more, and each is asked for with its whole object.
	maxCompletions = 5 * maxPage
)

// errTooMany: what was typed so far fits more names than are offered.
var errTooMany = errors.New("too many to list; type more of it")

// completer asks the cluster for what can stand at the cursor. args are the arguments before it, typed its beginning.
type completer func(ctx context.Context, c *client.Client, cmd *cobra.Command, args []string, typed string) ([]string, error)

// completing makes a shell completion of ask. A shell has nowhere to show an error, so there is nothing to offer then.
func (e *Env) completing(ask completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), e.deps.CompletionTime)
		defer cancel()
		found, err := e.quietly(func(c *client.Client) ([]string, error) { return ask(ctx, c, cmd, args, typed) })
		if errors.Is(err, errTooMany) {
			// No names at all: the shell would go on with what these begin with, which the missing ones need not.
			return cobra.AppendActiveHelp(nil, errTooMany.Error()), cobra.ShellCompDirectiveNoFileComp
		}
		return offered(found, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// quietly makes a client that gives up soon, and without touching what might block.
func (e *Env) quietly(ask func(*client.Client) ([]string, error)) ([]string, error) {
	_, ca, cert, key := e.Credentials()
	for _, file := range []string{ca, cert, key} {
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() { // reading a pipe would wait for a writer
			return nil, fmt.Errorf("%q is no file", file)
		}
	}
	e.flags.timeout, e.flags.discover = e.deps.CompletionTime, false
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	// A node that does not answer leaves time for at least two others.
	cfg.AttemptTimeout = e.deps.CompletionTime / time.Duration(max(1, min(len(cfg.Addresses), 3)))
	c, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return ask(c)
}

// offered drops what does not begin with what was typed, and what could steer the terminal or break the line that the shell's script
// reads: a cluster that lies must not reach into the shell.
func offered(found []string, typed string) []string {
	var fit []string
	for _, f := range found {
		name, _, _ := strings.Cut(f, "\t")
		clean := !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == ':' })
		if clean && name != "" && strings.HasPrefix(name, typed) {
			fit = append(fit, f)
		}
	}
	return fit
}

// described is a completion with words beside it. The shell's scripts cut at a colon, and a line break would be another completion.
func described(name, words string) string {
	return cobra.CompletionWithDesc(name, strings.ReplaceAll(printable(words), ":", "."))
}

// firstArgument offers something for the first argument alone.
func firstArgument(ask completer) completer {
	return func(ctx context.Context, c *client.Client, cmd *cobra.Command, args []string, typed string) ([]string, error) {
		if len(args) > 0 {
			return nil, nil
		}
		return ask(ctx, c, cmd, args, typed)
	}
}

// completeFlag offers what the cluster has for a flag.
func (e *Env) completeFlag(c *cobra.Command, flag string, ask completer) {
	if err := c.RegisterFlagCompletionFunc(flag, e.completing(ask)); err != nil {
		panic(err) // the flag is missing: shows in the first test
	}
}

// complete offers fixed values for a flag.
func complete(c *cobra.Command, flag string, values ...string) {
	fixed := func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return offered(values, typed), cobra.ShellCompDirectiveNoFileComp
	}
	if err := c.RegisterFlagCompletionFunc(flag, fixed); err != nil {
		panic(err)
	}
}

// files are the flags of commands of other packages that name a file or a folder and whose usage does not say so.
var files = map[string]bool{"config": true, "out": true, "dir": true}

// withoutFiles keeps the shell from offering the names of files where none can stand: its default for everything else.
func withoutFiles(c *cobra.Command) {
	for _, sub := range c.Commands() {
		withoutFiles(sub)
	}
	if c.ValidArgsFunction == nil && !strings.HasSuffix(c.Use, " FILE") {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { flagWithoutFiles(c, f) })
	c.PersistentFlags().VisitAll(func(f *pflag.Flag) { flagWithoutFiles(c, f) })
}

func flagWithoutFiles(c *cobra.Command, f *pflag.Flag) {
	_, has := c.GetFlagCompletionFunc(f.Name)
	switch kind, _ := pflag.UnquoteUsage(f); {
	case has || files[f.Name] && kind != "directory" || kind == "file":
		return
	case kind == "directory":
		complete := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, complete) // fails only if there is one already
	default:
		_ = c.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
	}
}
