//go:build !cgo || !unix

package pkcs11

import (
	"errors"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// Available says whether this binary can load PKCS#11 modules.
const Available = false

var errNoCgo = errors.New("hsm/pkcs11: this binary was built without cgo: it has the soft token only; " +
	"build with CGO_ENABLED=1 and a C compiler to use a PKCS#11 module")

// Token cannot exist in this binary.
type Token struct {
	hsm.Token
	keyuse.Port
}

// Initialize refuses: see Available.
func Initialize(Options, []byte, []byte) error { return errNoCgo }

// Create refuses: see Available.
func Create(Options, []byte) (*Token, error) { return nil, errNoCgo }

// Open refuses: see Available.
func Open(Options, []byte) (*Token, error) { return nil, errNoCgo }
