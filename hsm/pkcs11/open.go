//go:build cgo && unix

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/internal/memlock"
)

// Initialize formats a token: C_InitToken of the first slot that holds none, or of the one with opt.Serial, with opt.Label and
// soPIN; then C_InitPIN with pin. One that was interrupted in between is completed, if soPIN is the one of then. hsm.ErrTokenExists if a token of that label exists or the slot holds one already;
// hsm.ErrInput for a PIN that the device does not take. The caller wipes both PINs.
func Initialize(opt Options, soPIN, pin []byte) error {
	if err := opt.validate(); err != nil {
		return err
	}
	if opt.Label == "" {
		return fmt.Errorf("%w: a new token needs a label", hsm.ErrInput)
	}
	_, err := patiently(opt, "initialising a token", [][]byte{soPIN, pin}, func(s *starting, pins [][]byte) (struct{}, error) {
		return struct{}{}, initialize(opt, s, pins[0], pins[1])
	}, func(struct{}) {})
	return err
}

func initialize(opt Options, s *starting, soPIN, pin []byte) (err error) {
	m, err := acquire(opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.release()) }()
	m.initializing.Lock()
	defer m.initializing.Unlock()
	slot, begun, err := m.findFree(opt)
	if err != nil {
		return err
	}
	for name, p := range map[string][]byte{"security officer's": soPIN, "user": pin} {
		if !fits(p, slot.token) {
			return fmt.Errorf("%w: a %s PIN of %d bytes, the device takes from %d to %d",
				hsm.ErrInput, name, len(p), slot.token.MinPinLen, slot.token.MaxPinLen)
		}
	}
	if err := s.proceed(); err != nil {
		return err
	}
	if !begun {
		if err := m.initToken(slot.id, soPIN, opt.Label); err != nil {
			return fmt.Errorf("initialising a token: %w", err)
		}
	}
	return m.setUserPIN(slot.id, soPIN, pin)
}

// setUserPIN ends the officer's login by closing its only session.
func (m *module) setUserPIN(slot uint, soPIN, pin []byte) (err error) {
	s, err := m.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("setting the user PIN: %w", check("C_OpenSession", err))
	}
	defer func() { err = errors.Join(err, check("C_CloseSession", m.ctx.CloseSession(s))) }()
	if err := m.login(s, p11.CKU_SO, soPIN); err != nil {
		return fmt.Errorf("setting the user PIN: %w", err)
	}
	if err := m.initPIN(s, pin); err != nil {
		return fmt.Errorf("setting the user PIN: %w; the token is initialised without one", err)
	}
	return nil
}

// findFree gives the slot to format, or the one whose formatting was interrupted before it had a user PIN.
func (m *module) findFree(opt Options) (_ slotOf, begun bool, _ error) {
	all, err := m.slots()
	if err != nil {
		return slotOf{}, false, err
	}
	var free []slotOf
	for _, s := range all {
		initialized := s.token.Flags&p11.CKF_TOKEN_INITIALIZED != 0
		if initialized && (trim(s.token.Label) == opt.Label || opt.Serial != "" && trim(s.token.SerialNumber) == opt.Serial) {
			if s.token.Flags&p11.CKF_USER_PIN_INITIALIZED == 0 && trim(s.token.Label) == opt.Label {
				return s, true, nil
			}
			return slotOf{}, false, fmt.Errorf("%w: label %q, serial %s, in %s", hsm.ErrTokenExists, printable(s.token.Label),
				printable(s.token.SerialNumber), m.path)
		}
		if !initialized && (opt.Serial == "" || trim(s.token.SerialNumber) == opt.Serial) {
			free = append(free, s)
		}
	}
	if len(free) == 0 {
		return slotOf{}, false, fmt.Errorf("%w: no slot of %s has a token to initialise", hsm.ErrInput, m.path)
	}
	return free[0], false, nil
}

// fits checks a PIN's length by the token's own limits, so that one that cannot be right does not count as a try.
func fits(pin []byte, token p11.TokenInfo) bool {
	return len(pin) > 0 && uint(len(pin)) >= token.MinPinLen && (token.MaxPinLen == 0 || uint(len(pin)) <= token.MaxPinLen)
}

// Create makes the keys of a node on an initialised token and opens it. hsm.ErrTokenExists if there are any; the errors of
// Open. The caller wipes pin.
func Create(opt Options, pin []byte) (*Token, error) {
	return start(opt, pin, "making the keys of a node", func(t *Token, w p11.SessionHandle) error {
		if err := t.probe(context.Background()); err != nil { // the caller has no context for the start of a process
			return err
		}
		if err := t.starting.proceed(); err != nil {
			return err
		}
		return t.makeNodeKeys(w)
	})
}

// Open opens the token that opt names. fs.ErrNotExist if the module, the token or its node keys are not there; hsm.ErrPIN;
// hsm.ErrTokenDamaged; ErrInUse; ErrEnvironment; ErrModule if the module fails its test. The caller wipes pin, and does not try
// another one by itself.
//
// It writes nothing: what a crash left on the token is removed by the next import or restoring, when the caller knows whose token it is.
//
// It takes as long as the test of every algorithm: tens of milliseconds with SoftHSM.
func Open(opt Options, pin []byte) (*Token, error) {
	return start(opt, pin, "opening a token", func(t *Token, w p11.SessionHandle) error {
		if _, err := t.requireNodeKeys(w); err != nil {
			return err
		}
		return t.probe(context.Background())
	})
}

// start is begin within the time that opt gives it. A token that comes later is closed: nobody has it.
func start(opt Options, pin []byte, what string, prepare func(*Token, p11.SessionHandle) error) (*Token, error) {
	if err := opt.validate(); err != nil {
		return nil, err
	}
	return patiently(opt, what, [][]byte{pin}, func(s *starting, pins [][]byte) (*Token, error) {
		return begin(opt.withDefaults(), s, pins[0], prepare)
	}, func(t *Token) { _ = t.Close() })
}

// begin logs in, lets prepare work, and takes what a token needs for its whole life.
func begin(opt Options, s *starting, pin []byte, prepare func(*Token, p11.SessionHandle) error) (*Token, error) {
	m, err := acquire(opt)
	if err != nil {
		return nil, err
	}
	t, err := m.connect(opt, s, pin)
	if err != nil {
		return nil, errors.Join(err, m.release())
	}
	err = t.administrative(func(w p11.SessionHandle) error {
		if err := prepare(t, w); err != nil {
			return err
		}
		found, err := t.requireNodeKeys(w)
		if err != nil {
			return err
		}
		return t.openNodeKeys(w, found)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the token: %w", err), t.end())
	}
	t.log.Info("token opened", "model", t.info.Model, "serial", t.info.Serial, "library", t.info.Library)
	t.keepPIN(pin)
	go t.supervise()
	return t, nil
}

// keepPIN has it ready for a device that comes back.
func (t *Token) keepPIN(pin []byte) {
	kept, err := memlock.NewSecret(pin)
	if err != nil {
		t.log.Warn("the PIN is kept in memory that is not fully protected; allow the process to lock memory", "err", err)
	}
	t.pin = kept
}

// connect finds the token and logs in.
func (m *module) connect(opt Options, s *starting, pin []byte) (*Token, error) {
	found, err := m.find(opt)
	if err != nil {
		return nil, err
	}
	t := &Token{
		module: m, opt: opt, starting: s, log: opt.Logger, serial: trim(found.token.SerialNumber), info: m.describe(found), linked: true,
		turns: drain.NewTurns(sealedSession()), step: func(string) error { return nil },
		losses: make(chan *link, 1), doubts: make(chan struct{}, 1), closing: make(chan struct{}), supervised: make(chan struct{}),
	}
	if err := m.claim(t.info.Serial); err != nil {
		return nil, err
	}
	l := t.newLink(found)
	if err := l.logIn(pin, found.token); err != nil {
		m.unclaim(t.info.Serial)
		return nil, err
	}
	t.link.Store(l)
	return t, nil
}

// logIn opens the root session. A wrong PIN is told once and never tried again.
func (l *link) logIn(pin []byte, token p11.TokenInfo) error {
	t := l.token
	if !fits(pin, token) {
		return fmt.Errorf("%w: the token's PIN has from %d to %d bytes", hsm.ErrPIN, token.MinPinLen, token.MaxPinLen)
	}
	if err := mayTry(token.Flags, t.opt.Careful); err != nil {
		return err
	}
	root, err := l.openSession()
	if err != nil {
		return err
	}
	if err := t.starting.proceed(); err != nil {
		l.closeSession(root)
		return err
	}
	t.log.Debug("logging in", "serial", t.info.Serial) // once per link: devices count wrong PINs
	err = t.module.login(root, p11.CKU_USER, pin)
	if err == nil {
		l.root = root
		return nil
	}
	flags := token.Flags
	if now, infoErr := t.module.ctx.GetTokenInfo(l.slot); infoErr == nil {
		flags = now.Flags
	}
	l.closeSession(root)
	return pinError(err, flags)
}

// mayTry refuses a login that could lock the token for good: one more wrong PIN would.
func mayTry(flags uint, careful bool) error {
	switch {
	case flags&p11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: the token is locked; unlock it with the vendor's tool", hsm.ErrPIN)
	case flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("%w: one more wrong PIN would lock the token, so none is tried; log in once with the vendor's tool", hsm.ErrPIN)
	case careful && flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		return fmt.Errorf("%w: a wrong one was given since the last login, so none is tried here", hsm.ErrPIN)
	}
	return nil
}

func (m *module) describe(found slotOf) hsm.Info {
	model := printable(found.token.ManufacturerID) + " " + printable(found.token.Model)
	return hsm.Info{
		Backend: "pkcs11", Model: strings.TrimSpace(model), Library: m.library(), Serial: printable(found.token.SerialNumber),
		HardwareSafe: found.slot.Flags&p11.CKF_HW_SLOT != 0 && !isSoftware(model, m.info.LibraryDescription, m.info.ManufacturerID),
	}
}

// isSoftware knows the modules that keep keys in files, whatever their slots claim.
func isSoftware(descriptions ...string) bool {
	all := strings.ToLower(strings.Join(descriptions, " "))
	for _, name := range []string{"softhsm", "nss", "mozilla", "softtok", "soft token", "softtoken", "kryoptic", "gnome"} {
		if strings.Contains(all, name) {
			return true
		}
	}
	return false
}

// end closes all sessions, the root session last, which logs out, and lets the module go. The supervisor has ended, or never
// began.
func (t *Token) end() error {
	l := t.link.Load()
	l.pool.stop(hsm.ErrClosed)
	<-l.Shut()
	t.module.unclaim(t.info.Serial)
	leave := t.module.release
	if !t.linked {
		leave = t.module.leave
	}
	if err := leave(); err != nil {
		return fmt.Errorf("closing the token: %w", err)
	}
	return nil
}
