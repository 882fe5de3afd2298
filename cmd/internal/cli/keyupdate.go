package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// planFlags are the words, links and dates of a key that create and update have in common.
type planFlags struct {
	description, purpose, activateAt, deactivateAt string
	links                                          []string
}

func (f *planFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.description, "description", "", "what it is, in words")
	s.StringVar(&f.purpose, "purpose", "", "what it is for, in a word or two")
	s.StringArrayVar(&f.links, "link", nil, "`kind=target`, repeatable; kinds: replaces, derived-from (names of keys), certificate")
	s.StringVar(&f.activateAt, "activate-at", "", "RFC 3339 `time` at which it becomes active")
	s.StringVar(&f.deactivateAt, "deactivate-at", "", "RFC 3339 `time` at which it is deactivated, if its class does not do it before")
}

func splitLinks(flag string, args []string) ([]*vaultpb.Link, error) {
	var links []*vaultpb.Link
	for _, arg := range args {
		name, target, ok := strings.Cut(arg, "=")
		if !ok || name == "" || target == "" {
			return nil, badArgument("--"+flag+" "+arg+" is not kind=target", "")
		}
		links = append(links, &vaultpb.Link{Kind: name, Target: target})
	}
	return links, nil
}

func (e *Env) keyUpdate() *cobra.Command {
	req := &vaultpb.UpdateKeyRequest{}
	plan := &planFlags{}
	var labels, unlink []string
	var owner string
	c := e.keyArg("update", "Change labels, words, links, owner and planned dates of a key", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.SetLabels, err = splitPairs("label", labels); err != nil {
			return err
		}
		if req.RemoveLinks, err = splitLinks("remove-link", unlink); err != nil {
			return err
		}
		if err = plan.update(cmd, req); err != nil {
			return err
		}
		if cmd.Flags().Changed("owner") {
			req.Owner = &owner
		}
		req.Name, req.RequestId = name, e.flags.requestID
		return e.printKey(c.UpdateKey(cmd.Context(), req))
	})
	plan.add(c)
	s := c.Flags()
	s.StringArrayVar(&labels, "label", nil, "`name=value`, repeatable: add or replace this label")
	s.StringArrayVar(&req.RemoveLabels, "remove-label", nil, "`name` of a label, repeatable")
	s.StringArrayVar(&unlink, "remove-link", nil, "`kind=target`, repeatable")
	s.StringVar(&owner, "owner", "", "who answers for it, for example user/bob")
	s.Uint32Var(&req.Version, "version", 0, "of the dates; 0: the primary one")
	e.completeFlag(c, "version", e.keyVersions)
	s.BoolVar(&req.NeverExportable, "never-exportable", false, "forbid every export of the key from now on; it cannot be taken back")
	s.Uint64Var(&req.Revision, "if-revision", 0, "only if the key is still at this revision (key get shows it)")
	return c
}

func (f *planFlags) update(cmd *cobra.Command, req *vaultpb.UpdateKeyRequest) (err error) {
	if cmd.Flags().Changed("description") {
		req.Description = &f.description
	}
	if cmd.Flags().Changed("purpose") {
		req.Purpose = &f.purpose
	}
	if req.AddLinks, err = splitLinks("link", f.links); err != nil {
		return err
	}
	if req.ActivateAt, err = parseTime("activate-at", f.activateAt); err != nil {
		return err
	}
	if f.deactivateAt == "none" {
		req.ClearDeactivateAt = true
		return nil
	}
	req.DeactivateAt, err = parseTime("deactivate-at", f.deactivateAt)
	return err
}

func (f *planFlags) create(req *vaultpb.CreateKeyRequest) (err error) {
	req.Description, req.Purpose = f.description, f.purpose
	if req.Links, err = splitLinks("link", f.links); err != nil {
		return err
	}
	if req.ActivateAt, err = parseTime("activate-at", f.activateAt); err != nil {
		return err
	}
	req.DeactivateAt, err = parseTime("deactivate-at", f.deactivateAt)
	return err
}

func (e *Env) keySetClass() *cobra.Command {
	req := &vaultpb.SetKeyClassRequest{}
	dryRun := false
	c := &cobra.Command{
		Use: "set-class NAME CLASS", Short: "Move a key to another class; lowering a control needs approval", Args: cobra.ExactArgs(2),
		ValidArgsFunction: e.completing(e.keyThenClass),
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if dryRun {
				return e.checkClass(cmd, c, &vaultpb.CheckClassRequest{Key: args[0], Class: &vaultpb.Class{Name: args[1]}})
			}
			req.Name, req.Class, req.RequestId = args[0], args[1], e.flags.requestID
			return e.printKey(c.SetKeyClass(cmd.Context(), req))
		}),
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	dryRunFlag(c, &dryRun)
	return c
}

// listFilter are the flags that choose among keys.
func (e *Env) listFilter(c *cobra.Command, q *vaultpb.ListKeysRequest) {
	s := c.Flags()
	s.StringVar(&q.Prefix, "prefix", "", "only names that begin with this")
	s.StringSliceVar(&q.States, "state", nil, "only keys whose primary version is in one of these states")
	s.StringSliceVar(&q.Classes, "class", nil, "only keys of these classes")
	s.StringSliceVar(&q.Algorithms, "algorithm", nil, "only keys for these algorithms")
	s.StringArrayVar(&q.Labels, "label", nil, "`name or name=value`, repeatable: only keys with all of these")
	e.completeFlag(c, "prefix", e.keyNames)
	e.completeFlag(c, "class", e.classNames)
	complete(c, "algorithm", algorithms()...)
	complete(c, "state", states()...)
}

func states() []string {
	var all []string
	for s := fsm.StatePreActive; s <= fsm.StateDestroyedCompromised; s++ {
		all = append(all, s.String())
	}
	return slices.Clip(all)
}
