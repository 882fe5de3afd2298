package doctor

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockNeeded is what the soft token keeps locked at the most: the guard's 10,000 working copies and the node's own keys at 32 bytes
// each, in chunks of 32 KiB.
const lockNeeded = 512 << 10

// lockBasic is the first chunk, with which it starts.
const lockBasic = 32 << 10

func (c *checkup) memory() []Result {
	return []Result{c.memoryLock(), c.swap(), c.coreDumps(), c.ptrace()}
}

// limit is a resource limit: of the running server if there is one, else of this process, which has what its shell has.
func (c *checkup) limit(title string, resource int) (limit uint64, whose string, err error) {
	if c.server != 0 {
		if limit, err := c.serverLimit(title); err == nil {
			return limit, fmt.Sprintf("the running server (pid %d)", c.server), nil
		}
	}
	l, err := c.rlimit(resource)
	return l.Cur, "a process of this shell", err
}

// serverLimit reads "Max open files  1024  4096  files" of /proc/PID/limits.
func (c *checkup) serverLimit(title string) (uint64, error) {
	all, err := c.read(fmt.Sprintf("/proc/%d/limits", c.server))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(all) {
		rest, found := strings.CutPrefix(line, title)
		if fields := strings.Fields(rest); found && len(fields) > 0 {
			if fields[0] == "unlimited" {
				return math.MaxUint64, nil
			}
			return strconv.ParseUint(fields[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%q is not among the limits of process %d", title, c.server)
}

func count(n uint64) string {
	if n == math.MaxUint64 {
		return "any number"
	}
	return strconv.FormatUint(n, 10)
}

// memoryLock tries what the token does. Where keys cannot be locked and there is swap they can reach a disk, and stay on it.
func (c *checkup) memoryLock() Result {
	const name = "memory lock"
	limit, whose, _ := c.limit("Max locked memory", unix.RLIMIT_MEMLOCK) // the trial below decides
	granted := fmt.Sprintf("%s may lock %s", whose, size(limit))
	if limit == math.MaxUint64 {
		granted = whose + " may lock any amount"
	}
	const advice = "grant it: LimitMEMLOCK=64M in the service's unit, or ulimit -l, or the capability CAP_IPC_LOCK"
	if c.server != 0 {
		return c.lockedByServer(name, granted, advice)
	}
	if err := tryLock(lockBasic); err != nil {
		text := fmt.Sprintf("the token's keys cannot be locked (%s: %v)", granted, err)
		if swaps, _ := c.swaps(); len(swaps) > 0 {
			return fail(name, text+", and this host swaps to "+strings.Join(swaps, ", "), advice+"; or swapoff -a")
		}
		return warn(name, text, advice)
	}
	if err := tryLock(lockNeeded); err != nil {
		return warn(name, fmt.Sprintf("a token full of keys locks %s and cannot (%s: %v)", size(lockNeeded), granted, err), advice)
	}
	return good(name, "%s were locked in a trial (%s)", size(lockNeeded), granted)
}

// lockedByServer reads VmLck, which is what the running server has locked.
func (c *checkup) lockedByServer(name, granted, advice string) Result {
	status, err := c.read(fmt.Sprintf("/proc/%d/status", c.server))
	if err != nil {
		return absent(name, "the running server (pid %d) does not tell: %v", c.server, err)
	}
	for line := range strings.Lines(status) {
		if rest, found := strings.CutPrefix(line, "VmLck:"); found {
			kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if kib == "0" {
				return warn(name, granted+", and has locked nothing", advice+"; then restart the server")
			}
			return good(name, "%s, and has locked %s KiB", granted, kib)
		}
	}
	return absent(name, "the kernel does not tell what the running server (pid %d) has locked", c.server)
}

// tryLock locks fresh memory and lets it go.
func tryLock(bytes int) error {
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return errors.Join(unix.Mlock(b), unix.Munmap(b))
}

// swaps are the devices that memory is written to; zram keeps it in memory.
func (c *checkup) swaps() ([]string, error) {
	all, err := c.read("/proc/swaps")
	var devices []string
	for i, line := range strings.Split(all, "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 && !strings.HasPrefix(fields[0], "/dev/zram") {
			devices = append(devices, fields[0])
		}
	}
	return devices, err
}

func (c *checkup) swap() Result {
	const name = "swap"
	devices, err := c.swaps()
	switch {
	case err != nil:
		return absent(name, "the kernel does not tell: %v", err)
	case len(devices) > 0:
		return warn(name, "this host swaps to "+strings.Join(devices, ", ")+": what is not locked, such as plaintexts under way, can be written there",
			"swapoff -a and take it out of /etc/fstab, or encrypt it with a key of each start")
	}
	return good(name, "none")
}

// coreDumps tries what the server does at its start: no dump, and a process that others of the same user cannot look into.
func (c *checkup) coreDumps() Result {
	const name = "core dumps"
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	if err == nil && before == 1 {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
	if err != nil {
		return warn(name, fmt.Sprintf("a process may not make itself undumpable: %v", err),
			"let the container's seccomp profile allow prctl(PR_SET_DUMPABLE)")
	}
	l, err := c.rlimit(unix.RLIMIT_CORE)
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	if l.Cur == 0 {
		return good(name, "off in this shell; the server switches them off for itself too")
	}
	return good(name, "on in this shell; the server switches them off for itself, and that was possible in a trial")
}

func (c *checkup) ptrace() Result {
	const name = "ptrace"
	scope, err := c.read("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return absent(name, "the kernel has no Yama; the server makes itself undumpable, which keeps all but root out")
	}
	if scope == "0" {
		return good(name, "any process may attach to others of its user (ptrace_scope 0); "+
			"the server makes itself undumpable, which keeps all but root out")
	}
	return good(name, "restricted (ptrace_scope %s)", scope)
}
