package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// keyNames are the keys that the caller may see. The cluster finds those that begin with what was typed.
func (e *Env) keyNames(ctx context.Context, c *client.Client, _ *cobra.Command, _ []string, typed string) ([]string, error) {
	var names []string
	query := &vaultpb.ListKeysRequest{Prefix: typed, PageSize: maxPage}
	next := func(q *vaultpb.ListKeysRequest, token string) { q.PageToken = token }
	for page, err := range client.Pages(ctx, c.ListKeys, query, next) {
		if err != nil {
			return nil, err
		}
		for _, k := range page.GetItems() {
			names = append(names, k.GetName())
		}
		if len(names) >= maxCompletions && page.GetNextPageToken() != "" {
			return nil, errTooMany
		}
	}
	return names, nil
}

// keySubjects are the subjects of events about those keys.
func (e *Env) keySubjects(ctx context.Context, c *client.Client, cmd *cobra.Command, args []string, typed string) ([]string, error) {
	names, err := e.keyNames(ctx, c, cmd, args, strings.TrimPrefix(typed, keySubject))
	for i, n := range names {
		names[i] = keySubject + n
	}
	return names, err
}

// keySubject is before a key's name in the subject of its events.
const keySubject = "key/"

// keyVersions are those of the key that stands before the flag, newest first.
func (e *Env) keyVersions(ctx context.Context, c *client.Client, _ *cobra.Command, args []string, _ string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	reply, err := c.GetKey(ctx, &vaultpb.GetKeyRequest{Name: args[0]})
	if err != nil {
		return nil, err
	}
	var versions []string
	for _, v := range slices.Backward(reply.GetKey().GetVersions()) {
		versions = append(versions, described(strconv.FormatUint(uint64(v.GetVersion()), 10), v.GetState()))
	}
	return versions, nil
}

// nodeNames are the nodes of the cluster.
func (e *Env) nodeNames(ctx context.Context, c *client.Client, _ *cobra.Command, _ []string, _ string) ([]string, error) {
	reply, err := c.ListNodes(ctx, &vaultpb.ListNodesRequest{})
	var names []string
	for _, n := range reply.GetItems() {
		names = append(names, described(n.GetId(), n.GetDatacenter()+" "+n.GetHsm()))
	}
	return names, err
}

// certificates are those that may still be revoked, of the role and name that the flags name already.
func certificates(ctx context.Context, c *client.Client, cmd *cobra.Command, role, name string) ([]*vaultpb.Certificate, error) {
	var all []*vaultpb.Certificate
	query := &vaultpb.ListCertificatesRequest{PageSize: maxPage}
	next := func(q *vaultpb.ListCertificatesRequest, token string) { q.PageToken = token }
	for page, err := range client.Pages(ctx, c.ListCertificates, query, next) {
		if err != nil {
			return nil, err
		}
		for _, k := range page.GetItems() {
			if !k.GetRevoked() && (role == "" || role == k.GetRole()) && (name == "" || name == k.GetName()) {
				all = append(all, k)
			}
		}
		if len(all) >= maxCompletions && page.GetNextPageToken() != "" {
			return nil, errTooMany
		}
	}
	return all, nil
}

func (e *Env) certificateHolders(ctx context.Context, c *client.Client, cmd *cobra.Command, _ []string, _ string) ([]string, error) {
	all, err := certificates(ctx, c, cmd, cmd.Flag("role").Value.String(), "")
	var names []string
	for _, k := range all {
		if n := described(k.GetName(), k.GetRole()); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, err
}

func (e *Env) certificateSerials(ctx context.Context, c *client.Client, cmd *cobra.Command, _ []string, _ string) ([]string, error) {
	all, err := certificates(ctx, c, cmd, cmd.Flag("role").Value.String(), cmd.Flag("name").Value.String())
	var serials []string
	for _, k := range all {
		serials = append(serials, described(k.GetSerial(), k.GetRole()+" "+k.GetName()+" until "+k.GetNotAfter().AsTime().Format(time.DateOnly)))
	}
	return serials, err
}

// purposes of ceremonies.
var purposes = []string{"genesis", "unseal", "roster"}

// ceremonies are the latest of each purpose: the cluster has no list of all.
func (e *Env) ceremonies(open bool) completer {
	return func(ctx context.Context, c *client.Client, _ *cobra.Command, _ []string, _ string) ([]string, error) {
		var ids []string
		for _, purpose := range purposes {
			reply, err := c.GetCeremony(ctx, &vaultpb.GetCeremonyRequest{Purpose: purpose})
			if err != nil {
				continue // there was none of this purpose yet
			}
			held := reply.GetCeremony()
			if held.GetEndedAt() == nil || !open {
				ids = append(ids, described(held.GetId(), purpose+" "+held.GetPhase()))
			}
		}
		return ids, nil
	}
}

// completeOthers completes commands of other packages: those that are here.
func (e *Env) completeOthers(root *cobra.Command) {
	find := func(path ...string) *cobra.Command {
		c, rest, err := root.Find(path)
		if err != nil || len(rest) > 0 || c == root {
			return nil
		}
		return c
	}
	if c := find("ceremony", "status"); c != nil {
		c.ValidArgsFunction = e.completing(firstArgument(e.ceremonies(false)))
		complete(c, "purpose", purposes...)
	}
	if c := find("ceremony", "abort"); c != nil {
		c.ValidArgsFunction = e.completing(firstArgument(e.ceremonies(true)))
	}
	if c := find("ceremony", "roster"); c != nil {
		e.completeFlag(c, "admit", e.nodeNames)
	}
}

// keyThenClass offers a key, then a class.
func (e *Env) keyThenClass(ctx context.Context, c *client.Client, cmd *cobra.Command, args []string, typed string) ([]string, error) {
	switch len(args) {
	case 0:
		return e.keyNames(ctx, c, cmd, args, typed)
	case 1:
		return e.classNames(ctx, c, cmd, args, typed)
	}
	return nil, nil
}
