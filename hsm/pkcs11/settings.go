//go:build cgo && unix

package pkcs11

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"github.com/conclave-vault/conclave/hsm"
)

const (
	maxSessions = 1024
	maxLabel    = 32 // CK_TOKEN_INFO
	maxSerial   = 16

	// startPatience is for cards that draw an RSA key at their first test; thoroughPatience for those that draw one of every size.
	startPatience    = 5 * time.Minute
	thoroughPatience = time.Hour
)

func (o Options) validate() error {
	switch {
	case !filepath.IsAbs(o.Module):
		return fmt.Errorf("%w: PKCS#11 module %q, give the absolute path of the .so", hsm.ErrInput, o.Module)
	case o.Label == "" && o.Serial == "":
		return fmt.Errorf("%w: neither label nor serial of a token", hsm.ErrInput)
	case len(o.Label) > maxLabel || len(o.Serial) > maxSerial:
		return fmt.Errorf("%w: a token's label has at most %d bytes and its serial %d", hsm.ErrInput, maxLabel, maxSerial)
	case o.Sessions < 0 || o.Sessions > maxSessions:
		return fmt.Errorf("%w: %d sessions, from 1 to %d are (0: chosen by the program)", hsm.ErrInput, o.Sessions, maxSessions)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Sessions == 0 {
		o.Sessions = min(2*runtime.GOMAXPROCS(0), maxSessions)
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Start <= 0 {
		o.Start = startPatience
		if o.Thorough {
			o.Start = thoroughPatience
		}
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// name is how errors call the token.
func (o Options) name() string {
	switch {
	case o.Serial == "":
		return fmt.Sprintf("label %q", o.Label)
	case o.Label == "":
		return fmt.Sprintf("serial %q", o.Serial)
	}
	return fmt.Sprintf("label %q and serial %q", o.Label, o.Serial)
}
