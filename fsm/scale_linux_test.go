package fsm_test

import (
	"syscall"
	"time"
)

// threadTime is the processor time of the calling thread: on a machine with other work the wall clock tells of that work too. The
// garbage collector's own threads are not in it; what it makes this thread do is.
func threadTime() time.Duration {
	const thisThread = 1 // RUSAGE_THREAD of getrusage(2)
	return usage(thisThread)
}

// processTime is that of all threads, the garbage collector's included.
func processTime() time.Duration { return usage(syscall.RUSAGE_SELF) }

func usage(who int) time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(who, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
