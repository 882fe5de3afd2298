//go:build cgo && unix

package pkcs11_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// Where the modules of the tests are: Debian and its derivatives, by the packages softhsm2 and libnss3.
var (
	softHSMPaths = []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	}
	nssPaths = []string{
		"/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
		"/usr/lib/aarch64-linux-gnu/libsoftokn3.so", "/usr/lib/aarch64-linux-gnu/nss/libsoftokn3.so",
	}
)

var pin, soPIN = []byte("0000-test-pin"), []byte("0000-test-so-pin")

// cheapPIN is for soft tokens: the cost of a PIN is not what these tests are about.
var cheapPIN = soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}}

// softHSM has one configuration for the test binary, since a process has one environment.
var softHSM struct {
	environment map[string]string
	tokens      string
	away        string // on the same file system
}

func TestMain(m *testing.M) {
	code, err := withSoftHSM(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withSoftHSM(run func() int) (int, error) {
	dir, err := os.MkdirTemp("", "conclave-softhsm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	memory, err := os.MkdirTemp(inMemory(), "conclave-softhsm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(memory)
	softHSM.tokens, softHSM.away = filepath.Join(memory, "tokens"), filepath.Join(memory, "away")
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", softHSM.tokens)
	if err := errors.Join(os.Mkdir(softHSM.tokens, 0o700), os.Mkdir(softHSM.away, 0o700)); err != nil {
		return 0, err
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return 0, err
	}
	softHSM.environment = map[string]string{"SOFTHSM2_CONF": conf}
	if err := buildFaults(dir); err != nil {
		return 0, err
	}
	return run(), nil
}

// inMemory is where files cost no disk: SoftHSM writes several for each object of a token, and these tests make thousands. "": the usual place.
func inMemory() string {
	const shared = "/dev/shm"
	var fs unix.Statfs_t
	const enough = 64 << 20
	if err := unix.Statfs(shared, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < enough || unix.Access(shared, unix.W_OK) != nil {
		return ""
	}
	return shared
}

// sweep removes the tokens of a test when it has ended: SoftHSM reads all that there are at each C_Initialize, and would be slower with every test.
func sweep(t testing.TB) {
	t.Cleanup(func() {
		if !pkcs11.Idle(modulePath(t, "softhsm2", softHSMPaths)) || !pkcs11.Idle(faultModule.module) {
			return // a test inside another one that has tokens open
		}
		made, err := filepath.Glob(filepath.Join(softHSM.tokens, "*"))
		if err != nil {
			t.Error(err)
		}
		for _, path := range made {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		}
	})
}

func modulePath(t testing.TB, debianPackage string, paths []string) string {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("none of %v is there: install the package %s", paths, debianPackage)
	return ""
}

var labels atomic.Uint32

// unmade names a token that is not there yet.
func unmade(t testing.TB) pkcs11.Options {
	t.Helper()
	sweep(t)
	return pkcs11.Options{
		Module: modulePath(t, "softhsm2", softHSMPaths), Label: fmt.Sprintf("node %d", labels.Add(1)),
		Environment: softHSM.environment,
	}
}

// initialized makes a token without node keys.
func initialized(t testing.TB) pkcs11.Options {
	t.Helper()
	opt := unmade(t)
	if err := pkcs11.Initialize(opt, soPIN, pin); err != nil {
		t.Fatalf("initialising a token: %v", err)
	}
	return opt
}

// create makes a token and closes it when the test ends.
func create(t testing.TB) (*pkcs11.Token, pkcs11.Options) {
	t.Helper()
	opt := initialized(t)
	token, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatalf("creating a token: %v", err)
	}
	closeAtEnd(t, token)
	return token, opt
}

func closeAtEnd(t testing.TB, token *pkcs11.Token) {
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Errorf("closing the token: %v", err)
		}
	})
}

// TestConformance runs behind the module that watches: besides what the suite asks, no session may be used by two calls at once, and
// nothing finalised under a call.
func TestConformance(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) (hsm.Token, keyuse.Port) {
		d := newSealedDevice(t)
		return d.Token, d.Token
	}, hsmtest.DeviceParsesPKCS8)
}
