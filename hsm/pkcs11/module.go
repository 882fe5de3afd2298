//go:build cgo && unix

package pkcs11

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// module is a loaded PKCS#11 library. Cryptoki is initialised once per process and library whatever a program does, so there is
// one per file, counted: C_Initialize for its first user, C_Finalize after its last.
type module struct {
	path string // with symbolic links resolved
	ctx  *p11.Ctx
	functions
	info p11.Info

	// initializing: one at a time formats a slot, because "the first free one" must not be two's.
	initializing sync.Mutex

	// rsa remembers what probeOnce found, by the model of the token.
	rsa struct {
		mu   sync.Mutex
		rows map[string]hsm.Capability
	}

	users       int // guarded by modules.mu, as are the next three
	live        int // users that may have calls under way: all but those whose token is lost and drained
	environment map[string]string
	open        map[string]bool // serials of tokens that a Token has open
}

var modules struct {
	mu     sync.Mutex
	loaded map[string]*module
}

// reserved is pReserved of C_Initialize by the path of a module, for those that are configured by it (NSS). Only tests have one.
var reserved = make(map[string]string)

// acquire counts a user in and initialises the module for the first. fs.ErrNotExist if there is no such file; ErrEnvironment.
func acquire(opt Options) (*module, error) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	m, err := loaded(opt)
	if err != nil {
		return nil, err
	}
	if m.users > 0 {
		if !maps.Equal(m.environment, opt.Environment) {
			return nil, fmt.Errorf("%w: %s; give all its tokens the same settings", ErrEnvironment, m.path)
		}
		m.users++
		m.live++
		return m, nil
	}
	if err := m.initialize(opt); err != nil {
		return nil, err
	}
	m.users, m.live = 1, 1
	return m, nil
}

// loaded finds or loads the library; it stays loaded, because unloading is what modules are tested least for. modules.mu is held.
func loaded(opt Options) (*module, error) {
	path, err := filepath.EvalSymlinks(opt.Module)
	if err != nil {
		return nil, fmt.Errorf("the PKCS#11 module %s: %w", opt.Module, err)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("the PKCS#11 module %s is not a file", path), err)
	}
	if m, ok := modules.loaded[path]; ok {
		return m, nil
	}
	if err := setEnvironment(opt.Environment); err != nil { // some modules read it when they are loaded
		return nil, err
	}
	f, err := loadFunctions(path)
	if err != nil {
		return nil, err
	}
	ctx := p11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("loading PKCS#11 module %s: it gives no function list", path)
	}
	if modules.loaded == nil {
		modules.loaded = make(map[string]*module)
	}
	m := &module{path: path, ctx: ctx, functions: f}
	modules.loaded[path] = m
	return m, nil
}

// setEnvironment reaches the module's getenv too: with cgo, os.Setenv sets C's environment.
func setEnvironment(environment map[string]string) error {
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s for the PKCS#11 module: %w", name, err)
		}
	}
	return nil
}

// initialize calls C_Initialize with CKF_OS_LOCKING_OK, since many threads will call.
func (m *module) initialize(opt Options) error {
	if err := setEnvironment(opt.Environment); err != nil {
		return err
	}
	err := m.start()
	if codeOf(err) == p11.CKR_CRYPTOKI_ALREADY_INITIALIZED {
		return fmt.Errorf("%w: %w: something else in this process uses it", ErrInUse, err)
	}
	if err != nil {
		return fmt.Errorf("starting PKCS#11 module %s: %w", m.path, err)
	}
	if m.info, err = m.ctx.GetInfo(); err != nil {
		return errors.Join(check("C_GetInfo", err), check("C_Finalize", m.ctx.Finalize()))
	}
	m.environment, m.open = maps.Clone(opt.Environment), make(map[string]bool)
	return nil
}

func (m *module) start() error {
	var options []p11.InitializeOption
	if text, ok := reserved[m.path]; ok {
		options = append(options, p11.InitializeWithReserved(cString(text)))
	}
	return check("C_Initialize", m.ctx.Initialize(options...))
}

// retire counts out a user whose token is lost and who has no call under way.
func (m *module) retire() {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	m.live--
}

// revive counts such a user in again. With restart, and if all users are such, the module is finalised and initialised: an open
// token of the module is work that must not be ended for another one.
func (m *module) revive(restart bool) error {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if restart && m.live == 0 {
		if err := m.finish(); err != nil {
			return err
		}
		if err := m.start(); err != nil {
			return err
		}
	}
	m.live++
	return nil
}

// finish is C_Finalize. Somebody else in the process may have done it.
func (m *module) finish() error {
	err := check("C_Finalize", m.ctx.Finalize())
	if codeOf(err) == p11.CKR_CRYPTOKI_NOT_INITIALIZED {
		return nil
	}
	return err
}

// release counts a user out and finalises the module after the last. The caller has no call under way.
func (m *module) release() error {
	m.retire()
	return m.leave()
}

// leave is release of a user that has retired.
func (m *module) leave() error {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	return m.finish()
}

// claim marks a token as open in this process. ErrInUse.
func (m *module) claim(serial string) error {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.open[serial] {
		return fmt.Errorf("%w: serial %s of %s", ErrInUse, serial, m.path)
	}
	m.open[serial] = true
	return nil
}

func (m *module) unclaim(serial string) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	delete(m.open, serial)
}

// library describes the module for Info.
func (m *module) library() string {
	v := m.info.LibraryVersion
	return fmt.Sprintf("%s %d.%d (%s)", printable(m.info.LibraryDescription), v.Major, v.Minor, filepath.Base(m.path))
}

// slotOf is a token's place in a module.
type slotOf struct {
	id    uint
	slot  p11.SlotInfo
	token p11.TokenInfo
}

// slots lists the slots that hold a token, initialised or not.
func (m *module) slots() ([]slotOf, error) {
	ids, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, check("C_GetSlotList", err)
	}
	all := make([]slotOf, 0, len(ids))
	for _, id := range ids {
		s := slotOf{id: id}
		if s.slot, err = m.ctx.GetSlotInfo(id); err != nil {
			return nil, check("C_GetSlotInfo", err)
		}
		s.token, err = m.ctx.GetTokenInfo(id)
		if codeOf(check("", err)) == p11.CKR_TOKEN_NOT_PRESENT || codeOf(check("", err)) == p11.CKR_TOKEN_NOT_RECOGNIZED {
			continue // taken out, or another kind, since the list was made
		}
		if err != nil {
			return nil, check("C_GetTokenInfo", err)
		}
		all = append(all, s)
	}
	return all, nil
}

// find gives the one initialised token that opt names. fs.ErrNotExist; hsm.ErrInput if several match.
func (m *module) find(opt Options) (slotOf, error) {
	all, err := m.slots()
	if err != nil {
		return slotOf{}, err
	}
	var found []slotOf
	for _, s := range all {
		if s.token.Flags&p11.CKF_TOKEN_INITIALIZED != 0 && opt.matches(s) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return slotOf{}, fmt.Errorf("no initialised token with %s in %s: %w", opt.name(), m.path, fs.ErrNotExist)
	case 1:
		return found[0], nil
	}
	return slotOf{}, fmt.Errorf("%w: %d tokens in %s have %s, give the serial of one", hsm.ErrInput, len(found), m.path, opt.name())
}

func (o Options) matches(s slotOf) bool {
	return (o.Label == "" || o.Label == trim(s.token.Label)) && (o.Serial == "" || o.Serial == trim(s.token.SerialNumber))
}
