package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

type bootTime struct{}

// BootTime returns the clock that also runs while the machine sleeps (CLOCK_BOOTTIME); nil where there is none.
func BootTime() Clock { return bootTime{} }

func (bootTime) Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 1<<63 - 1 // no lease is valid at the end of time
	}
	return time.Duration(t.Nano())
}
