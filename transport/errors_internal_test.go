package transport

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// hidden marks an error whose text callers are not shown.
const hidden = kind.Internal

// outcome is what a client's program makes of an error.
type outcome struct {
	kind kind.Kind
	code codes.Code
	exit int
}

// outcomes is the contract, written out: what each error of the layers below looks like outside. The names are those of the source,
// so that TestEveryExportedErrorHasARow can tell which one is missing.
var outcomes = map[string]struct {
	err  error
	want outcome
}{
	"policy.ErrUnauthenticated": {policy.ErrUnauthenticated, outcome{kind.Unauthenticated, codes.Unauthenticated, 4}},
	"policy.ErrDenied":          {policy.ErrDenied, outcome{kind.Denied, codes.PermissionDenied, 4}},

	"vault.ErrInvalid":        {vault.ErrInvalid, outcome{kind.InvalidArgument, codes.InvalidArgument, 2}},
	"vault.ErrBehind":         {vault.ErrBehind, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"vault.ErrUnavailable":    {vault.ErrUnavailable, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"vault.ErrClock":          {vault.ErrClock, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"vault.ErrNotLeader":      {vault.ErrNotLeader, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"vault.ErrOutcomeUnknown": {vault.ErrOutcomeUnknown, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"vault.ErrCeremony":       {vault.ErrCeremony, outcome{kind.Ceremony, codes.FailedPrecondition, 1}},
	"vault.ErrShare":          {vault.ErrShare, outcome{kind.Denied, codes.PermissionDenied, 4}},
	"vault.ErrNoCeremony":     {vault.ErrNoCeremony, outcome{kind.NotFound, codes.NotFound, 3}},
	"vault.ErrUninitialised":  {vault.ErrUninitialised, outcome{kind.Uninitialised, codes.FailedPrecondition, 6}},
	"vault.ErrNotVerified":    {vault.ErrNotVerified, outcome{kind.NotVerified, codes.InvalidArgument, 9}},
	"vault.ErrToken":          {vault.ErrToken, outcome{kind.Denied, codes.PermissionDenied, 4}},

	"guard.ErrNoLease":       {guard.ErrNoLease, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"guard.ErrFenced":        {guard.ErrFenced, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"guard.ErrUnavailable":   {guard.ErrUnavailable, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"guard.ErrNotFound":      {guard.ErrNotFound, outcome{kind.NotFound, codes.NotFound, 3}},
	"guard.ErrKeyState":      {guard.ErrKeyState, outcome{kind.KeyState, codes.FailedPrecondition, 8}},
	"guard.ErrNeedsApproval": {guard.ErrNeedsApproval, outcome{kind.NeedsApproval, codes.FailedPrecondition, 5}},
	"guard.ErrWrongKey":      {guard.ErrWrongKey, outcome{kind.InvalidArgument, codes.InvalidArgument, 2}},

	"hsm.ErrSealed":      {hsm.ErrSealed, outcome{kind.Sealed, codes.FailedPrecondition, 7}},
	"hsm.ErrLost":        {hsm.ErrLost, outcome{kind.Sealed, codes.FailedPrecondition, 7}},
	"hsm.ErrHandle":      {hsm.ErrHandle, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"hsm.ErrDevice":      {hsm.ErrDevice, outcome{kind.Unavailable, codes.Unavailable, 6}},
	"hsm.ErrUnsupported": {hsm.ErrUnsupported, outcome{kind.Unsupported, codes.Unimplemented, 2}},
	"hsm.ErrInput":       {hsm.ErrInput, outcome{kind.InvalidArgument, codes.InvalidArgument, 2}},
	"hsm.ErrVerify":      {hsm.ErrVerify, outcome{kind.NotVerified, codes.InvalidArgument, 9}},
	"hsm.ErrClosed":      {hsm.ErrClosed, outcome{kind.Unavailable, codes.Unavailable, 6}},
	// A catalog entry that this node's token does not accept: somebody changed it, or a defect did. Not for callers to read.
	"hsm.ErrWrappedKey": {hsm.ErrWrappedKey, outcome{hidden, codes.Internal, 1}},
	"hsm.ErrGeneration": {hsm.ErrGeneration, outcome{hidden, codes.Internal, 1}},
	// Only a start and a restore meet these; in a call they would be a defect.
	"hsm.ErrPIN":          {hsm.ErrPIN, outcome{hidden, codes.Internal, 1}},
	"hsm.ErrTokenDamaged": {hsm.ErrTokenDamaged, outcome{hidden, codes.Internal, 1}},
	"hsm.ErrTokenExists":  {hsm.ErrTokenExists, outcome{hidden, codes.Internal, 1}},
	"hsm.ErrNoMaster":     {hsm.ErrNoMaster, outcome{hidden, codes.Internal, 1}},

	"ceremony.ErrSignature": {ceremony.ErrSignature, outcome{kind.Denied, codes.PermissionDenied, 4}},
	// These reach callers inside vault.ErrShare or as a verdict's reason, and never alone.
	"ceremony.ErrShare":       {fmt.Errorf("%w: %w", vault.ErrShare, ceremony.ErrShare), outcome{kind.Denied, codes.PermissionDenied, 4}},
	"ceremony.ErrOpen":        {fmt.Errorf("%w: %w", vault.ErrShare, ceremony.ErrOpen), outcome{kind.Denied, codes.PermissionDenied, 4}},
	"ceremony.ErrNotInRoster": {fmt.Errorf("%w: %w", vault.ErrShare, ceremony.ErrNotInRoster), outcome{kind.Denied, codes.PermissionDenied, 4}},
	"ceremony.ErrEntropy":     {fmt.Errorf("%w: %w", vault.ErrShare, ceremony.ErrEntropy), outcome{kind.Denied, codes.PermissionDenied, 4}},
	// What is checked before dealing and before combining; here it would be a defect.
	"ceremony.ErrDeal":           {ceremony.ErrDeal, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrTooFewShares":   {ceremony.ErrTooFewShares, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrDuplicateShare": {ceremony.ErrDuplicateShare, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrSeal":           {ceremony.ErrSeal, outcome{hidden, codes.Internal, 1}},
	// Of a custodian's own files, which no node sees.
	"ceremony.ErrIdentity":    {ceremony.ErrIdentity, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrPassphrase":  {ceremony.ErrPassphrase, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrPermissions": {ceremony.ErrPermissions, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrPin":         {ceremony.ErrPin, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrNoShare":     {ceremony.ErrNoShare, outcome{hidden, codes.Internal, 1}},
	"ceremony.ErrShareHeld":   {ceremony.ErrShareHeld, outcome{hidden, codes.Internal, 1}},

	"context.DeadlineExceeded": {context.DeadlineExceeded, outcome{kind.Deadline, codes.DeadlineExceeded, 6}},
	"context.Canceled":         {context.Canceled, outcome{kind.Deadline, codes.DeadlineExceeded, 6}},
}

// refused is the same contract for what the state machine refuses.
var refused = map[fsm.Code]outcome{
	fsm.CodeInvalid:         {kind.InvalidArgument, codes.InvalidArgument, 2},
	fsm.CodeNotFound:        {kind.NotFound, codes.NotFound, 3},
	fsm.CodeExists:          {kind.AlreadyExists, codes.AlreadyExists, 1},
	fsm.CodeState:           {kind.KeyState, codes.FailedPrecondition, 8},
	fsm.CodeNeedsApproval:   {kind.NeedsApproval, codes.FailedPrecondition, 5},
	fsm.CodeVersionConflict: {kind.Conflict, codes.Aborted, 1},
	fsm.CodeRequestReused:   {kind.RequestReused, codes.InvalidArgument, 2},
	fsm.CodeRequestExpired:  {kind.RequestExpired, codes.OutOfRange, 1},
	fsm.CodeDenied:          {kind.Denied, codes.PermissionDenied, 4},
	fsm.CodeCeremony:        {kind.Ceremony, codes.FailedPrecondition, 1},
	fsm.CodeConflict:        {kind.Conflict, codes.Aborted, 1},
	fsm.CodeLimit:           {kind.Limit, codes.ResourceExhausted, 1},
	fsm.CodeUninitialised:   {kind.Uninitialised, codes.FailedPrecondition, 6},
	fsm.CodeUnsupported:     {kind.Unsupported, codes.Unimplemented, 2},
	fsm.CodeBudget:          {kind.Budget, codes.ResourceExhausted, 8},
}

// talking is a server that only turns errors; what it logs goes to w.
func talking(w io.Writer) *Server {
	return &Server{cfg: Config{Node: "n7", Logger: slog.New(slog.NewJSONHandler(w, nil))}}
}

func outcomeOf(err error) outcome { return outcome{kind.Of(err), status.Code(err), kind.ExitCode(err)} }

func compareOutcome(t *testing.T, got error, want outcome) {
	t.Helper()
	if diff := cmp.Diff(want, outcomeOf(got), cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("%v (-want +got):\n%s", got, diff)
	}
	if node := kind.Metadata(got)[kind.MetaNode]; node != "n7" {
		t.Errorf("%v: it names node %q", got, node)
	}
}

func TestErrorTable(t *testing.T) {
	for name, row := range outcomes {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			s := talking(&log)
			for how, err := range map[string]error{
				"alone":   row.err,
				"wrapped": fmt.Errorf("payments/eu version 3: %w", row.err),
				"joined":  errors.Join(row.err, errors.New("payments/eu version 3")),
			} {
				log.Reset()
				got := s.toStatus(err)
				compareOutcome(t, got, row.want)
				if row.want.kind == hidden {
					requireHidden(t, got, log.String(), err)
				} else if got.Error() != err.Error() || log.Len() != 0 {
					t.Errorf("%s: a caller reads %q, the log %q", how, got, log.String())
				}
			}
		})
	}
}

// requireHidden: the cause is in the log, and a caller learns only where.
func requireHidden(t *testing.T, got error, log string, cause error) {
	t.Helper()
	if got.Error() != "node n7 failed; its log says why" {
		t.Errorf("a caller reads %q", got)
	}
	if lines := strings.Count(log, "\n"); lines != 1 || !strings.Contains(log, strings.Split(cause.Error(), "\n")[0]) {
		t.Errorf("%d lines in the log: %s", lines, log)
	}
}

func TestRefusalTable(t *testing.T) {
	s := talking(io.Discard)
	for code, want := range refused {
		t.Run(code.String(), func(t *testing.T) {
			err := &vault.Refused{Code: code, Message: "key \"a\": because"}
			for _, e := range []error{err, fmt.Errorf("reporting: %w", err)} {
				got := s.toStatus(e)
				compareOutcome(t, got, want)
				if got.Error() != e.Error() {
					t.Errorf("a caller reads %q", got)
				}
			}
		})
	}
}

// codesOf lists what the state machine can answer: its codes have names, other numbers do not.
func codesOf(t *testing.T) []fsm.Code {
	t.Helper()
	var all []fsm.Code
	for c := fsm.CodeOK + 1; c < 100; c++ { // with gaps: numbers are given out in blocks
		if !strings.HasPrefix(c.String(), "code ") {
			all = append(all, c)
		}
	}
	if len(all) < 14 {
		t.Fatalf("only %d codes have names", len(all))
	}
	return all
}

func TestEveryRefusalHasARow(t *testing.T) {
	all := codesOf(t)
	if diff := cmp.Diff(all, slices.Sorted(maps.Keys(refusals))); diff != "" {
		t.Errorf("codes of the state machine and rows of the table (-codes +rows):\n%s", diff)
	}
	if diff := cmp.Diff(all, slices.Sorted(maps.Keys(refused))); diff != "" {
		t.Errorf("codes of the state machine and rows of this test (-codes +rows):\n%s", diff)
	}
}

func TestACodeOfAnotherVersionIsNotShown(t *testing.T) {
	var log strings.Builder
	err := &vault.Refused{Code: 999, Message: "what a newer leader says"}
	got := talking(&log).toStatus(err)
	compareOutcome(t, got, outcome{hidden, codes.Internal, 1})
	requireHidden(t, got, log.String(), err)
}

func TestAnUnknownErrorIsNotShown(t *testing.T) {
	var log strings.Builder
	err := errors.New("open /srv/secret-place/token: permission denied")
	got := talking(&log).toStatus(err)
	compareOutcome(t, got, outcome{kind.Internal, codes.Internal, 1})
	requireHidden(t, got, log.String(), err)
}

func TestPendingNamesIndexAndNodes(t *testing.T) {
	for _, wrap := range []func(error) error{
		func(err error) error { return err },
		func(err error) error { return fmt.Errorf("waiting: %w", errors.Join(err, context.DeadlineExceeded)) },
	} {
		err := wrap(&vault.PendingError{Index: 4711, Pending: []fsm.NodeID{"n2", "n3"}})
		got := talking(io.Discard).toStatus(err)
		compareOutcome(t, got, outcome{kind.BarrierPending, codes.DeadlineExceeded, 6})
		want := map[string]string{kind.MetaNode: "n7", kind.MetaIndex: "4711", kind.MetaPending: "n2,n3"}
		if diff := cmp.Diff(want, kind.Metadata(got)); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(got.Error(), "committed at 4711, pending on n2, n3") {
			t.Errorf("a caller reads %q", got)
		}
	}
}

// TestTheMoreSpecificErrorWins: what two sentinels wrap each other into is told by the one that decides what a person does next.
func TestTheMoreSpecificErrorWins(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want kind.Kind
	}{
		"a share refused, the report late":   {errors.Join(vault.ErrShare, context.DeadlineExceeded), kind.Denied},
		"asking the leader took too long":    {fmt.Errorf("%w: %w", guard.ErrUnavailable, context.DeadlineExceeded), kind.Unavailable},
		"the leader could not say not found": {fmt.Errorf("%w: %w", guard.ErrUnavailable, vault.ErrUnavailable), kind.Unavailable},
		"a bad argument to the token":        {fmt.Errorf("%w: %w", vault.ErrInvalid, hsm.ErrInput), kind.InvalidArgument},
		"a refusal that wraps a deadline":    {errors.Join(&vault.Refused{Code: fsm.CodeLimit, Message: "full"}, context.Canceled), kind.Limit},
	} {
		t.Run(name, func(t *testing.T) {
			if got := kind.Of(talking(io.Discard).toStatus(c.err)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestEveryExportedErrorHasARow reads the packages whose errors come through a call. A new sentinel fails here until somebody
// decides what it looks like outside.
func TestEveryExportedErrorHasARow(t *testing.T) {
	for _, dir := range []string{"../vault", "../vault/guard", "../vault/policy", "../vault/ceremony", "../hsm"} {
		for _, name := range exportedErrors(t, dir) {
			if _, ok := outcomes[filepath.Base(dir)+"."+name]; !ok {
				t.Errorf("%s.%s has no row in the table of this test", filepath.Base(dir), name)
			}
		}
	}
}

func exportedErrors(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			names = append(names, errorsOf(t, f)...)
		}
	}
	if len(names) == 0 {
		t.Fatalf("no exported error in %s", dir)
	}
	return names
}

func errorsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, name := range v.Names {
				if strings.HasPrefix(name.Name, "Err") {
					names = append(names, name.Name)
				}
			}
		}
		return true
	})
	return names
}

func TestAround(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		reply error
		want  kind.Kind
		shown bool
	}{
		"a known error":              {t.Context(), guard.ErrKeyState, kind.KeyState, true},
		"an unknown error":           {t.Context(), errors.New("inner"), kind.Internal, false},
		"no such method":             {t.Context(), status.Error(codes.Unimplemented, "unknown method"), kind.Unsupported, true},
		"something here was stopped": {t.Context(), context.Canceled, kind.Unavailable, false},
		"the caller went away":       {gone, context.Canceled, kind.Deadline, true},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := talking(io.Discard).around(c.ctx, "request", &grpc.UnaryServerInfo{FullMethod: "/m"},
				func(context.Context, any) (any, error) { return "half done", c.reply })
			if kind.Of(err) != c.want || reply != nil {
				t.Errorf("%v, %s: %v", reply, kind.Of(err), err)
			}
			if shown := strings.Contains(err.Error(), kind.Received(c.reply).Error()); shown != c.shown {
				t.Errorf("a caller reads %q", err)
			}
		})
	}
}

func TestAroundBoundsEveryCall(t *testing.T) {
	reply, err := talking(io.Discard).around(t.Context(), nil, &grpc.UnaryServerInfo{}, func(ctx context.Context, _ any) (any, error) {
		_, bounded := ctx.Deadline()
		return bounded, nil
	})
	if err != nil || reply != true {
		t.Errorf("bounded: %v, %v", reply, err)
	}
}

func TestAPanicEndsOneCall(t *testing.T) {
	var log strings.Builder
	reply, err := talking(&log).around(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/conclave/Sign"},
		func(context.Context, any) (any, error) { panic("index 7 out of range") })
	if kind.Of(err) != kind.Internal || reply != nil || strings.Contains(err.Error(), "index") {
		t.Errorf("%v, %v", reply, err)
	}
	for _, part := range []string{"index 7 out of range", "/conclave/Sign", "errors_internal_test.go"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q: %s", part, log.String())
		}
	}
}
