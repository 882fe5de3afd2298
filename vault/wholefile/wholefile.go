// Package wholefile writes small files that are there as a whole or not at all, durably: identities, private keys, certificates, memberships.
//
// The content is written to a draft beside the file, made durable, and moved to its place. A draft has one name per file, so that
// what a crash leaves behind, which may be a secret in clear, is found again and removed; a lock on it keeps two writers apart. It
// is not for logs (vault/segment) nor for files too large to be held in memory.
package wholefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// privateMode is what a draft has while it is written, and a replaced file.
const privateMode = 0o600

// draftOf is the name under which a file's next content is written before it takes the file's place. It is always the same, so that
// what a crash leaves behind, which may be a secret in clear, is found again.
func draftOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

var errBusy = errors.New("another process is writing it; try again")

// openDraft opens path's draft, empty, for this process alone: whoever holds its lock is writing. It gets mode 0600.
func openDraft(path string) (*os.File, error) {
	f, err := os.OpenFile(draftOf(path), os.O_RDWR|os.O_CREATE, privateMode)
	if err != nil {
		return nil, err
	}
	if err := claimDraft(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func claimDraft(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w (%w)", errBusy, err)
	}
	// Between opening and locking another process may have moved it to its place: then it is not the draft any more.
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(f.Name()); err != nil || !os.SameFile(mine, named) {
		return errBusy
	}
	return errors.Join(f.Chmod(privateMode), f.Truncate(0))
}

// Create writes a file that did not exist. The error matches fs.ErrExist when there was one, which is left as it was.
func Create(path string, content []byte, mode os.FileMode) error {
	if err := place(path, content, mode, renameNew); err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	return nil
}

// Replace writes a file that only its owner may read, in the place of one that may have been there, or leaves what was there.
func Replace(path string, content []byte) error {
	if err := place(path, content, privateMode, os.Rename); err != nil {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	return nil
}

// renameNew is os.Rename that takes nobody's place. Where the file system cannot be told so (NFS), a link does it.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	return err
}

// place writes the content beside path, makes it durable, and moves it to its place.
func place(path string, content []byte, mode os.FileMode, move func(from, to string) error) error {
	f, err := openDraft(path)
	if err != nil {
		return err
	}
	defer f.Close() // last: the lock keeps others from emptying the draft before it is in its place
	_, err = f.Write(content)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err == nil {
		err = move(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path)) // the rename is durable only with its directory
}

// DropDraft removes what a crash left behind beside path. What it cannot remove is left: it is looked at again each time.
func DropDraft(path string) {
	f, err := os.OpenFile(draftOf(path), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if claimDraft(f) == nil {
		_ = os.Remove(f.Name())
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
