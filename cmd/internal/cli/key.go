package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) keyCommand() *cobra.Command {
	c := &cobra.Command{Use: "key", Short: "Keys: create, look at, rotate, restrict, destroy"}
	c.AddCommand(e.keyCreate(), e.keyGet(), e.keyList(), e.keyHistory(), e.keyRotate(), e.keyPublic(), e.keyUpdate(), e.keySetClass(), e.keyBudget())
	c.AddCommand(e.keyImport(), e.importKeyCommand(), e.wrapForImport(), e.keyExport())
	c.AddCommand(e.keyChanges()...)
	return c
}

// keyArg is a command of exactly one key name, which the shell can complete.
func (e *Env) keyArg(use, short string, run func(cmd *cobra.Command, c *client.Client, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: e.completing(firstArgument(e.keyNames)),
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error { return run(cmd, c, args[0]) }),
	}
}

var keyColumns = columnsOf("name", "algorithm", "state", "primary_version", "class", "owner", "labels", "created_at")

var versionColumns = map[string][]column{
	"versions": append(columnsOf("version", "state", "origin", "reason", "created_at", "changed_at", "compromised_at", "destroy_at", "last_used_at"),
		column{"PLANNED", planned}),
}

// planned are the dates ahead of a version.
func planned(o object) string {
	var parts []string
	for _, name := range []string{"activate_at", "deactivate_at"} {
		if v := cell(o.get(name)); v != empty {
			parts = append(parts, name+"="+v)
		}
	}
	return cell(strings.Join(parts, ","))
}

// printKey prints what became of a key.
func (e *Env) printKey(reply *vaultpb.KeyReply, err error) error {
	if err != nil {
		return err
	}
	return e.print(reply, versionColumns)
}

func (e *Env) keyCreate() *cobra.Command {
	req := &vaultpb.CreateKeyRequest{}
	plan := &planFlags{}
	var labels []string
	c := e.keyArg("create", "Create a key with its first version", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Labels, err = splitPairs("label", labels); err != nil {
			return err
		}
		if err = plan.create(req); err != nil {
			return err
		}
		req.Name, req.RequestId = name, e.flags.requestID
		return e.printKey(c.CreateKey(cmd.Context(), req))
	})
	c.ValidArgsFunction = cobra.NoFileCompletions // the name is new
	c.Flags().StringVar(&req.Algorithm, "algorithm", "", strings.Join(algorithms(), ", "))
	c.Flags().StringVar(&req.Class, "class", "standard", "which controls are forced on it")
	c.Flags().StringArrayVar(&labels, "label", nil, "`name=value`, repeatable; users=a,b lists who may use the key")
	exportableFlag(c, req)
	required(c, "algorithm")
	complete(c, "algorithm", algorithms()...)
	e.completeFlag(c, "class", e.classNames)
	plan.add(c)
	return c
}

func algorithms() []string {
	var all []string
	for _, a := range hsm.Algorithms() {
		all = append(all, string(a))
	}
	return all
}

func (e *Env) keyGet() *cobra.Command {
	return e.keyArg("get", "Show a key and its versions", func(cmd *cobra.Command, c *client.Client, name string) error {
		return e.printKey(c.GetKey(cmd.Context(), &vaultpb.GetKeyRequest{Name: name}))
	})
}

func (e *Env) keyRotate() *cobra.Command {
	activateAt := ""
	c := e.keyArg("rotate", "Make a new version and use it from now on, or from a date on", func(cmd *cobra.Command, c *client.Client, name string) error {
		at, err := parseTime("activate-at", activateAt)
		if err != nil {
			return err
		}
		return e.printKey(c.RotateKey(cmd.Context(), &vaultpb.RotateKeyRequest{Name: name, RequestId: e.flags.requestID, ActivateAt: at}))
	})
	c.Flags().StringVar(&activateAt, "activate-at", "", "RFC 3339 `time` at which the new version becomes active and takes over; without it: now")
	return c
}

func (e *Env) keyList() *cobra.Command {
	var pages paging
	query := &vaultpb.ListKeysRequest{}
	c := &cobra.Command{
		Use: "list", Short: "List the keys that you may see", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			return printList(cmd, e, &pages, list[vaultpb.ListKeysRequest, *vaultpb.ListKeysRequest, *vaultpb.ListKeysReply]{
				ask: c.ListKeys, query: query, columns: keyColumns,
				page: func(q *vaultpb.ListKeysRequest, size int32, token string) { q.PageSize, q.PageToken = size, token },
			})
		}),
	}
	e.listFilter(c, query)
	pages.flags(c)
	return c
}

func (e *Env) keyHistory() *cobra.Command {
	var pages paging
	c := e.keyArg("history", "Show what happened to a key, from the lifecycle log", func(cmd *cobra.Command, c *client.Client, name string) error {
		return printList(cmd, e, &pages, list[vaultpb.KeyHistoryRequest, *vaultpb.KeyHistoryRequest, *vaultpb.EventList]{
			ask: c.KeyHistory, query: &vaultpb.KeyHistoryRequest{Name: name}, columns: eventColumns,
			page: func(q *vaultpb.KeyHistoryRequest, size int32, token string) { q.PageSize, q.PageToken = size, token },
		})
	})
	pages.flags(c)
	return c
}

func (e *Env) keyPublic() *cobra.Command {
	req := &vaultpb.GetPublicKeyRequest{}
	c := e.keyArg("public", "Print the public half as SubjectPublicKeyInfo PEM", func(cmd *cobra.Command, c *client.Client, name string) error {
		req.Name = name
		reply, err := c.GetPublicKey(cmd.Context(), req)
		if err != nil {
			return err
		}
		if e.structured() {
			return e.Print(cmd, reply)
		}
		return e.write(reply.GetPem())
	})
	c.Flags().Uint32Var(&req.Version, "version", 0, "of the key; 0: the primary one")
	e.completeFlag(c, "version", e.keyVersions)
	return c
}

// required marks a flag; that it exists is the caller's word, so a mistake shows in the first test.
func required(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
}
