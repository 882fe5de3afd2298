package dev

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Command is `conclave dev`.
func Command() *cobra.Command {
	var opt Options
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, for trying",
		Long: "Run a cluster of real node processes on loopback, with a genesis by three demo custodians and one unseal for all nodes. Prints\n" +
			"\"conclave dev: ready\" on stdout when every node has signed; then load DIR/env.sh (administrator) or DIR/user.env.sh (user demo).\n" +
			"All its secrets lie in clear in DIR/dev-secrets: never use such a cluster for anything else.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			opt.Stdout, opt.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return Run(ctx, opt)
		},
	}
	cmd.Flags().StringVar(&opt.Dir, "dir", "", "where the cluster lives (default $XDG_STATE_HOME/conclave/dev)")
	cmd.Flags().IntVar(&opt.Nodes, "nodes", 0, "how many nodes, 1 to 7 (default: as before, else 3)")
	cmd.Flags().StringSliceVar(&opt.HSM, "hsm", nil, "soft, or softhsm for a PKCS#11 token of its own on each node;\none for all nodes or one for each, separated by commas (default: as before, else soft)")
	cmd.Flags().StringVar(&opt.Module, "softhsm-module", "", "path of SoftHSM's `libsofthsm2.so` (default: where distributions put it)")
	_ = cmd.RegisterFlagCompletionFunc("hsm", cobra.FixedCompletions([]string{hsmSoft, hsmSoftHSM}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
