package doctor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const sources = "sys/devices/system/clocksource/clocksource0/"

func TestClockSource(t *testing.T) {
	c := healthy(t)
	for source, want := range map[string]Status{"tsc": OK, "kvm-clock": OK, "arch_sys_counter": OK, "jiffies": Warn, "refined-jiffies": Warn, "acpi_pm": Warn, "hpet": Warn, "new": Warn} {
		c.root = files(t, map[string]string{sources + "current_clocksource": source + "\n", sources + "available_clocksource": "tsc hpet \n"})
		is(t, c.clockSource(), want, source, "tsc, hpet")
	}
	c.root = t.TempDir()
	is(t, c.clockSource(), NotApplicable)
}

func TestHypervisor(t *testing.T) {
	c := healthy(t)
	for flags, want := range map[string]Status{"fpu hypervisor lm": Warn, "fpu lm": OK, "nohypervisor": OK} {
		c.root = files(t, map[string]string{"proc/cpuinfo": "processor\t: 0\nflags\t\t: " + flags + "\nbugs\t\t: hypervisor\n"})
		is(t, c.hypervisor(), want)
	}
}

func TestClocks(t *testing.T) {
	c := healthy(t)
	is(t, c.resolution(), OK)
	c.getres = func(int32) (time.Duration, error) { return 100 * time.Millisecond, nil }
	is(t, c.resolution(), Warn, "100ms")

	at := map[int32]time.Duration{unix.CLOCK_MONOTONIC: time.Hour, unix.CLOCK_BOOTTIME: time.Hour + time.Millisecond}
	c.gettime = func(clock int32) (time.Duration, error) { return at[clock], nil }
	is(t, c.suspended(), OK)
	at[unix.CLOCK_BOOTTIME] = 3 * time.Hour
	is(t, c.suspended(), Warn, "2h0m0s")

	c.built = c.now().Add(-time.Hour)
	is(t, c.wallClock(), OK)
	c.now = func() time.Time { return time.Unix(0, 0) }
	is(t, c.wallClock(), Fail, "1970-01-01T00:00:00Z")
}

func TestSynchronised(t *testing.T) {
	c := healthy(t)
	for name, k := range map[string]struct {
		timex unix.Timex
		state int
		err   error
		want  Status
	}{
		"synchronised": {unix.Timex{Maxerror: 2500}, 0, nil, OK}, "unsynchronised": {unix.Timex{Status: staUnsync}, timeError, nil, Warn},
		"the flag alone": {unix.Timex{Status: staUnsync}, 0, nil, Warn}, "far off": {unix.Timex{Maxerror: 2_000_000}, 0, nil, Warn},
		"forbidden": {unix.Timex{}, 0, unix.EPERM, NotApplicable},
	} {
		c.adjtimex = func(into *unix.Timex) (int, error) {
			if into.Modes != 0 {
				t.Errorf("%s: the clock was set", name)
			}
			*into = k.timex
			return k.state, k.err
		}
		is(t, c.synchronised(), k.want)
	}
}

func TestDataDirectory(t *testing.T) {
	c := healthy(t)
	is(t, c.dataDir(), OK, "0700")
	must(t, os.Chmod(c.cfg.DataDir, 0o750))
	is(t, c.dataDir(), Fail, "0750", "chmod 700")
	must(t, os.Remove(c.cfg.DataDir))
	is(t, c.dataDir(), OK, "init or join makes it")
	must(t, os.WriteFile(c.cfg.DataDir, nil, 0o600))
	is(t, c.dataDir(), Fail, "no directory")

	locked := t.TempDir()
	must(t, os.Chmod(locked, 0o500))
	for _, dir := range []string{locked, filepath.Join(locked, "data")} {
		c.cfg.DataDir = dir
		without(t, unix.CAP_DAC_OVERRIDE, func() { is(t, c.dataDir(), Fail, dir) })
	}
	if os.Geteuid() == 0 {
		c.cfg.DataDir = t.TempDir()
		must(t, os.Chmod(c.cfg.DataDir, 0o700))
		must(t, os.Chown(c.cfg.DataDir, 65534, 65534))
		is(t, c.dataDir(), Warn, "65534")
	}
}

func TestDiskSpace(t *testing.T) {
	c := healthy(t)
	real := c.statfs
	var s unix.Statfs_t
	must(t, real(c.cfg.DataDir, &s))
	if r := fileSystem("d", s); r.Status == Fail {
		t.Errorf("the file system of this test is refused: %+v", r)
	}
	for name, k := range map[string]struct {
		alter func(*unix.Statfs_t)
		check string
		want  Status
	}{
		"enough":         {func(s *unix.Statfs_t) {}, "disk space", OK},
		"full":           {func(s *unix.Statfs_t) { s.Bavail = (minFree - 1) / 4096 }, "disk space", Fail},
		"below 1 GiB":    {func(s *unix.Statfs_t) { s.Bavail = minFree / 4096 }, "disk space", Warn},
		"below a tenth":  {func(s *unix.Statfs_t) { s.Blocks = 1 << 30 }, "disk space", Warn},
		"no inodes":      {func(s *unix.Statfs_t) { s.Ffree = 1 }, "inodes", Fail},
		"few inodes":     {func(s *unix.Statfs_t) { s.Ffree = minInodes }, "inodes", Warn},
		"inodes at need": {func(s *unix.Statfs_t) { s.Files, s.Ffree = 0, 0 }, "inodes", NotApplicable},
		"read-only":      {func(s *unix.Statfs_t) { s.Flags = mountReadOnly }, "file system", Fail},
		"in memory":      {func(s *unix.Statfs_t) { s.Type = unix.TMPFS_MAGIC }, "file system", Warn},
		"far away":       {func(s *unix.Statfs_t) { s.Type = unix.NFS_SUPER_MAGIC }, "file system", Warn},
	} {
		c.statfs = func(_ string, into *unix.Statfs_t) error {
			*into = unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Blocks: 1 << 20, Bavail: 1 << 19, Files: 1 << 20, Ffree: 1 << 19}
			k.alter(into)
			return nil
		}
		for _, r := range c.disk() {
			if r.Name == k.check && r.Status != k.want {
				t.Errorf("%s: %+v, want %s", name, r, k.want)
			}
		}
	}
	c.statfs = func(string, *unix.Statfs_t) error { return unix.EIO }
	is(t, c.disk()[0], Fail)
}

func TestFsyncLeavesNothing(t *testing.T) {
	c := healthy(t)
	if r := c.syncing(c.cfg.DataDir); r.Status != OK && r.Status != Warn {
		t.Errorf("%+v", r) // a busy disk may be slow
	}
	if left, err := os.ReadDir(c.cfg.DataDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	is(t, c.syncing(filepath.Join(c.cfg.DataDir, "gone")), Fail)
	without(t, unix.CAP_DAC_OVERRIDE, func() {
		must(t, os.Chmod(c.cfg.DataDir, 0o500))
		is(t, c.syncing(c.cfg.DataDir), NotApplicable, "run this as")
	})
	c.latency = func(string) (time.Duration, error) { return slowSync + time.Millisecond, nil }
	is(t, c.syncing(c.cfg.DataDir), Warn, "11ms")
	c.latency = func(string) (time.Duration, error) { return 0, unix.ENOSPC }
	is(t, c.syncing(c.cfg.DataDir), Fail, "no space left")
}

// TestMemoryLock takes the right to lock memory away for real.
func TestMemoryLock(t *testing.T) {
	c := healthy(t)
	c.root = files(t, map[string]string{"proc/swaps": "Filename Type Size Used Priority\n"})
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before))
	grant := func(bytes uint64) {
		must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: bytes, Max: before.Max}))
	}
	defer grant(before.Cur)
	if grant(before.Max); before.Max >= 2*lockNeeded { // else this host forbids it, which is the next case
		is(t, c.memoryLock(), OK, "512 KiB were locked")
	}
	grant(64 << 10)
	without(t, unix.CAP_IPC_LOCK, func() { is(t, c.memoryLock(), Warn, "a token full of keys", "LimitMEMLOCK") })
	grant(0)
	without(t, unix.CAP_IPC_LOCK, func() {
		is(t, c.memoryLock(), Warn, "cannot be locked")
		c.root = files(t, map[string]string{"proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"})
		is(t, c.memoryLock(), Fail, "/dev/sda2")
	})
	is(t, c.swap(), Warn, "/dev/sda2")
	c.root = files(t, map[string]string{"proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 -2\n"})
	is(t, c.swap(), OK)
}

// TestLimitsOfTheServer reads a running process: this one.
func TestLimitsOfTheServer(t *testing.T) {
	c := healthy(t)
	is(t, c.openFiles(), statusOf(t, c), "this shell")
	c.server = os.Getpid()
	b, err := unix.Mmap(-1, 0, 32<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	must(t, err)
	defer func() { must(t, unix.Munmap(b)) }()
	must(t, unix.Mlock(b))
	is(t, c.memoryLock(), OK, fmt.Sprint(os.Getpid()), "has locked 32 KiB")
	must(t, unix.Munlock(b))
	is(t, c.memoryLock(), Warn, "has locked nothing")

	limits := "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            %s                 4096                 files\n"
	for soft, want := range map[string]Status{"1024": Warn, "4096": OK, "unlimited": OK} {
		c.root = files(t, map[string]string{fmt.Sprintf("proc/%d/limits", c.server): fmt.Sprintf(limits, soft)})
		is(t, c.openFiles(), want, "the running server")
	}
	c.server = 0
	c.rlimit = func(int) (unix.Rlimit, error) { return unix.Rlimit{Cur: 1024}, nil }
	is(t, c.openFiles(), Warn, "1024", "LimitNOFILE")
	c.rlimit = func(int) (unix.Rlimit, error) { return unix.Rlimit{Cur: math.MaxUint64}, nil }
	is(t, c.openFiles(), OK, "any number")
	c.rlimit = func(int) (unix.Rlimit, error) { return unix.Rlimit{}, errors.New("no") }
	is(t, c.openFiles(), NotApplicable)
}

func statusOf(t *testing.T, c *checkup) Status {
	t.Helper()
	l, err := c.rlimit(unix.RLIMIT_NOFILE)
	must(t, err)
	if l.Cur < 4096 {
		return Warn
	}
	return OK
}

func TestCoreDumpsAndPtrace(t *testing.T) {
	c := healthy(t)
	is(t, c.coreDumps(), OK)
	if on, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || on != 1 {
		t.Errorf("the trial left the process with %d, %v", on, err)
	}
	for scope, want := range map[string]string{"0\n": "any process", "1\n": "restricted"} {
		c.root = files(t, map[string]string{"proc/sys/kernel/yama/ptrace_scope": scope})
		is(t, c.ptrace(), OK, want)
	}
	c.root = t.TempDir()
	is(t, c.ptrace(), NotApplicable)
	is(t, c.swap(), NotApplicable)
	is(t, c.hypervisor(), NotApplicable)
}

func TestPIN(t *testing.T) {
	c := healthy(t)
	path := c.cfg.HSM.PIN.File
	is(t, c.pin(), OK)
	for text, words := range map[string]string{"hors battery \n": "blank", "hors\nbattery\n": "several lines"} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		is(t, c.pin(), Warn, words)
	}
	for _, text := range []string{"", "\n", "abc\n", strings.Repeat("x", 2000)} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		is(t, c.pin(), Fail, "bytes")
	}
	const secret = "hunter2hunter2"
	must(t, os.WriteFile(path, []byte(secret), 0o600))
	must(t, os.Chmod(path, 0o644))
	is(t, c.pin(), Fail, "0644", "chmod 600")
	must(t, os.Chmod(path, 0o400))
	is(t, c.pin(), OK)
	must(t, os.Chmod(filepath.Dir(path), 0o777))
	is(t, c.pin(), Fail, "replace")
	must(t, os.Chmod(filepath.Dir(path), 0o700))
	if strings.Contains(fmt.Sprint(c.pin()), secret) {
		t.Error("the PIN is shown")
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(path, 65534, 65534))
		is(t, c.pin(), Warn, "65534")
		must(t, os.Chown(path, 0, 0))
	}
	c.cfg.DataDir = filepath.Dir(path)
	is(t, c.pin(), Warn, "lies in the data directory")
	must(t, os.Remove(path))
	is(t, c.pin(), Fail, "no such file", "umask 077")
	fd := 3
	c.cfg.HSM.PIN.File, c.cfg.HSM.PIN.FD = "", &fd
	is(t, c.pin(), NotApplicable, "descriptor 3")
	c.cfg.HSM.PIN.FD, c.cfg.HSM.PIN.Prompt = nil, true
	is(t, c.pin(), NotApplicable, "unattended")
}
