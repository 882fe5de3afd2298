package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/usage"
)

// usageDir is where a node keeps its usage log, below its data directory.
const usageDir = "usage"

func (e *Env) usageCommand() *cobra.Command {
	c := &cobra.Command{Use: "usage", Short: "The nodes' logs of single uses of keys"}
	c.AddCommand(e.usageList(), e.usageVerify())
	return c
}

func (e *Env) usageList() *cobra.Command {
	var pages paging
	var since string
	query := &vaultpb.ListUsesRequest{}
	c := &cobra.Command{
		Use: "list", Short: "List single uses of keys, from one node's usage log, the oldest first", Args: cobra.NoArgs,
		Long: `List single uses of private and secret keys, the oldest first: each node has its own log, of what it did itself. The first node that answers
is asked, or the one that --node names.`,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			at, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			query.Since = at
			return printList(cmd, e, &pages, list[vaultpb.ListUsesRequest, *vaultpb.ListUsesRequest, *vaultpb.ListUsesReply]{
				ask: c.ListUses, query: query, columns: columnsOf("sequence", "time", "key", "version", "operation", "role", "name", "outcome", "request_id"),
				page: func(q *vaultpb.ListUsesRequest, size int32, token string) { q.PageSize, q.PageToken = size, token },
			})
		}),
	}
	c.Flags().StringVar(&query.Key, "key", "", "only uses of this key")
	c.Flags().StringVar(&query.Node, "node", "", "of this node, whichever is called")
	c.Flags().StringVar(&since, "since", "", "only uses from then on: a time (RFC 3339), or how long ago (24h, 7d)")
	pages.flags(c)
	return c
}

// parseSince reads a moment, or how long ago it was; nil for none.
func parseSince(text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return timestamppb.New(at), nil
	}
	ago, err := parseSpan(text)
	if err != nil {
		return nil, badArgument(fmt.Sprintf("--since %q is neither a time like 2030-01-31T12:00:00Z nor a duration like 24h or 7d", text), "")
	}
	return timestamppb.New(now.Add(-ago)), nil
}

func (e *Env) usageVerify() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "verify --data-dir DIR", Short: "Verify a node's usage log offline; exit code 1, and the record, if one byte differs", Args: cobra.NoArgs,
		Long: `Verify the usage log in a node's data directory, or one put together from files that were moved away: every record against the one before it.
It may be called beside the running node. What was cut off at the very end is found only by whoever knows how many records there were.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.verifyUsage(cmd, dir) },
	}
	c.Flags().StringVar(&dir, "data-dir", "", "the node's data directory")
	_ = c.MarkFlagRequired("data-dir")
	return c
}

func (e *Env) verifyUsage(cmd *cobra.Command, dir string) error {
	dir = filepath.Join(dir, usageDir)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("no usage log there: %w; --data-dir is data_dir of the node's configuration", err)
	}
	s, err := usage.Walk(dir, nil)
	if err != nil {
		return err
	}
	var notes []string
	if s.EarlierPruned {
		notes = append(notes, "earlier files were moved away")
	}
	if s.Torn {
		notes = append(notes, "the end is cut inside a record, as after a crash or while the node writes")
	}
	if s.Missing > 0 {
		notes = append(notes, fmt.Sprintf("%d uses were not recorded because the log was full", s.Missing))
	}
	return e.Print(cmd, object{
		{"first", s.First}, {"next", s.Next}, {"uses", s.Uses}, {"starts", s.Starts}, {"missing", s.Missing}, {"head", fmt.Sprintf("%x", s.Head)},
		{"note", strings.Join(notes, "; ")},
	})
}
