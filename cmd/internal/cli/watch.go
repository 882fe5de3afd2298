package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) watchCommand() *cobra.Command {
	q := &vaultpb.WatchRequest{}
	all := false
	limit := 0
	c := &cobra.Command{
		Use: "watch", Short: "Print the events of the lifecycle log as they happen, until interrupted", Args: cobra.NoArgs,
		Long: `Print the events of the lifecycle log as they happen, until interrupted, from any node that is there: none twice, none left out.

With -o json each event is one line. What was interrupted goes on with --from-leaf, which is the last event's leaf + 1, or with --after-index,
if every event of that index was read. Administrators see all events, users those of the keys that they may use.`,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			q.FromNow = !all && q.GetFromLeaf() == 0 && q.GetAfterIndex() == 0
			return e.watch(cmd, c, q, limit)
		}),
	}
	s := c.Flags()
	s.Uint64Var(&q.FromLeaf, "from-leaf", 0, "begin with this leaf of the log")
	s.Uint64Var(&q.AfterIndex, "after-index", 0, "begin with what entries above this index caused")
	s.BoolVar(&all, "from-start", false, "begin with the first event; without any of these only what happens from now on is printed")
	s.StringVar(&q.Subject, "subject", "", "only events of exactly this subject, for example key/payments/eu")
	s.StringVar(&q.Prefix, "prefix", "", "only events of subjects that begin with this, for example key/payments/")
	s.StringSliceVar(&q.Actions, "action", nil, "only these, for example key.suspend, or key. for all that begin so")
	s.IntVar(&limit, "limit", 0, "end after so many events")
	c.MarkFlagsMutuallyExclusive("from-leaf", "after-index", "from-start")
	return c
}

func (e *Env) watch(cmd *cobra.Command, c *client.Client, q *vaultpb.WatchRequest, limit int) error {
	if limit < 0 {
		return badArgument("--limit must be positive", "")
	}
	t := newTable(append(columnsOf("leaf"), eventColumns...))
	n := 0
	for reply, err := range c.Watch(cmd.Context(), q) {
		if err != nil {
			return watchEnded(cmd, err)
		}
		for _, item := range reply.GetItems() {
			if err := e.printEvent(t, item); err != nil {
				return err
			}
			if n++; n == limit {
				return nil
			}
		}
	}
	return watchEnded(cmd, nil)
}

// watchEnded: an interrupted watch did what it was to do.
func watchEnded(cmd *cobra.Command, err error) error {
	if cmd.Context().Err() != nil && errors.Is(err, cmd.Context().Err()) {
		return nil
	}
	return err
}

func (e *Env) printEvent(t *table, item *vaultpb.Event) error {
	o := message(item.ProtoReflect())
	switch {
	case e.flags.field != "":
		return e.printField(o)
	case e.flags.output == formatYAML: // a stream of documents
		if err := e.write("---\n"); err != nil {
			return err
		}
		return e.printTree(o)
	case e.structured():
		return e.printTree(o)
	}
	if err := e.write(t.add([]object{o})); err != nil {
		return fmt.Errorf("printing leaf %d: %w", item.GetLeaf(), err)
	}
	return nil
}
