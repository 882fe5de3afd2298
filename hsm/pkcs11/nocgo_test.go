//go:build !cgo || !unix

package pkcs11_test

import (
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

var (
	_ hsm.Token   = (*pkcs11.Token)(nil)
	_ keyuse.Port = (*pkcs11.Token)(nil)
)

// TestWithoutCgo: everything refuses and says what to do.
func TestWithoutCgo(t *testing.T) {
	_, created := pkcs11.Create(pkcs11.Options{}, nil)
	_, opened := pkcs11.Open(pkcs11.Options{}, nil)
	for name, err := range map[string]error{
		"Initialize": pkcs11.Initialize(pkcs11.Options{}, nil, nil), "Create": created, "Open": opened,
	} {
		if pkcs11.Available || err == nil || !strings.Contains(err.Error(), "built without cgo") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
