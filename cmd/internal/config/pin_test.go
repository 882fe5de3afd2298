package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

// contents are what a source of the PIN may hold, and the PIN that is read; "" stands for a refusal.
var contents = map[string]struct{ text, pin string }{
	"a PIN":             {"1234", "1234"},
	"a line":            {"1234\n", "1234"},
	"a Windows line":    {"1234\r\n", "1234"},
	"spaces":            {" 12 34 \n", " 12 34 "},
	"the shortest":      {"abcd", "abcd"},
	"too short":         {"abc\n", ""},
	"nothing":           {"", ""},
	"an empty line":     {"\n", ""},
	"the longest":       {strings.Repeat("x", 1024) + "\r\n", strings.Repeat("x", 1024)},
	"too long":          {strings.Repeat("x", 1025), ""},
	"far too long":      {strings.Repeat("x", 1<<20), ""},
	"long and cut well": {strings.Repeat("x", 1024) + "\r\nand more", ""},
}

func checkPIN(t *testing.T, source config.PIN, text, want string) {
	t.Helper()
	got, err := source.Read()
	if string(got) != want || (err == nil) != (want != "") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err != nil && (!strings.Contains(err.Error(), "PIN") || (text != "" && len(text) < 10 && strings.Contains(err.Error(), strings.TrimSpace(text)) && strings.TrimSpace(text) != "")) {
		t.Errorf("the error is %v", err)
	}
}

func TestPINFromAFile(t *testing.T) {
	for name, c := range contents {
		t.Run(name, func(t *testing.T) { checkPIN(t, config.PIN{File: write(t, "pin", c.text, 0o600)}, c.text, c.pin) })
	}
}

func TestPINFromADescriptor(t *testing.T) {
	for name, c := range contents {
		t.Run(name, func(t *testing.T) {
			fd := piped(t, c.text)
			checkPIN(t, config.PIN{FD: &fd}, c.text, c.pin)
		})
	}
}

// piped is a descriptor of its own, as a child process inherits one: reading it closes it.
func piped(t *testing.T, text string) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _ = w.WriteString(text) // fails when the reader has had enough
		done <- w.Close()
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return fd
}

func TestPINFromAClosedDescriptor(t *testing.T) {
	for _, fd := range []int{-1, 1 << 20} {
		if pin, err := (config.PIN{FD: &fd}).Read(); err == nil || pin != nil {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
}

// TestPromptNeedsATerminal: a service must not wait for a person who is not there.
func TestPromptNeedsATerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	kept := os.Stdin
	os.Stdin = null
	defer func() { os.Stdin = kept }()
	if _, err := (config.PIN{Prompt: true}).Read(); err == nil || !strings.Contains(err.Error(), "needs a terminal; use file or fd") {
		t.Errorf("%v", err)
	}
}

func TestPrivateFiles(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o700: true, 0o640: false, 0o604: false, 0o620: false, 0o601: false, 0o644: false, 0o666: false} {
		path := write(t, "secret", "1234", mode)
		b, err := config.ReadPrivate(path, 10)
		if (err == nil) != ok || (ok && !bytes.Equal(b, []byte("1234"))) {
			t.Errorf("%04o: %q, %v", mode, b, err)
		}
		if err != nil && !strings.Contains(err.Error(), "run: chmod 600 "+path) {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func TestAPrivateFileIsAFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir(), os.DevNull} {
		if _, err := config.ReadPrivate(path, 10); err == nil || !strings.Contains(err.Error(), "is no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := config.ReadPrivate(filepath.Join(t.TempDir(), "none"), 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestAPrivateFileHasALimit(t *testing.T) {
	for size, ok := range map[int]bool{10: true, 12: true, 13: false, 1 << 16: false} { // two bytes of a line's end are for free
		b, err := config.ReadPrivate(write(t, "secret", strings.Repeat("x", size), 0o600), 10)
		if (err == nil) != ok || (ok && len(b) != size) {
			t.Errorf("%d bytes: %d, %v", size, len(b), err)
		}
	}
}
