package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// change is one command that changes a key's state.
type change struct {
	use, short string
	action     vaultpb.KeyAction
	reason     bool // must be given: whoever reads the log later needs it
}

var changes = []change{
	{"activate", "Make a pre-active version active before its date", vaultpb.KeyAction_KEY_ACTION_ACTIVATE, false},
	{"suspend", "Stop its use for now; resume undoes it", vaultpb.KeyAction_KEY_ACTION_SUSPEND, true},
	{"resume", "Allow the use of a suspended key again", vaultpb.KeyAction_KEY_ACTION_RESUME, true},
	{"deactivate", "End protecting with it for good; what it protected can still be read", vaultpb.KeyAction_KEY_ACTION_DEACTIVATE, true},
	{"compromise", "Record that others may know it; stops its use for good", vaultpb.KeyAction_KEY_ACTION_COMPROMISE, true},
	{"revoke", "KMIP's word: compromised if the reason says so, else deactivated", vaultpb.KeyAction_KEY_ACTION_REVOKE, true},
	{"destroy", "Schedule its destruction", vaultpb.KeyAction_KEY_ACTION_DESTROY, false},
	{"cancel-destroy", "Cancel a scheduled destruction; the key never becomes active again", vaultpb.KeyAction_KEY_ACTION_CANCEL_DESTROY, false},
}

func (e *Env) keyChanges() []*cobra.Command {
	var all []*cobra.Command
	for _, c := range changes {
		all = append(all, e.keyChange(c))
	}
	return all
}

func (e *Env) keyChange(ch change) *cobra.Command {
	req := &vaultpb.ChangeKeyRequest{Action: ch.action}
	var occurred string
	var after time.Duration
	c := e.keyArg(ch.use, ch.short, func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.OccurredAt, err = parseTime("occurred", occurred); err != nil {
			return err
		}
		if req.After, err = parseDelay(cmd, after); err != nil {
			return err
		}
		if ch.reason && req.Reason == "" {
			return badArgument("--reason is empty; whoever reads the log later needs it", "")
		}
		req.Name, req.RequestId = name, e.flags.requestID
		return e.printKey(c.ChangeKey(cmd.Context(), req))
	})
	c.Flags().Uint32Var(&req.Version, "version", 0, "only this version; without it the whole key")
	e.completeFlag(c, "version", e.keyVersions)
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	if ch.reason {
		required(c, "reason")
	}
	switch ch.action {
	case vaultpb.KeyAction_KEY_ACTION_REVOKE:
		c.Flags().Lookup("reason").Usage = "`CODE` or \"CODE: words\"; codes: " + strings.Join(fsm.RevocationCodes(), ", ")
		complete(c, "reason", fsm.RevocationCodes()...)
		c.Flags().StringVar(&occurred, "occurred", "", "of a compromise: when it is believed to have happened, as RFC 3339 `time`; without it: now")
	case vaultpb.KeyAction_KEY_ACTION_COMPROMISE:
		c.Flags().StringVar(&occurred, "occurred", "", "when it is believed to have happened, as RFC 3339 `time`; without it: now")
	case vaultpb.KeyAction_KEY_ACTION_DESTROY:
		c.Flags().DurationVar(&after, "after", 0, "how long it stays scheduled, for example 168h; without it the minimum of its class")
	}
	return c
}

func parseTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, badArgument(fmt.Sprintf("--%s %q is not a time like 2026-01-31T17:00:00Z", flag, text), "")
	}
	return timestamppb.New(t), nil
}

// parseDelay tells "not given" (the class decides) from a delay that was given, which must be positive.
func parseDelay(cmd *cobra.Command, d time.Duration) (*durationpb.Duration, error) {
	if !cmd.Flags().Changed("after") {
		return nil, nil
	}
	if d <= 0 {
		return nil, badArgument("--after must be longer than zero: destruction is never immediate", "")
	}
	return durationpb.New(d), nil
}
