package doctor

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of clocks. A serving lease allows for clocks that differ in rate by 10 % and never for one that stands still.
const (
	// maxResolution is a tick of an old kernel; leases are counted in hundreds of milliseconds.
	maxResolution = 10 * time.Millisecond
	// maxSuspended is what the two clocks may differ by when the machine never slept: they are read one after the other.
	maxSuspended = time.Second
	// maxClockError is what the kernel may believe its wall clock to be wrong by: the leader stamps only within 5 s of the others.
	maxClockError = time.Second

	// timeError and staUnsync are adjtimex(2)'s words for a clock that nobody keeps right.
	timeError = 5
	staUnsync = 0x40
)

// steady are clock sources that are read in the processor: fast, of one rate, and the same on every core.
var steady = []string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen", "arch_sys_counter", "timebase", "tod"}

func (c *checkup) clocks() []Result {
	return []Result{c.clockSource(), c.hypervisor(), c.resolution(), c.suspended(), c.synchronised(), c.wallClock()}
}

func (c *checkup) clockSource() Result {
	const name, dir = "clock source", "/sys/devices/system/clocksource/clocksource0/"
	current, err := c.read(dir + "current_clocksource")
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	available, _ := c.read(dir + "available_clocksource")
	found := fmt.Sprintf("%s (available: %s)", current, strings.Join(strings.Fields(available), ", "))
	if slices.Contains(steady, current) {
		return good(name, "%s", found)
	}
	return warn(name, found+": slow to read, or not steady; serving leases are measured with it",
		"use tsc (or the hypervisor's own source): echo tsc > "+dir+"current_clocksource; if the kernel gave tsc up, "+
			"dmesg | grep -i clocksource says why")
}

func (c *checkup) hypervisor() Result {
	const name = "virtual machine"
	info, err := c.read("/proc/cpuinfo")
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	for line := range strings.Lines(info) {
		field, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(field) == "flags" && slices.Contains(strings.Fields(flags), "hypervisor") {
			return warn(name, "a hypervisor runs this host: one that freezes it together with its clock lets a lease outlive its time",
				"switch off live snapshots, pausing and memory overcommitment for this guest; revoking cannot reach a frozen clock")
		}
	}
	return good(name, "no hypervisor shows itself")
}

func (c *checkup) resolution() Result {
	const name = "clock resolution"
	res, err := c.getres(unix.CLOCK_MONOTONIC)
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	if res > maxResolution {
		return warn(name, fmt.Sprintf("the monotonic clock steps by %v", res),
			"use a kernel with high resolution timers (CONFIG_HIGH_RES_TIMERS) and the clock source tsc")
	}
	return good(name, "%v", res)
}

// suspended compares the clock that stops while the machine sleeps, which leases are counted with, to the one that does not.
func (c *checkup) suspended() Result {
	const name = "suspend"
	running, err := c.gettime(unix.CLOCK_MONOTONIC)
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	passed, err := c.gettime(unix.CLOCK_BOOTTIME)
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	if asleep := passed - running; asleep > maxSuspended {
		return warn(name, fmt.Sprintf("this host slept for %v since it was started, and clocks of leases sleep with it", asleep.Round(time.Second)),
			"a node's host must not sleep: systemctl mask sleep.target suspend.target hibernate.target")
	}
	return good(name, "this host never slept since it was started")
}

// synchronised asks the kernel what an NTP or PTP program told it. Nothing is set: Modes is 0.
func (c *checkup) synchronised() Result {
	const name = "time synchronisation"
	const advice = "run an NTP client: apt install chrony (or systemd-timesyncd), then: chronyc tracking"
	var t unix.Timex
	state, err := c.adjtimex(&t)
	if err != nil {
		return absent(name, "the kernel does not tell: %v", err)
	}
	worst := time.Duration(t.Maxerror) * time.Microsecond
	switch {
	case state == timeError || t.Status&staUnsync != 0:
		return warn(name, "the kernel's clock is not synchronised: a leader whose clock is 5 s away from the others' makes no dated change",
			advice)
	case worst > maxClockError:
		return warn(name, fmt.Sprintf("the kernel's clock may be wrong by %v", worst), advice)
	}
	return good(name, "synchronised, wrong by %v at most", worst)
}

func (c *checkup) wallClock() Result {
	const name = "wall clock"
	now := c.now()
	if now.Before(c.built) {
		return fail(name, fmt.Sprintf("it says %s, before this program was made (%s)", stamp(now), stamp(c.built)),
			"set the clock, and run an NTP client: apt install chrony")
	}
	return good(name, "%s", stamp(now))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// buildTime is when the source of this program was committed, as the Go tool stamped it into the program.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value) // zero if it is none: not known
			return t
		}
	}
	return time.Time{}
}
