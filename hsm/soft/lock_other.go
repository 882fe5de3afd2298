//go:build !unix

package soft

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock two processes could overwrite each other's keystore.
func lockFile(*os.File) error {
	return errors.New("hsm/soft: file locks are not available on this system")
}
