package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Errors of this package. Those of the parts below it (policy, guard, hsm) pass through unchanged.
var (
	// ErrInvalid: an argument is malformed or outside its limit.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnavailable: no leader or no quorum can be reached from here.
	ErrUnavailable = errors.New("unavailable: no leader can be reached from this node")
	// ErrNotLeader: only the leader can do this, and this node is not it (any more).
	ErrNotLeader = errors.New("this node is not the leader")
	// ErrOutcomeUnknown: leadership was lost while an entry was on its way; the same request id settles it.
	ErrOutcomeUnknown = errors.New("the outcome is unknown: repeat with the same request id")
	// ErrCeremony: the ceremony is not open, not in this phase, or its dealer is another node.
	ErrCeremony = errors.New("the ceremony does not allow it")
	// ErrShare: a share or a custodian's value does not verify. The message names the custodian.
	ErrShare = errors.New("refused")
	// ErrNoCeremony: there is no such ceremony.
	ErrNoCeremony = errors.New("no such ceremony")
	// ErrUninitialised: the state has no cluster yet.
	ErrUninitialised = errors.New("the cluster is not initialised; on its first node run: conclave init")
	// ErrNotVerified: a ciphertext is not one of this key and context.
	ErrNotVerified = errors.New("does not verify")
	// ErrClock: the leader's clock is wrong, so it neither plans nor carries out dates.
	ErrClock = errors.New("the leader's clock is wrong")
	// ErrToken: a join token is not accepted.
	ErrToken = errors.New("the join token is not accepted")
)

// Refused is a command that the state machine refused: equal on every node.
type Refused struct {
	Code    fsm.Code `json:"code"`
	Message string   `json:"message"`
}

func (r *Refused) Error() string { return r.Message }

// refused turns a result into an error, nil when it is OK.
func refused(r fsm.Result) error {
	if r.Code == fsm.CodeOK {
		return nil
	}
	return &Refused{Code: r.Code, Message: r.Message}
}

// fault is an error on its way between two nodes: a name from the table below, or a refusal, or a pending barrier.
type fault struct {
	Name    string        `json:"name,omitempty"`
	Message string        `json:"message"`
	Refused *Refused      `json:"refused,omitempty"`
	Pending *PendingError `json:"pending,omitempty"`
}

// named lists the errors that keep their meaning across nodes. Names are append-only: nodes of two versions talk.
var named = []struct {
	name string
	err  error
}{
	{"invalid", ErrInvalid}, {"not-leader", ErrNotLeader}, {"outcome-unknown", ErrOutcomeUnknown}, {"unavailable", ErrUnavailable},
	{"ceremony", ErrCeremony}, {"no-ceremony", ErrNoCeremony}, {"share", ErrShare}, {"uninitialised", ErrUninitialised}, {"sealed", hsm.ErrSealed},
	{"unauthenticated", policy.ErrUnauthenticated}, {"denied", policy.ErrDenied}, {"not-found", guard.ErrNotFound},
	{"token", ErrToken}, {"clock", ErrClock}, {"deadline", context.DeadlineExceeded}, {"canceled", context.Canceled},
	{"input", hsm.ErrInput}, {"unsupported", hsm.ErrUnsupported},
	{"key-state", guard.ErrKeyState}, {"needs-approval", guard.ErrNeedsApproval}, {"no-lease", guard.ErrNoLease}, {"fenced", guard.ErrFenced},
	{"cannot-ask", guard.ErrUnavailable},
}

// carried is a fault as an error again: its text is the other node's, its identity is the sentinel's.
type carried struct {
	sentinel error
	message  string
}

func (c *carried) Error() string { return c.message }
func (c *carried) Unwrap() error { return c.sentinel }

func toFault(err error) *fault {
	f := &fault{Message: err.Error()}
	if errors.As(err, &f.Refused) || errors.As(err, &f.Pending) {
		return f
	}
	for _, n := range named {
		if errors.Is(err, n.err) {
			f.Name = n.name
			return f
		}
	}
	return f
}

func (f *fault) toError() error {
	switch {
	case f.Refused != nil:
		return f.Refused
	case f.Pending != nil:
		return f.Pending
	}
	for _, n := range named {
		if n.name == f.Name {
			return &carried{n.err, f.Message}
		}
	}
	return fmt.Errorf("another node failed: %s", f.Message)
}
