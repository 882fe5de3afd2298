package pkcs11

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

var (
	// ErrInUse: this process has the token open already. A login belongs to the process and not to a Token, so closing one would
	// take it from the other.
	ErrInUse = errors.New("hsm/pkcs11: the token is open already")
	// ErrEnvironment: the module is in use with other vendor settings. A module reads them once.
	ErrEnvironment = errors.New("hsm/pkcs11: the module is in use with another environment")
	// ErrNoKeys: the token is there and holds no keys of a node: Create makes them. It is an fs.ErrNotExist.
	ErrNoKeys = fmt.Errorf("hsm/pkcs11: no keys of a node (%w)", fs.ErrNotExist)
	// ErrModule: the module does not compute or does not enforce what keys need. The error says what.
	ErrModule = errors.New("hsm/pkcs11: the module is refused")
	// ErrHung: Initialize, Create, Open or Close has given up waiting for a call of the module. What is open stays open until the call
	// returns or the process ends.
	ErrHung = errors.New("hsm/pkcs11: a call of the module does not return")
)

// Options names a token of a module.
type Options struct {
	Module string // path of the PKCS#11 module (.so), absolute
	// Label and Serial are those of CK_TOKEN_INFO (at most 32 and 16 bytes). At least one; exactly one token must match.
	Label, Serial string
	// Environment is set in the process before the module is initialised: vendor settings such as SOFTHSM2_CONF. It must be the
	// same for all tokens of a module that are open together.
	Environment map[string]string
	// Sessions is the number of worker sessions, that is of operations at a time; each has its own, because a session used by two
	// threads crashes real modules. 0: twice GOMAXPROCS; at most 1024.
	Sessions int
	Logger   *slog.Logger // nil: discard
	// Careful is for tools that only look: the PIN is not tried where a wrong one was given since the last login, because devices count.
	Careful bool
	// Thorough is for tools that try a device: RSA keys of every size are generated, which may take minutes.
	Thorough bool
	// Patience is how long Close waits for calls of the module that are under way; then it gives up (ErrHung). 0: 10 s.
	Patience time.Duration
	// Start is how long Initialize, Create and Open wait for the module; then they give up (ErrHung). 0: 5 minutes, an hour if Thorough.
	Start time.Duration
	// After is the clock of Start, and of what looks after the device: how often it is looked at, and how long a lost one is waited for.
	// nil: time.After.
	After func(time.Duration) <-chan time.Time
}
