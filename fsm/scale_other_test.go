//go:build !linux

package fsm_test

import "time"

// threadTime is not told here; the figures that need it show 0.
func threadTime() time.Duration { return 0 }

// processTime: likewise.
func processTime() time.Duration { return 0 }
