package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const clockSourceFile = "sys/devices/system/clocksource/clocksource0/current_clocksource"

// stopsWithGuest are the kernel's clock sources that a hypervisor provides: when it stops a guest and goes on with it, they may go on
// from where they were, and a lease then outlives what others wait for.
var stopsWithGuest = []string{"kvm-clock", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr", "xen", "vmware"}

// warnOfClockSource says at start what no comparison of clocks on this machine can show later. root is "/" but in tests.
func warnOfClockSource(root string, log *slog.Logger) {
	b, err := os.ReadFile(filepath.Join(root, clockSourceFile))
	if err != nil {
		return // not Linux, or hidden: nothing is known
	}
	if source := strings.TrimSpace(string(b)); slices.Contains(stopsWithGuest, source) {
		log.Warn("the clock source may stand still while the hypervisor stops this machine, and leases rest on it; "+
			"use tsc, or keys of a class with strict leases", "clock_source", source)
	}
}
