//go:build !linux

package memlock

import "errors"

// Memory has no protection to offer on this system.
func Memory(size int) ([]byte, error) {
	return make([]byte, size), errors.New("not available on this system")
}

func Release([]byte) {}
