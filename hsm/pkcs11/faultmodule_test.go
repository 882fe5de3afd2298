//go:build cgo && unix

package pkcs11_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// Calls by their place in CK_FUNCTION_LIST.
const (
	cFinalize        = 1
	cGetTokenInfo    = 6
	cOpenSession     = 12
	cCloseSession    = 13
	cLogin           = 18
	cCreateObject    = 20
	cEncryptInit     = 29
	cDecrypt         = 34
	cSignInit        = 42
	cSign            = 43
	cGenerateKey     = 58
	cGenerateKeyPair = 59
	cWrapKey         = 60
	cUnwrapKey       = 61
	cDeriveKey       = 62
	cGenerateRandom  = 64
)

// control is the memory that testdata/faults.c obeys.
type control struct {
	limit, announced, shared, underCalls, heap, derives uint64
	rule                                                [68]struct{ answer, skip, times, calls, slow, hold uint64 }
}

// faults is a device that fails to order: SoftHSM behind a module that passes its calls.
type faults struct {
	*control
	module string
}

var faultModule struct {
	module string
	memory []byte
}

// buildFaults compiles the module. It needs the C compiler that this package needs anyway.
func buildFaults(dir string) error {
	real := ""
	for _, path := range softHSMPaths {
		if _, err := os.Stat(path); err == nil {
			real = path
			break
		}
	}
	if real == "" {
		return fmt.Errorf("none of %v is there: install the package softhsm2", softHSMPaths)
	}
	controls, module := filepath.Join(dir, "control"), filepath.Join(dir, "faults.so")
	file, err := os.OpenFile(controls, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	size := int(unsafe.Sizeof(control{}))
	if err := file.Truncate(int64(size)); err != nil {
		return err
	}
	if faultModule.memory, err = unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", fmt.Sprintf("-DREAL=%q", real), fmt.Sprintf("-DCONTROL=%q", controls),
		"-o", module, filepath.Join("testdata", "faults.c"), "-ldl", "-lpthread").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the module that fails to order: %w\n%s", err, out)
	}
	faultModule.module = module
	return nil
}

// withFaults is a device that does as SoftHSM until it is told otherwise. In the end it must have seen no broken rule.
func withFaults(t testing.TB) *faults {
	t.Helper()
	sweep(t)
	f := &faults{control: (*control)(unsafe.Pointer(&faultModule.memory[0])), module: faultModule.module}
	*f.control = control{}
	t.Cleanup(func() {
		for i := range f.rule {
			atomic.StoreUint64(&f.rule[i].hold, 0)
		}
		if n := atomic.LoadUint64(&f.shared); n > 0 {
			t.Errorf("a session was used by two calls at once, %d times", n)
		}
		if n := atomic.LoadUint64(&f.underCalls); n > 0 {
			t.Errorf("C_Finalize ran under a call, %d times", n)
		}
	})
	return f
}

// fail makes the calls that come after skip others answer with a code, some times.
func (f *faults) fail(call int, code uint64, skip, times uint64) {
	r := &f.rule[call]
	atomic.StoreUint64(&r.answer, 0)
	atomic.StoreUint64(&r.skip, skip)
	atomic.StoreUint64(&r.times, times)
	atomic.StoreUint64(&r.answer, code)
}

// hang makes a call hang that run makes, and gives what lets it return: with what run gave.
func (f *faults) hang(t testing.TB, call int, run func() error) (end func() error) {
	t.Helper()
	done := make(chan error, 1)
	release := f.hold(t, call, func() { go func() { done <- run() }() })
	return func() error { release(); return <-done }
}

// hold is hang for a call that something else makes after it was triggered.
func (f *faults) hold(t testing.TB, call int, trigger func()) (end func()) {
	t.Helper()
	before := f.calls(call)
	atomic.StoreUint64(&f.rule[call].hold, 1)
	trigger()
	eventually(t, "the call that hangs has begun", func() bool { return f.calls(call) > before })
	return func() { atomic.StoreUint64(&f.rule[call].hold, 0) }
}

// always is more than any test calls.
const always = 1 << 40

func (f *faults) heal() {
	for i := range f.rule {
		atomic.StoreUint64(&f.rule[i].answer, 0)
	}
}

func (f *faults) calls(call int) uint64 { return atomic.LoadUint64(&f.rule[call].calls) }

// clock is the time of a token's supervisor, in a test's hand: nothing happens before it is fired.
type clock struct{ asked chan alarm }

type alarm struct {
	after time.Duration
	fire  chan time.Time
}

func newClock() *clock { return &clock{asked: make(chan alarm, 1024)} }

func (c *clock) After(d time.Duration) <-chan time.Time {
	a := alarm{d, make(chan time.Time, 1)}
	c.asked <- a
	return a.fire
}

// patience bounds what a test waits for other goroutines of the process.
const patience = 2 * time.Minute

// next is the alarm that the supervisor sets next, whose duration must be want; a beat that a loss overtook does not count.
func (c *clock) next(t testing.TB, want time.Duration) alarm {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case a := <-c.asked:
			if a.after == want {
				return a
			}
			if a.after != beat && a.after != hung && a.after != start { // the device answered before it counted as hung
				t.Fatalf("the supervisor waits %v, want %v", a.after, want)
			}
		case <-deadline:
			t.Fatalf("the supervisor does not wait for %v", want)
		}
	}
}

// planned counts alarms that are set, but for those of a device that answered before it counted as hung.
func (c *clock) planned() (n int) {
	for {
		select {
		case a := <-c.asked:
			if a.after != hung && a.after != start {
				n++
			}
		default:
			return n
		}
	}
}

// tick lets the supervisor go on when it waits for want.
func (c *clock) tick(t testing.TB, want time.Duration) {
	t.Helper()
	c.next(t, want).fire <- time.Time{}
}

// What the supervisor waits for: a beat while all is well, then the tries.
const (
	beat  = 5 * time.Second
	hung  = 2 * time.Minute
	start = 5 * time.Minute // of opening, making, initialising
	again = time.Second
	try1  = 250 * time.Millisecond
)

// device is a token on a device that fails to order, with its clock and its log.
type device struct {
	*faults
	*pkcs11.Token
	opt   pkcs11.Options
	clock *clock
	log   *counter
}

// newDevice makes a token on such a device, with an open master.
func newDevice(t *testing.T, alter ...func(*faults, *pkcs11.Options)) *device {
	t.Helper()
	d := newSealedDevice(t, alter...)
	importInto(t, d, 1, nil)
	return d
}

func newSealedDevice(t *testing.T, alter ...func(*faults, *pkcs11.Options)) *device {
	t.Helper()
	d := &device{faults: withFaults(t), clock: newClock(), log: newCounter()}
	d.opt = pkcs11.Options{
		Module: d.module, Label: fmt.Sprintf("node %d", labels.Add(1)), Environment: softHSM.environment,
		Logger: slog.New(d.log), After: d.clock.After,
	}
	if err := pkcs11.Initialize(d.opt, soPIN, pin); err != nil {
		t.Fatal(err)
	}
	for _, f := range alter {
		f(d.faults, &d.opt)
	}
	token, err := pkcs11.Create(d.opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	d.Token = token
	closeAtEnd(t, token)
	return d
}

// eventually polls what another goroutine brings about.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		time.Sleep(time.Millisecond) // a loop without would take a processor from whom it waits for
	}
}

// isLost reports whether the token says that it is lost.
func (d *device) isLost() bool {
	_, err := d.Master()
	return errors.Is(err, hsm.ErrLost)
}

// comesBack lets the first try happen, and unseals.
func (d *device) comesBack(t *testing.T) {
	t.Helper()
	d.clock.tick(t, try1)
	eventually(t, "the token comes back", func() bool { return !d.isLost() })
	_, err := d.Master()
	is(t, "the master of a token that came back", err, hsm.ErrSealed)
	importInto(t, d.Token, 1, nil)
}

// messages of the log that operators watch for.
const (
	logLost  = "the token is lost: keys are refused, the device is looked for again; check the device and its connection"
	logBack  = "the token is back; identity and storage work, and keys after it is unsealed"
	logFinal = "the token is lost for good and not tried again; correct what is wrong and restart the process"
	logMute  = "the device does not answer while the token is brought back; look at it and its connection, and if that does not help restart the process"
	logFew   = "the device has fewer sessions than configured; operations wait for each other"
)

func (c *counter) count(message string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[message]
}
