package kind_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/conclave-vault/conclave/transport/kind"
)

// exits holds the exit code of every pair: one row per kind, one column per gRPC code 0 … 16 that may carry it. A kind decides
// whatever the code is, but a status OK is no error. "bare" is a status without our ErrorInfo, "foreign" one with an ErrorInfo of
// another domain, "newer" one with a reason that is not in the table: for those the code decides.
const exits = `
                    OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied ResourceExhausted FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss Unauthenticated
INVALID_ARGUMENT     0        2       2               2                2        2             2                2                 2                  2       2          2             2        2           2        2               2
NOT_FOUND            0        3       3               3                3        3             3                3                 3                  3       3          3             3        3           3        3               3
ALREADY_EXISTS       0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
UNAUTHENTICATED      0        4       4               4                4        4             4                4                 4                  4       4          4             4        4           4        4               4
DENIED               0        4       4               4                4        4             4                4                 4                  4       4          4             4        4           4        4               4
NEEDS_APPROVAL       0        5       5               5                5        5             5                5                 5                  5       5          5             5        5           5        5               5
UNAVAILABLE          0        6       6               6                6        6             6                6                 6                  6       6          6             6        6           6        6               6
BARRIER_PENDING      0        6       6               6                6        6             6                6                 6                  6       6          6             6        6           6        6               6
SEALED               0        7       7               7                7        7             7                7                 7                  7       7          7             7        7           7        7               7
KEY_STATE            0        8       8               8                8        8             8                8                 8                  8       8          8             8        8           8        8               8
NOT_VERIFIED         0        9       9               9                9        9             9                9                 9                  9       9          9             9        9           9        9               9
CONFLICT             0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
LIMIT                0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
UNSUPPORTED          0        2       2               2                2        2             2                2                 2                  2       2          2             2        2           2        2               2
REQUEST_REUSED       0        2       2               2                2        2             2                2                 2                  2       2          2             2        2           2        2               2
REQUEST_EXPIRED      0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
CEREMONY             0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
UNINITIALISED        0        6       6               6                6        6             6                6                 6                  6       6          6             6        6           6        6               6
DEADLINE             0        6       6               6                6        6             6                6                 6                  6       6          6             6        6           6        6               6
INTERNAL             0        1       1               1                1        1             1                1                 1                  1       1          1             1        1           1        1               1
BUDGET               0        8       8               8                8        8             8                8                 8                  8       8          8             8        8           8        8               8
bare                 0        6       1               2                6        3             1                4                 1                  1       1          2             2        1           6        1               4
foreign              0        6       1               2                6        3             1                4                 1                  1       1          2             2        1           6        1               4
newer                0        6       1               2                6        3             1                4                 1                  1       1          2             2        1           6        1               4
`

func TestExitCodeOfEveryPair(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(exits), "\n")
	columns := strings.Fields(lines[0])
	var kinds []kind.Kind
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		if k := kind.Kind(cells[0]); k.Known() {
			kinds = append(kinds, k)
		}
		for i, cell := range cells[1:] {
			code := codes.Code(i)
			if code.String() != columns[i] {
				t.Fatalf("column %d is %s, want %s", i, columns[i], code)
			}
			want, err := strconv.Atoi(cell)
			if err != nil {
				t.Fatal(err)
			}
			if got := kind.ExitCode(carried(t, cells[0], code)); got != want {
				t.Errorf("%s carried by %s exits %d, want %d", cells[0], code, got, want)
			}
		}
	}
	if diff := cmp.Diff(kind.All(), kinds); diff != "" {
		t.Errorf("the table here and that of the package differ (-package +test):\n%s", diff)
	}
}

// carried makes a status of the row's kind that came with code.
func carried(t *testing.T, row string, code codes.Code) error {
	t.Helper()
	info := &errdetails.ErrorInfo{Reason: row, Domain: kind.Domain}
	switch row {
	case "bare":
		return status.Error(code, "bare")
	case "foreign":
		info = &errdetails.ErrorInfo{Reason: "SEALED", Domain: "example.org"}
	case "newer":
		info.Reason = "A_KIND_OF_THE_FUTURE"
	}
	st := status.New(code, "carried")
	if code == codes.OK {
		return st.Err()
	}
	st, err := st.WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestNewCarriesCodeAndMetadata(t *testing.T) {
	want := map[kind.Kind]codes.Code{
		kind.InvalidArgument: codes.InvalidArgument, kind.NotFound: codes.NotFound, kind.AlreadyExists: codes.AlreadyExists,
		kind.Unauthenticated: codes.Unauthenticated, kind.Denied: codes.PermissionDenied, kind.NeedsApproval: codes.FailedPrecondition,
		kind.Unavailable: codes.Unavailable, kind.BarrierPending: codes.DeadlineExceeded, kind.Sealed: codes.FailedPrecondition,
		kind.KeyState: codes.FailedPrecondition, kind.NotVerified: codes.InvalidArgument, kind.Conflict: codes.Aborted,
		kind.Limit: codes.ResourceExhausted, kind.Unsupported: codes.Unimplemented, kind.RequestReused: codes.InvalidArgument,
		kind.RequestExpired: codes.OutOfRange, kind.Ceremony: codes.FailedPrecondition, kind.Uninitialised: codes.FailedPrecondition,
		kind.Deadline: codes.DeadlineExceeded, kind.Internal: codes.Internal, kind.Budget: codes.ResourceExhausted,
	}
	for _, k := range kind.All() {
		meta := map[string]string{kind.MetaNode: "n1"}
		err := kind.New(k, "what: why", meta)
		meta[kind.MetaNode] = "changed later"
		wrapped := fmt.Errorf("calling: %w", err)
		if got := status.Code(err); got != want[k] {
			t.Errorf("%s is carried by %s, want %s", k, got, want[k])
		}
		if got := kind.Of(wrapped); got != k {
			t.Errorf("Of(wrapped %s) = %s", k, got)
		}
		if diff := cmp.Diff(map[string]string{"node": "n1"}, kind.Metadata(wrapped)); diff != "" {
			t.Errorf("%s: metadata: %s", k, diff)
		}
		if got := wrapped.Error(); got != "calling: what: why" {
			t.Errorf("text = %q", got)
		}
		if k.Meaning() == "" || strings.Contains(k.Meaning(), "does not know") {
			t.Errorf("%s has no meaning", k)
		}
	}
}

func TestReceivedLosesThePrefixOfGRPC(t *testing.T) {
	err := kind.Received(status.Error(codes.NotFound, "no key a"))
	if err.Error() != "no key a" || kind.Of(err) != kind.NotFound {
		t.Errorf("%v is %s", err, kind.Of(err))
	}
	plain := errors.New("disk full")
	if got := kind.Received(plain); got != plain {
		t.Errorf("%v became %v", plain, got)
	}
	if kind.Received(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestNewAcceptsAnyText(t *testing.T) {
	err := kind.New(kind.Denied, "name \xff", map[string]string{"k": "\xfe"})
	if kind.Of(err) != kind.Denied || kind.Metadata(err)["k"] != "\uFFFD" {
		t.Errorf("Of = %s", kind.Of(err))
	}
}

func TestOfErrorsWithoutStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind kind.Kind
		exit int
	}{
		{nil, "", 0},
		{errors.New("disk full"), kind.Internal, 1},
		{context.DeadlineExceeded, kind.Deadline, 6},
		{fmt.Errorf("waiting: %w", context.Canceled), kind.Deadline, 6},
		{status.Error(codes.Code(99), "of a later gRPC"), kind.Internal, 1},
	} {
		if got := kind.Of(c.err); got != c.kind {
			t.Errorf("Of(%v) = %q, want %q", c.err, got, c.kind)
		}
		if got := kind.ExitCode(c.err); got != c.exit {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.exit)
		}
		if kind.Metadata(c.err) != nil {
			t.Errorf("Metadata(%v) is not nil", c.err)
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	for text, want := range map[string]kind.Kind{
		`connection error: desc = "error reading server preface: remote error: tls: bad certificate"`:                                                             kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: certificate required"`:                                                        kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: expired certificate"`:                                                         kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: revoked certificate"`:                                                         kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: unsupported certificate"`:                                                     kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: unknown certificate authority"`:                                               kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: access denied"`:                                                               kind.Unauthenticated,
		`connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`: kind.Unauthenticated,
		`connection error: desc = "transport: authentication handshake failed: x509: certificate has expired or is not yet valid"`:                                kind.Unauthenticated,
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`:                                            kind.Unavailable,
		`connection error: desc = "transport: authentication handshake failed: remote error: tls: protocol version not supported"`:                                kind.Unauthenticated,
		`connection error: desc = "transport: authentication handshake failed: tls: server selected unsupported protocol version 303"`:                            kind.Unauthenticated,
		`connection error: desc = "error reading server preface: remote error: tls: internal error"`:                                                              kind.Unavailable,
	} {
		if got := kind.Of(status.Error(codes.Unavailable, text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := kind.Of(status.Error(codes.NotFound, "tls: bad certificate")); got != kind.NotFound {
		t.Errorf("the text decided over the code: %s", got)
	}
}
