package transport

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// refusals maps what the state machine refuses.
var refusals = map[fsm.Code]kind.Kind{
	fsm.CodeInvalid: kind.InvalidArgument, fsm.CodeNotFound: kind.NotFound, fsm.CodeExists: kind.AlreadyExists,
	fsm.CodeState: kind.KeyState, fsm.CodeNeedsApproval: kind.NeedsApproval, fsm.CodeVersionConflict: kind.Conflict,
	fsm.CodeRequestReused: kind.RequestReused, fsm.CodeRequestExpired: kind.RequestExpired, fsm.CodeDenied: kind.Denied,
	fsm.CodeCeremony: kind.Ceremony, fsm.CodeConflict: kind.Conflict, fsm.CodeLimit: kind.Limit,
	fsm.CodeUninitialised: kind.Uninitialised, fsm.CodeUnsupported: kind.Unsupported,
	fsm.CodeBudget: kind.Budget,
}

// sentinels maps errors, most specific first.
var sentinels = []struct {
	err  error
	kind kind.Kind
}{
	{policy.ErrUnauthenticated, kind.Unauthenticated},
	{policy.ErrDenied, kind.Denied},
	{vault.ErrToken, kind.Denied},
	{vault.ErrShare, kind.Denied},
	{ceremony.ErrSignature, kind.Denied},
	{vault.ErrNotVerified, kind.NotVerified},
	{hsm.ErrVerify, kind.NotVerified},
	{vault.ErrInvalid, kind.InvalidArgument},
	{hsm.ErrInput, kind.InvalidArgument},
	{guard.ErrWrongKey, kind.InvalidArgument},
	{guard.ErrNotFound, kind.NotFound},
	{vault.ErrNoCeremony, kind.NotFound},
	{guard.ErrNeedsApproval, kind.NeedsApproval},
	{guard.ErrKeyState, kind.KeyState},
	{hsm.ErrSealed, kind.Sealed},
	{hsm.ErrLost, kind.Sealed},
	{hsm.ErrUnsupported, kind.Unsupported},
	{vault.ErrUninitialised, kind.Uninitialised},
	{vault.ErrCeremony, kind.Ceremony},
	{guard.ErrNoLease, kind.Unavailable},
	{guard.ErrFenced, kind.Unavailable},
	{guard.ErrUnavailable, kind.Unavailable},
	{usage.ErrFull, kind.Unavailable},   // this node's; another one may have room
	{usage.ErrClosed, kind.Unavailable}, // this node is stopping, or its disk failed
	{vault.ErrBehind, kind.Unavailable},
	{vault.ErrUnavailable, kind.Unavailable},
	{vault.ErrClock, kind.Unavailable}, // another node may lead by then
	{vault.ErrNotLeader, kind.Unavailable},
	{vault.ErrOutcomeUnknown, kind.Unavailable},
	{hsm.ErrHandle, kind.Unavailable}, // the device keeps dropping keys; another node's may not
	{hsm.ErrDevice, kind.Unavailable}, // this node's; another one's may do it
	{hsm.ErrClosed, kind.Unavailable}, // this node is stopping; another one may answer
	{context.DeadlineExceeded, kind.Deadline},
	{context.Canceled, kind.Deadline},
}

// toStatus is the error table: every error of the layers below becomes a kind here and nowhere else. What is not in the table is
// a defect: its text goes to the log and not to the caller.
func (s *Server) toStatus(err error) error {
	meta := map[string]string{kind.MetaNode: s.cfg.Node}
	var pending *vault.PendingError
	var refused *vault.Refused
	switch {
	case errors.As(err, &pending):
		meta[kind.MetaIndex] = strconv.FormatUint(pending.Index, 10)
		meta[kind.MetaPending] = joinNodes(pending.Pending)
		return kind.New(kind.BarrierPending, err.Error(), meta)
	case errors.As(err, &refused):
		if k, known := refusals[refused.Code]; known {
			return kind.New(k, err.Error(), meta)
		}
	}
	for _, row := range sentinels {
		if errors.Is(err, row.err) {
			return kind.New(row.kind, err.Error(), meta)
		}
	}
	s.cfg.Logger.Error("a call failed for a reason that callers are not shown", "err", err)
	return kind.New(kind.Internal, "node "+s.cfg.Node+" failed; its log says why", meta)
}

func joinNodes(nodes []fsm.NodeID) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	return strings.Join(names, ",")
}
