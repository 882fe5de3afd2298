package cli

import (
	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) logCommand() *cobra.Command {
	c := &cobra.Command{Use: "log", Short: "The lifecycle log: read it, prove it, verify it"}
	c.AddCommand(e.logList(), e.logVerify(), e.logCheckpoint(), e.logProve(), e.logExport(), e.logKeys())
	return c
}

// eventColumns show an event on one line; the change of state is one column, because it reads as one thing.
var eventColumns = append(columnsOf("index", "time", "actor", "action", "subject", "version"), column{"FROM→TO", fromTo}, at("reason"))

func fromTo(o object) string {
	from, to := cell(o.get("from")), cell(o.get("to"))
	if from == empty && to == empty {
		return empty
	}
	return from + "→" + to
}

func (e *Env) logList() *cobra.Command {
	var pages paging
	query := &vaultpb.ListEventsRequest{}
	c := &cobra.Command{
		Use: "list", Short: "List the events of the log", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			return printList(cmd, e, &pages, list[vaultpb.ListEventsRequest, *vaultpb.ListEventsRequest, *vaultpb.EventList]{
				ask: c.ListEvents, query: query, columns: eventColumns,
				page: func(q *vaultpb.ListEventsRequest, size int32, token string) { q.PageSize, q.PageToken = size, token },
			})
		}),
	}
	c.Flags().StringVar(&query.Subject, "subject", "", "only events of exactly this subject: key/NAME, node/ID, cluster, ceremony/ID")
	e.completeFlag(c, "subject", e.keySubjects)
	pages.flags(c)
	return c
}
