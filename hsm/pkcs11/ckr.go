//go:build cgo && unix

package pkcs11

import (
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// callError is what a module answered to a call: name and number of the CKR, by which vendors' manuals go.
type callError struct {
	call string // such as "C_UnwrapKey"
	code p11.Error
}

func (e *callError) Error() string { return e.call + ": " + codeName(e.code) }

// ckrActionProhibited (PKCS#11 2.40) has no name in the binding.
const ckrActionProhibited = 0x1B

func codeName(code p11.Error) string {
	// The binding prints "pkcs11: 0x69: CKR_KEY_NOT_WRAPPABLE".
	parts := strings.Split(code.Error(), ": ")
	name := parts[len(parts)-1]
	if code == ckrActionProhibited {
		name = "CKR_ACTION_PROHIBITED"
	}
	if name == "" {
		name = "a code of the vendor"
	}
	return fmt.Sprintf("%s (0x%X)", name, uint(code))
}

// check names the call of an error that the binding gave.
func check(call string, err error) error {
	var code p11.Error
	if errors.As(err, &code) {
		return &callError{call: call, code: code}
	}
	return err
}

// codeOf is the CKR inside err; 0 if there is none.
func codeOf(err error) p11.Error {
	var call *callError
	if errors.As(err, &call) {
		return call.code
	}
	return p11.CKR_OK
}

// class is what follows from an answer of a module.
type class uint8

const (
	plain   class = iota // told to the caller: refusals, bad data, no answer of a module at all. Never repeated
	dropped              // the object behind a handle is gone: a working copy is opened again, once; anything else means lost
	busy                 // an operation was left active on the session: it is replaced, and the operation runs once more
	limit                // no session is left: go on with those that are open
	doubt                // a general failure: told to the caller, and the device is looked at
	lost                 // the module lost this process's sessions or login, or its device: go sealed and rebuild
	stop                 // the PIN is refused: never tried again
)

var classes = map[p11.Error]class{
	p11.CKR_SESSION_CLOSED: lost, p11.CKR_SESSION_HANDLE_INVALID: lost, p11.CKR_USER_NOT_LOGGED_IN: lost,
	p11.CKR_CRYPTOKI_NOT_INITIALIZED: lost, p11.CKR_DEVICE_ERROR: lost, p11.CKR_DEVICE_MEMORY: lost, p11.CKR_DEVICE_REMOVED: lost,
	p11.CKR_TOKEN_NOT_PRESENT: lost, p11.CKR_TOKEN_NOT_RECOGNIZED: lost, p11.CKR_SLOT_ID_INVALID: lost,

	// Handles are counted, so an invalid one means that the module dropped the object.
	p11.CKR_OBJECT_HANDLE_INVALID: dropped, p11.CKR_KEY_HANDLE_INVALID: dropped,
	p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID: dropped, p11.CKR_WRAPPING_KEY_HANDLE_INVALID: dropped,

	p11.CKR_OPERATION_ACTIVE: busy, p11.CKR_SESSION_COUNT: limit,
	p11.CKR_GENERAL_ERROR: doubt, p11.CKR_FUNCTION_FAILED: doubt,

	p11.CKR_PIN_INCORRECT: stop, p11.CKR_PIN_INVALID: stop, p11.CKR_PIN_LEN_RANGE: stop, p11.CKR_PIN_EXPIRED: stop,
	p11.CKR_PIN_LOCKED: stop, p11.CKR_USER_PIN_NOT_INITIALIZED: stop,
}

// classOf is plain for nil and for errors that are no answer of a module.
func classOf(err error) class { return classes[codeOf(err)] }

// isGone reports what no result about data can be made of: the module does not know the object or the process any more.
func isGone(err error) bool {
	c := classOf(err)
	return c == lost || c == dropped
}

// pinError makes of C_Login's answer what operators need. It is never retried: every try counts towards locking the token.
func pinError(err error, flags uint) error {
	switch codeOf(err) {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED:
		return fmt.Errorf("%w: %w%s", hsm.ErrPIN, err, pinWarning(flags))
	case p11.CKR_USER_PIN_NOT_INITIALIZED:
		return fmt.Errorf("%w: the user PIN is not set, initialise the token first", err)
	case p11.CKR_USER_ALREADY_LOGGED_IN, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN:
		return fmt.Errorf("%w: %w: something else in this process is logged in to it", ErrInUse, err)
	}
	return fmt.Errorf("logging in: %w", err)
}

func pinWarning(flags uint) string {
	switch {
	case flags&p11.CKF_USER_PIN_LOCKED != 0:
		return "; the token is LOCKED, the security officer must set a new PIN"
	case flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return "; ONE more wrong PIN locks the token"
	case flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		return "; a wrong PIN was given since the last login, too many lock the token"
	}
	return ""
}
