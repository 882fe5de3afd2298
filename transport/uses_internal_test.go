package transport

import (
	"errors"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/vault"
)

// TestRequestNames: what stands in the usage log is one line of printable characters.
func TestRequestNames(t *testing.T) {
	long := strings.Repeat("x", 128)
	for _, good := range [][]string{nil, {""}, {"r1"}, {long}, {"~!/:"}} {
		got, err := requestName(good)
		if err != nil || got != strings.Join(good, "") {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range [][]string{{"a", "b"}, {long + "x"}, {"a b"}, {"a\n"}, {"ü"}, {"\x00"}} {
		if got, err := requestName(bad); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%q is taken for %q, %v", bad, got, err)
		}
	}
}
