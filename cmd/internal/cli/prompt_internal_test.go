package cli

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/transport/kind"
)

// The reader of hidden answers is tested from inside, because a test has no terminal to type on.
func TestHiddenAnswers(t *testing.T) {
	for typed, want := range map[string]string{
		"secret\r":          "secret",
		"secret\nmore":      "secret",
		"secrex\x7ft\r":     "secret",
		"\x7f\x08s\r":       "s",
		"wrong\x15secret\r": "secret",
		"se\x1bcret\r":      "secret",
		"Schlüssel\r":       "Schlüssel",
		"\r":                "",
	} {
		if got, err := readHidden(strings.NewReader(typed)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
	for _, typed := range []string{"secret\x03", "\x04"} {
		if got, err := readHidden(strings.NewReader(typed)); !errors.Is(err, errInterrupted) || got != nil {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
	if _, err := readHidden(strings.NewReader("secret")); !errors.Is(err, io.EOF) {
		t.Errorf("a terminal that is gone: %v", err)
	}
	if _, err := readHidden(strings.NewReader(strings.Repeat("x", maxAnswer+1))); kind.Of(err) != kind.InvalidArgument {
		t.Errorf("too long: %v", err)
	}
}
