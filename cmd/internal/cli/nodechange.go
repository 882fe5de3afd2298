package cli

import (
	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// nodeOrder is a command about a node by its name.
type nodeOrder struct {
	use, short, long string
	action           vaultpb.NodeAction
	done             string // what is said when it is in force
	reason           bool   // whether it takes one
}

func (e *Env) nodeDrain() *cobra.Command {
	return e.nodeChange(nodeOrder{
		use: "drain NAME", short: "Take a node out of service: it uses no key any more",
		long: "When this is acknowledged the node holds no lease and releases no other result, even if it is cut off or paused: a node that\n" +
			"cannot be reached is waited for until its leases must have run out. It goes on replicating and voting. Undo it with: conclave node undrain",
		action: vaultpb.NodeAction_NODE_ACTION_DRAIN, reason: true,
		done: "node %s uses no key any more; undo it with: conclave node undrain %[1]s",
	})
}

func (e *Env) nodeUndrain() *cobra.Command {
	return e.nodeChange(nodeOrder{
		use: "undrain NAME", short: "Take a drained node back into service", action: vaultpb.NodeAction_NODE_ACTION_UNDRAIN,
		done: "node %s serves again as soon as it holds a lease: conclave status",
	})
}

func (e *Env) nodeRemove() *cobra.Command {
	return e.nodeChange(nodeOrder{
		use: "remove NAME", short: "Drain a node and remove it from the cluster",
		long: "When this is acknowledged the node holds no lease, has no vote and is no member. One that is lost for good is removed in the same\n" +
			"way: it is waited for until its leases must have run out. It is not undone: the node joins anew, with an empty data directory and\n" +
			"a new token (conclave node token). While a key is being destroyed whose receipt the node owes, its removal needs approval.",
		action: vaultpb.NodeAction_NODE_ACTION_REMOVE, reason: true,
		done: "node %s is no member any more; its data directory can be erased",
	})
}

func (e *Env) nodeChange(o nodeOrder) *cobra.Command {
	req := &vaultpb.ChangeNodeRequest{Action: o.action}
	c := &cobra.Command{
		Use: o.use, Short: o.short, Long: o.long, Args: cobra.ExactArgs(1), ValidArgsFunction: e.completing(firstArgument(e.nodeNames)),
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			req.Node, req.RequestId = args[0], e.flags.requestID
			reply, err := c.ChangeNode(cmd.Context(), req)
			if err != nil {
				return err
			}
			e.say(o.done, reply.GetNode())
			return e.Print(cmd, reply)
		}),
	}
	if o.reason {
		c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	}
	return c
}
