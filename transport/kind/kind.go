package kind

import "google.golang.org/grpc/codes"

// Domain of the ErrorInfo that carries a Kind.
const Domain = "conclave"

// Kind is a kind of error: the reason of the ErrorInfo. The zero value means no error.
type Kind string

// The kinds. The list is append-only.
const (
	InvalidArgument Kind = "INVALID_ARGUMENT" // malformed, unknown or outside a limit, whatever the state
	NotFound        Kind = "NOT_FOUND"        // only told to callers who may read that path
	AlreadyExists   Kind = "ALREADY_EXISTS"   // the name is taken, for ever
	Unauthenticated Kind = "UNAUTHENTICATED"  // no certificate, or one that is nobody's (unknown, expired, revoked)
	Denied          Kind = "DENIED"           // known, but not allowed
	NeedsApproval   Kind = "NEEDS_APPROVAL"   // allowed only with a quorum
	Unavailable     Kind = "UNAVAILABLE"      // this node cannot answer now: no quorum, no lease, shutting down
	BarrierPending  Kind = "BARRIER_PENDING"  // committed, but some node may still act on the old state
	Sealed          Kind = "SEALED"           // this node has no master open
	KeyState        Kind = "KEY_STATE"        // the key's state forbids it
	NotVerified     Kind = "NOT_VERIFIED"     // a signature, MAC or ciphertext does not verify
	Conflict        Kind = "CONFLICT"         // overtaken by another change
	Limit           Kind = "LIMIT"            // a limit of the cluster or of a message is reached
	Unsupported     Kind = "UNSUPPORTED"      // this release or a node of the serving set cannot do it
	RequestReused   Kind = "REQUEST_REUSED"   // the request id was used for another request
	RequestExpired  Kind = "REQUEST_EXPIRED"  // the request id is older than the horizon
	Ceremony        Kind = "CEREMONY"         // the ceremony is not open, or not in this phase
	Uninitialised   Kind = "UNINITIALISED"    // the node belongs to no cluster yet
	Deadline        Kind = "DEADLINE"         // the caller's time ended before the answer: outcome unknown
	Internal        Kind = "INTERNAL"         // a fault of the program
	Budget          Kind = "BUDGET"           // the key's use budget does not allow it
)

// Exit codes of the program. Users' scripts rely on them.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2 // bad usage or argument
	ExitNotFound    = 3
	ExitDenied      = 4 // unauthenticated, denied or certificate refused
	ExitApproval    = 5
	ExitUnavailable = 6 // unavailable, no quorum, pending
	ExitSealed      = 7
	ExitKeyState    = 8
	ExitNotVerified = 9
)

type row struct {
	kind    Kind
	code    codes.Code
	exit    int
	meaning string
}

// table is the single source. Why a code where it is not obvious:
//
//   - BARRIER_PENDING is DEADLINE_EXCEEDED: gRPC's word for "it may have happened all the same"; and it has, but not everywhere.
//   - SEALED and UNINITIALISED are FAILED_PRECONDITION and not UNAVAILABLE: they do not heal without people, so a generic
//     client must not hammer. UNINITIALISED exits 6: to a script the cluster is simply not there yet.
//   - NOT_VERIFIED is INVALID_ARGUMENT: the input is wrong whatever the state of the cluster.
//   - REQUEST_REUSED exits 2, the caller's mistake; REQUEST_EXPIRED exits 1, because after a long outage it meets callers who
//     made none and must look what became of their request.
//   - ALREADY_EXISTS, CONFLICT, LIMIT and CEREMONY exit 1: the arguments were fine and the answer is a plain no, for which the
//     contract keeps no code of its own.
//   - UNSUPPORTED exits 2: another argument (algorithm, scheme) is the remedy.
var table = []row{
	{InvalidArgument, codes.InvalidArgument, ExitUsage, "an argument is malformed or outside its limit"},
	{NotFound, codes.NotFound, ExitNotFound, "there is no such object"},
	{AlreadyExists, codes.AlreadyExists, ExitError, "the name is taken; names are never reused"},
	{Unauthenticated, codes.Unauthenticated, ExitDenied, "the certificate is missing, unknown, expired or revoked"},
	{Denied, codes.PermissionDenied, ExitDenied, "the caller is not allowed to do this"},
	{NeedsApproval, codes.FailedPrecondition, ExitApproval, "this needs the approval of others"},
	{Unavailable, codes.Unavailable, ExitUnavailable, "no node can answer right now"},
	{BarrierPending, codes.DeadlineExceeded, ExitUnavailable, "committed, but not yet in force on every node"},
	{Sealed, codes.FailedPrecondition, ExitSealed, "the node is sealed"},
	{KeyState, codes.FailedPrecondition, ExitKeyState, "the state of the key forbids this"},
	{NotVerified, codes.InvalidArgument, ExitNotVerified, "the signature, MAC or ciphertext does not verify"},
	{Conflict, codes.Aborted, ExitError, "another change came first"},
	{Limit, codes.ResourceExhausted, ExitError, "a limit is reached"},
	{Unsupported, codes.Unimplemented, ExitUsage, "the cluster cannot do this"},
	{RequestReused, codes.InvalidArgument, ExitUsage, "the request id belongs to another request"},
	{RequestExpired, codes.OutOfRange, ExitError, "the request id is too old to be accepted"},
	{Ceremony, codes.FailedPrecondition, ExitError, "the ceremony does not allow this now"},
	{Uninitialised, codes.FailedPrecondition, ExitUnavailable, "the node belongs to no cluster yet"},
	{Deadline, codes.DeadlineExceeded, ExitUnavailable, "the time allowed ended before the answer"},
	{Internal, codes.Internal, ExitError, "a fault inside the program"},
	{Budget, codes.ResourceExhausted, ExitKeyState, "the use budget of the key is spent"},
}

// bare maps a gRPC code that came without our ErrorInfo: from gRPC itself, a proxy, or a newer cluster's unknown kind.
// FAILED_PRECONDITION stands for several kinds, so alone it claims none of them and is a plain conflict. CANCELED is like a
// deadline: the caller stopped waiting and the outcome is unknown.
var bare = map[codes.Code]Kind{
	codes.Canceled:           Deadline,
	codes.Unknown:            Internal,
	codes.InvalidArgument:    InvalidArgument,
	codes.DeadlineExceeded:   Deadline,
	codes.NotFound:           NotFound,
	codes.AlreadyExists:      AlreadyExists,
	codes.PermissionDenied:   Denied,
	codes.ResourceExhausted:  Limit,
	codes.FailedPrecondition: Conflict,
	codes.Aborted:            Conflict,
	codes.OutOfRange:         InvalidArgument,
	codes.Unimplemented:      Unsupported,
	codes.Internal:           Internal,
	codes.Unavailable:        Unavailable,
	codes.DataLoss:           Internal,
	codes.Unauthenticated:    Unauthenticated,
}

// All lists the kinds in the order of the table.
func All() []Kind {
	all := make([]Kind, len(table))
	for i, r := range table {
		all[i] = r.kind
	}
	return all
}

func (k Kind) row() (row, bool) {
	for _, r := range table {
		if r.kind == k {
			return r, true
		}
	}
	return row{k, codes.Unknown, ExitError, "an error of a kind that this release does not know"}, false
}

// Known reports whether k is in the table.
func (k Kind) Known() bool {
	_, ok := k.row()
	return ok
}

// Code is the gRPC code that carries k; UNKNOWN for a kind that is not in the table.
func (k Kind) Code() codes.Code {
	r, _ := k.row()
	return r.code
}

// Exit is the exit code of the program for k; 0 for the zero Kind, 1 for a kind that is not in the table.
func (k Kind) Exit() int {
	if k == "" {
		return ExitOK
	}
	r, _ := k.row()
	return r.exit
}

// Meaning says in one line what k means.
func (k Kind) Meaning() string {
	r, _ := k.row()
	return r.meaning
}
