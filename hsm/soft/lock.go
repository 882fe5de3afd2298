package soft

import (
	"errors"
	"fmt"
	"os"
)

// ErrInUse: another Token, in this process or another, has the keystore open. Two writers would lose each other's masters.
var ErrInUse = errors.New("hsm/soft: the token is open elsewhere")

// acquireLock locks the file beside the keystore. Not the keystore itself: that is replaced by rename, and a lock would stay on
// the old one. The file is never removed, because removing it would let two processes lock two files of one name.
func acquireLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the token: %w", err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, path), f.Close())
	}
	return f, nil
}
