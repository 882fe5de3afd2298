package fsm

import (
	"errors"
	"fmt"
)

// Errors by the moment at which they happen.
var (
	// ErrUnknownEntry: a must-understand entry of a newer release. The node must stop, because going on without it would make
	// its state differ from the others'.
	ErrUnknownEntry = errors.New("fsm: an entry that must be understood is not known to this release")
	// ErrInvalid: something is malformed or outside a limit. Validators return it; Apply makes CodeInvalid of it.
	ErrInvalid = errors.New("fsm: not valid")
	// ErrSnapshot: bytes that are no snapshot, or are damaged.
	ErrSnapshot = errors.New("fsm: the snapshot does not verify")
	// ErrEvent: bytes that are no encoded event.
	ErrEvent = errors.New("fsm: the bytes are no event")
	// ErrRoster: a roster or a chain of rosters does not verify.
	ErrRoster = errors.New("fsm: the roster does not verify")
)

// refusal is the error by which a command's method says no; it becomes the Result.
type refusal struct {
	code    Code
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(code Code, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// invalidError is ErrInvalid in words that need no prefix: they become a result's message.
type invalidError string

func (e invalidError) Error() string { return string(e) }
func (e invalidError) Unwrap() error { return ErrInvalid }

// invalid says what is wrong with a value in words that name it.
func invalid(format string, args ...any) error { return invalidError(fmt.Sprintf(format, args...)) }

var codeNames = [...]string{
	CodeOK: "ok", CodeInvalid: "invalid", CodeNotFound: "not found", CodeExists: "exists", CodeState: "state",
	CodeNeedsApproval: "needs approval", CodeVersionConflict: "version conflict", CodeRequestReused: "request reused",
	CodeRequestExpired: "request expired", CodeDenied: "denied", CodeCeremony: "ceremony", CodeConflict: "conflict",
	CodeLimit: "limit", CodeUninitialised: "uninitialised", CodeUnsupported: "unsupported",
	CodeBudget: "budget",
}

// String is the code's name in words.
func (c Code) String() string {
	if int(c) < len(codeNames) && codeNames[c] != "" {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

func snapshotError(what string) error { return fmt.Errorf("%w: %s", ErrSnapshot, what) }
