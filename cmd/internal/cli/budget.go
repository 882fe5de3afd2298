package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) keyBudget() *cobra.Command {
	limit := &vaultpb.UseLimit{}
	var per time.Duration
	var none bool
	c := e.keyArg("budget", "Limit how much a key may be used", func(cmd *cobra.Command, c *client.Client, name string) error {
		asked, err := budgetAsked(cmd, limit, per, none)
		if err != nil {
			return err
		}
		return e.printKey(c.SetBudget(cmd.Context(), &vaultpb.SetBudgetRequest{Name: name, RequestId: e.flags.requestID, Limit: asked}))
	})
	c.Long = `Limit how much a key may be used: operations, bytes that they are given, or both, in every period or for the key's life.

Every use of the private or secret half counts (sign, encrypt, decrypt, mac, datakey); verifying does not. Periods are counted from 1970
in UTC, so one of 24h begins at midnight. A use that the budget does not allow is refused with exit code 8.

Nodes reserve a part of the budget ahead, so that a use waits for nobody; what a node has reserved when it is killed counts as spent.
With --exact every use is committed by the cluster before it is done: nothing is lost, and a use takes a round trip.

A lower limit is answered when no node can exceed it any more. The limit replaces the one before; --none ends it. How much is spent:
conclave key get NAME.`
	f := c.Flags()
	f.Uint64Var(&limit.Operations, "ops", 0, "how many operations; without it they are not limited")
	f.Uint64Var(&limit.Bytes, "bytes", 0, "how many bytes; without it they are not limited")
	f.DurationVar(&per, "per", 0, "the period, for example 24h; without it the limit is for the key's life")
	f.BoolVar(&limit.Exact, "exact", false, "count every operation before it is done")
	f.BoolVar(&none, "none", false, "end the limit")
	return c
}

// budgetAsked refuses what would not mean what it looks like: a limit of zero is none, and "none" with a number is a mistake.
func budgetAsked(cmd *cobra.Command, limit *vaultpb.UseLimit, per time.Duration, none bool) (*vaultpb.UseLimit, error) {
	for _, name := range []string{"ops", "bytes"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "0" {
			return nil, badArgument(fmt.Sprintf("--%s 0 would forbid every use", name), "conclave key suspend NAME --reason TEXT")
		}
	}
	limited := limit.GetOperations() != 0 || limit.GetBytes() != 0
	switch {
	case none && (limited || per != 0 || limit.GetExact()):
		return nil, badArgument("--none ends the limit and goes with no other flag", "")
	case none:
		return nil, nil
	case !limited:
		return nil, badArgument("--ops, --bytes or --none is needed", "")
	case cmd.Flags().Changed("per") && per <= 0:
		return nil, badArgument("--per must be longer than zero", "")
	case per > 0:
		limit.Per = durationpb.New(per)
	}
	return limit, nil
}
