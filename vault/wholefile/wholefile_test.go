package wholefile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/vault/wholefile"
)

// TestAFileAppearsWhole: who dies while it is written, or looks meanwhile, leaves or finds the whole file or none.
func TestAFileAppearsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<21)
	written := make(chan error, 1)
	go func() { written <- wholefile.Create(path, content, 0o644) }()
	for {
		if info, err := os.Stat(path); err == nil && info.Size() != int64(len(content)) {
			t.Fatalf("it is there with %d of %d bytes", info.Size(), len(content))
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 || info.Size() != int64(len(content)) {
				t.Errorf("%v, %v", info, err)
			}
			if err := wholefile.Create(path, []byte("another"), 0o600); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second time: %v", err)
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			return
		default:
		}
	}
}

// TestWhatACrashLeft: the next writer of the same file takes over its draft, however long it was, and nothing of it shows.
func TestWhatACrashLeft(t *testing.T) {
	for name, write := range map[string]func(path string) error{
		"create":  func(path string) error { return wholefile.Create(path, []byte("new"), 0o640) },
		"replace": func(path string) error { return wholefile.Replace(path, []byte("new")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "key")
			if err := os.WriteFile(filepath.Join(dir, ".key.new"), []byte(strings.Repeat("half a secret", 100)), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := write(path); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
				t.Errorf("%q, %v", got, err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestOneWriter: a draft that another process is writing is neither taken over nor removed, and the file stays as it was.
func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	path, draft := filepath.Join(dir, "key"), filepath.Join(dir, ".key.new")
	if err := wholefile.Replace(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(draft, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Replace(path, []byte("new")); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("replacing: %v", err)
	}
	wholefile.DropDraft(path)
	if _, err := os.Stat(draft); err != nil {
		t.Errorf("the other's draft: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNoPlace: a folder that is not there is an error, and makes none.
func TestNoPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "key")
	for name, err := range map[string]error{"create": wholefile.Create(path, nil, 0o600), "replace": wholefile.Replace(path, nil)} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
