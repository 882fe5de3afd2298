package memlock_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/hsm/internal/memlock"
)

func TestSecret(t *testing.T) {
	clear1 := []byte("0000-pin")
	s, err := memlock.NewSecret(clear1)
	if err != nil {
		t.Logf("this system grants less than full protection: %v", err)
	}
	clear(clear1)
	var seen []byte
	if !s.Use(func(b []byte) { seen = bytes.Clone(b) }) || string(seen) != "0000-pin" {
		t.Errorf("kept %q", seen)
	}
	for _, verb := range []string{"%v", "%s", "%#v", "%+v"} {
		if text := fmt.Sprintf(verb, s); text != "[redacted]" {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	s.Wipe()
	s.Wipe()
	if s.Use(func([]byte) { t.Error("lent after Wipe") }) {
		t.Error("a wiped secret is there")
	}
}
