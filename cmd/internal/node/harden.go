package node

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// harden keeps the process's memory out of core dumps and away from other processes of the same user. It is no boundary against
// root, and a failure is said and survived: a container may forbid it.
func harden(log *slog.Logger) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		log.Warn("core dumps could not be switched off", "err", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("the process could not be made undumpable", "err", err)
	}
}
