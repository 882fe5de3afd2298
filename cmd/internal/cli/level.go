package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) levelCommand() *cobra.Command {
	c := &cobra.Command{Use: "level", Short: "The cluster's feature level: show it, raise it after an upgrade"}
	c.AddCommand(e.levelShow(), e.levelRaise())
	return c
}

func (e *Env) levelShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the level in force and the newest that each node understands", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			reply, err := c.Status(cmd.Context(), &vaultpb.StatusRequest{})
			if err != nil {
				return err
			}
			nodes := []any{}
			for _, n := range reply.GetNodes() {
				nodes = append(nodes, object{{"id", n.GetId()}, {"understands", n.GetUnderstands()}, {"version", n.GetVersion()}, {"error", n.GetError()}})
			}
			return e.Print(cmd, object{{"feature_level", reply.GetFeatureLevel()}, {"nodes", nodes}})
		}),
	}
}

func (e *Env) levelRaise() *cobra.Command {
	return &cobra.Command{
		Use: "raise LEVEL", Short: "Take the cluster to the next level, once every node runs a release that understands it", Args: cobra.ExactArgs(1),
		Long: `A release speaks the level in force and understands one more, so a cluster is upgraded node by node at one level and then raised.

Every node must answer and understand the level. There is no way back: an older release does not start any more on what the new level wrote.`,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			level, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || level == 0 {
				return badArgument(fmt.Sprintf("%q is no feature level", args[0]), "conclave level show")
			}
			reply, err := c.RaiseFeatureLevel(cmd.Context(), &vaultpb.RaiseFeatureLevelRequest{RequestId: e.flags.requestID, Level: uint32(level)})
			if err != nil {
				return err
			}
			return e.Print(cmd, reply)
		}),
	}
}
