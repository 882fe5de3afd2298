package soft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// replaceFile writes a new file beside path and renames it over it. After an error the old file is whole. The name of the
// temporary file is fixed, because the token's lock allows one writer; what a crash left there is removed first.
func replaceFile(path string, b []byte) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("writing the keystore: %w", err)
	}
	err := writeSynced(temp, b)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the keystore: %w", err), removeIfThere(temp))
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing the keystore: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDirectory makes a rename durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
