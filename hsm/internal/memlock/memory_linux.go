package memlock

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Memory maps memory outside the Go heap, locked against swapping and left out of core dumps. With an error the memory
// is usable but not, or not fully, protected: a node that may not lock memory still has to start, and says so.
func Memory(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, size), fmt.Errorf("mmap: %w", err)
	}
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		return b, fmt.Errorf("madvise: %w", err)
	}
	if err := unix.Mlock(b); err != nil {
		return b, fmt.Errorf("mlock: %w", err)
	}
	return b, nil
}

// Release gives a chunk back. Munmap refuses what Mmap did not make (the fallback on the heap), which is then left to the
// garbage collector.
func Release(b []byte) { _ = unix.Munmap(b) }
