package kind

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Names of metadata that clients understand. Values are short and never secret.
const (
	MetaNode    = "node"    // the node that refused
	MetaIndex   = "index"   // the log index at which the request is committed
	MetaPending = "pending" // comma list of the nodes that a barrier still waits for
	MetaTry     = "try"     // the command that a person should run next
)

// statusError is a gRPC status whose text is its message alone, so that wrapping it with %w reads well.
type statusError struct{ st *status.Status }

func (e *statusError) Error() string              { return e.st.Message() }
func (e *statusError) GRPCStatus() *status.Status { return e.st }

// New makes a gRPC status error of kind k: its code from the table, message for people (what and why), and an ErrorInfo with
// k and metadata. metadata may be nil. Error() is message alone.
func New(k Kind, message string, metadata map[string]string) error {
	info := &errdetails.ErrorInfo{Reason: string(k), Domain: Domain, Metadata: make(map[string]string, len(metadata))}
	for name, value := range metadata {
		info.Metadata[name] = validText(value) // protobuf refuses other text, and an error must never be lost to that
	}
	st := status.New(k.Code(), validText(message))
	if detailed, err := st.WithDetails(info); err == nil {
		return &statusError{detailed}
	}
	return &statusError{st}
}

func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Of says which kind err is of; the zero Kind for nil. It looks, in this order, for our ErrorInfo, for a gRPC status, for
// the errors of a context; any other error is INTERNAL.
func Of(err error) Kind {
	if err == nil {
		return ""
	}
	if st, ok := statusOf(err); ok {
		return ofStatus(st)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Deadline
	}
	return Internal
}

// ExitCode is the exit code of the program for err; 0 for nil.
func ExitCode(err error) int { return Of(err).Exit() }

// Metadata returns the metadata that came with err, nil if none did.
func Metadata(err error) map[string]string {
	if st, ok := statusOf(err); ok {
		if info := infoOf(st); info != nil {
			return info.GetMetadata()
		}
	}
	return nil
}

// Received turns a status error as gRPC returns it into one whose text is its message alone, like those of New. Any other error
// is returned as it is.
func Received(err error) error {
	if st, ok := err.(interface{ GRPCStatus() *status.Status }); ok && st.GRPCStatus().Code() != codes.OK {
		return &statusError{st.GRPCStatus()}
	}
	return err
}

func statusOf(err error) (*status.Status, bool) {
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) {
		return nil, false
	}
	st := carrier.GRPCStatus()
	return st, st != nil
}

func ofStatus(st *status.Status) Kind {
	if st.Code() == codes.OK {
		return ""
	}
	if info := infoOf(st); info != nil && Kind(info.GetReason()).Known() {
		return Kind(info.GetReason())
	}
	if st.Code() == codes.Unavailable && (RefusesCertificate(st.Message()) || RefusesVersion(st.Message())) {
		return Unauthenticated
	}
	if k, ok := bare[st.Code()]; ok {
		return k
	}
	return Internal // a code that gRPC has not defined
}

func infoOf(st *status.Status) *errdetails.ErrorInfo {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info
		}
	}
	return nil
}

// refusals are what crypto/tls and crypto/x509 say when one side does not accept the other's certificate. gRPC flattens a
// failed handshake into the text of an UNAVAILABLE status, so here, and only here, a text has to decide.
var refusals = []string{
	"tls: bad certificate",
	"tls: unsupported certificate",
	"tls: revoked certificate",
	"tls: expired certificate",
	"tls: unknown certificate", // also: "tls: unknown certificate authority"
	"tls: access denied",
	"tls: certificate required",
	"tls: failed to verify certificate",
	"x509: certificate",
}

// versions are what crypto/tls says when the two sides speak no common version of TLS: the alert, and what a client and a
// server say themselves.
var versions = []string{
	"tls: protocol version not supported",
	"tls: server selected unsupported protocol version",
	"tls: client offered only unsupported versions",
}

// RefusesVersion reports whether text is that of a TLS handshake without a common version. Conclave speaks TLS 1.3 and nothing below
// it, so that is as final as a refused certificate.
func RefusesVersion(text string) bool {
	for _, v := range versions {
		if strings.Contains(text, v) {
			return true
		}
	}
	return false
}

// RefusesCertificate reports whether text is that of a TLS handshake in which a certificate was refused, by either side.
func RefusesCertificate(text string) bool {
	for _, r := range refusals {
		if strings.Contains(text, r) {
			return true
		}
	}
	return false
}
