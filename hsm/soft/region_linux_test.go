package soft_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm/soft"
)

// TestMemoryProtectionIsTrue: what Info says of locked memory is what the kernel says.
func TestMemoryProtectionIsTrue(t *testing.T) {
	token, _ := create(t, cheap())
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmLck:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatal("the kernel does not say how much memory is locked")
	}
	locked, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	library := token.Info().Library
	says, fault := strings.HasSuffix(library, "; memory locked"), strings.Contains(library, "memory not locked: ")
	if says == fault || says != (locked >= 32) {
		t.Errorf("Info says %q, the kernel %d kB", library, locked)
	}
	t.Log(library)
}

// TestDefaultCost: the cost that production uses makes and opens a token.
func TestDefaultCost(t *testing.T) {
	token, path := create(t, soft.Options{})
	serial := token.Info().Serial
	closed(t, token)
	if got := reopen(t, path).Info().Serial; got != serial {
		t.Errorf("serial %s, want %s", got, serial)
	}
}
