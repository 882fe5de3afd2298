package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
)

// report is the one place that prints errors: what, why, and the next command.
func (e *Env) report(cmd *cobra.Command, err error) {
	what := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
	text := "conclave: "
	if what != "" {
		text += what + ": "
	}
	e.say("%s%s", text, oneLine(err.Error()))
	if !e.started {
		e.say("  usage: %s", cmd.UseLine())
	}
	if try := e.next(cmd, err); try != "" {
		e.say("  try: %s", e.named(cmd, try))
	}
}

// named puts the name that the user gave into a hint where it says NAME, so that the hint can be copied as it is.
func (e *Env) named(cmd *cobra.Command, try string) string {
	if !strings.HasSuffix(cmd.Use, " NAME") || len(e.args) != 1 {
		return try
	}
	name := e.args[0]
	if fsm.ValidKeyName(name) != nil { // no name of anything: as an argument of a shell it could be anything
		return try
	}
	return strings.ReplaceAll(try, " NAME", " "+name)
}

// oneLine joins the lines of a text: one error is one line in a log.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// next is the command that helps on: what the error itself says, else what usually helps with its kind.
func (e *Env) next(cmd *cobra.Command, err error) string {
	metadata := kind.Metadata(err)
	if try := metadata[kind.MetaTry]; try != "" {
		return try
	}
	sealed := kind.Of(err) == kind.Sealed // nothing was done, and no repetition helps before custodians came
	if id := metadata[client.MetaRequestID]; id != "" && !sealed {
		return fmt.Sprintf("the same command with --request-id %s: it waits for the first one, and does nothing twice", id)
	}
	if kind.Of(err) == kind.InvalidArgument || kind.Of(err) == kind.Unsupported {
		return cmd.CommandPath() + " --help"
	}
	if kind.Of(err) == kind.NotFound && cmd.HasParent() && cmd.Parent().Name() == "node" {
		return "conclave node list"
	}
	return remedies[kind.Of(err)]
}

// remedies are what usually helps. A kind without one has no command that would.
var remedies = map[kind.Kind]string{
	kind.NotFound:        "conclave key list",
	kind.AlreadyExists:   "another name: names are never reused, so that nothing old can pass for something new",
	kind.Unauthenticated: "check CONCLAVE_CERT and CONCLAVE_KEY; an administrator issues a certificate with: conclave pki issue --role user --name HOLDER",
	kind.Denied:          "ask an administrator; the label users=NAME,… of a key lists who may use it",
	kind.NeedsApproval:   "ask a security officer: this release cannot collect approvals",
	kind.Unavailable:     "conclave status",
	kind.BarrierPending:  "conclave status",
	kind.Sealed:          "conclave ceremony unseal --identity FILE",
	kind.KeyState:        "conclave key get NAME   (shows the state and its reason)",
	kind.Conflict:        "read the object again, then decide anew",
	kind.RequestReused:   "leave --request-id out",
	kind.RequestExpired:  "look what became of the first request (conclave log list), then leave --request-id out",
	kind.Ceremony:        "conclave ceremony status",
	kind.Uninitialised:   "conclave init",
	kind.Deadline:        "conclave status",
}
