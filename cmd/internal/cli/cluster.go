package cli

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// digestShown is how much of a state digest a table shows: enough to see that two differ.
const digestShown = 12

var statusColumns = map[string][]column{
	"nodes": append(columnsOf("id", "addr", "datacenter", "role", "standing", "sealed", "lease", "applied"),
		column{"DIGEST", func(o object) string { text := cell(o.get("digest")); return text[:min(len(text), digestShown)] }},
		column{"AT", at("digest_index").cell}, at("hsm"), at("hsm_library"), at("error")),
}

func (e *Env) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the cluster and its nodes", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			reply, err := c.Status(cmd.Context(), &vaultpb.StatusRequest{})
			if err != nil {
				return err
			}
			return e.print(reply, statusColumns)
		}),
	}
}

func (e *Env) sealCommand() *cobra.Command {
	req := &vaultpb.SealRequest{}
	c := &cobra.Command{
		Use: "seal", Short: "Seal every node: no key can be used until custodians unseal the cluster", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			req.RequestId = e.flags.requestID
			reply, err := c.Seal(cmd.Context(), req)
			if err != nil {
				return err
			}
			e.say("the cluster is sealed; custodians open it with: conclave ceremony unseal --identity FILE")
			return e.Print(cmd, reply)
		}),
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	return c
}

func (e *Env) nodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Nodes: list them, admit another, take one out of service"}
	c.AddCommand(e.nodeToken(), e.nodeList(), e.nodeDrain(), e.nodeUndrain(), e.nodeRemove())
	return c
}

var nodeColumns = map[string][]column{
	"items": columnsOf("id", "addr", "cluster_addr", "datacenter", "hsm", "voter", "in_roster", "standing", "gossip", "joined_at"),
}

func (e *Env) nodeList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes of the cluster", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			reply, err := c.ListNodes(cmd.Context(), &vaultpb.ListNodesRequest{})
			if err != nil {
				return err
			}
			o := object{{"items", message(reply.ProtoReflect()).get("items")}, {"next_page_token", ""}}
			if !e.structured() {
				return e.write(newTable(nodeColumns["items"]).add(objects(itemsOf(reply))))
			}
			return e.Print(cmd, o)
		}),
	}
}

func (e *Env) nodeToken() *cobra.Command {
	var node, out string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "token NAME", Short: "Make a token with which the named node can join once", Args: cobra.MaximumNArgs(1),
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if node == "" && len(args) == 1 {
				node = args[0]
			} else if node == "" || len(args) == 1 {
				return badArgument("exactly one node name is needed", "conclave node token NAME")
			}
			req := &vaultpb.CreateJoinTokenRequest{RequestId: e.flags.requestID, Node: node}
			if ttl != 0 {
				req.Ttl = durationpb.New(ttl)
			}
			reply, err := c.CreateJoinToken(cmd.Context(), req)
			if err != nil {
				return err
			}
			return e.handOver(cmd, reply, out)
		}),
	}
	c.Flags().StringVar(&node, "node", "", "name of the node, as an alternative to the argument")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it can be used; without it 15 minutes, at most 24h")
	c.Flags().StringVar(&out, "out", "", "write it to this new `file`, for its owner alone, and not to stdout")
	return c
}

// handOver gives the token to a file or to stdout, never both.
func (e *Env) handOver(cmd *cobra.Command, reply *vaultpb.CreateJoinTokenReply, out string) error {
	o := message(reply.ProtoReflect())
	if out != "" {
		if err := createFile(out, []byte(reply.GetToken()+"\n"), 0o600); err != nil {
			return err
		}
		o = o.without("token").with("out", out)
		e.say("token written to %s", out)
	}
	e.say("node %s can join with it once, until %s", reply.GetNode(), cell(o.get("expires_at")))
	switch {
	case e.structured():
		return e.Print(cmd, o)
	case out == "":
		return e.write(reply.GetToken() + "\n")
	}
	return nil
}
