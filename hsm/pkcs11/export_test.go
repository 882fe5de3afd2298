//go:build cgo && unix

package pkcs11

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// SetReserved sets pReserved of C_Initialize for the module at path, until the process ends.
func SetReserved(path, text string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	modules.mu.Lock()
	defer modules.mu.Unlock()
	reserved[path] = text
	return nil
}

// DecodeRecord decodes and encodes again.
func DecodeRecord(b []byte) ([]byte, error) {
	r, err := decodeRecord(b)
	if err != nil {
		return nil, err
	}
	return append(r.encode(), r.mac...), nil
}

// InitializeHalf is Initialize as a crash between its two steps leaves it: a token without a user PIN.
func InitializeHalf(opt Options, soPIN []byte) (err error) {
	m, err := acquire(opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.release()) }()
	m.initializing.Lock()
	defer m.initializing.Unlock()
	slot, begun, err := m.findFree(opt)
	if err != nil || begun {
		return errors.Join(err, fmt.Errorf("begun already: %v", begun))
	}
	return m.initToken(slot.id, soPIN, opt.Label)
}

// OnStep is told before each change of what the token keeps; an error stops it there, as a crash would.
func (t *Token) OnStep(step func(string) error) { t.step = step }

// Objects lists what is on the token and what this process has made, as "token label" or "session label", sorted.
func (t *Token) Objects() (all []string, err error) {
	err = t.administrative(func(w p11.SessionHandle) error {
		for _, kept := range []bool{true, false} {
			found, err := t.module.search(w, template{attr(p11.CKA_TOKEN, kept)})
			if err != nil {
				return err
			}
			for _, o := range found {
				label, err := t.module.attribute(w, o, p11.CKA_LABEL)
				if err != nil {
					return err
				}
				all = append(all, fmt.Sprintf("%s %s", map[bool]string{true: "token", false: "session"}[kept], label))
			}
		}
		return nil
	})
	slices.Sort(all)
	return all, err
}

// MasterFlags reads the boolean attributes of the masters: names by label, "CKA_SENSITIVE" and so on. An absent one is false.
func (t *Token) MasterFlags() (map[string]map[string]bool, error) {
	names := map[string]uint{
		"CKA_SENSITIVE": p11.CKA_SENSITIVE, "CKA_EXTRACTABLE": p11.CKA_EXTRACTABLE, "CKA_MODIFIABLE": p11.CKA_MODIFIABLE,
		"CKA_COPYABLE": p11.CKA_COPYABLE, "CKA_PRIVATE": p11.CKA_PRIVATE, "CKA_ENCRYPT": p11.CKA_ENCRYPT, "CKA_DECRYPT": p11.CKA_DECRYPT,
		"CKA_SIGN": p11.CKA_SIGN, "CKA_VERIFY": p11.CKA_VERIFY, "CKA_WRAP": p11.CKA_WRAP, "CKA_UNWRAP": p11.CKA_UNWRAP,
		"CKA_DERIVE": p11.CKA_DERIVE,
	}
	s, err := t.turns.Current()
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]bool)
	for label, object := range map[string]p11.ObjectHandle{labelWrap: s.wrap, labelExport: s.export, labelBind: s.bind} {
		all[label] = make(map[string]bool)
		for name, which := range names {
			on, err := t.module.flag(s.handle, object, which)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", name, label, err)
			}
			if on {
				all[label][name] = true
			}
		}
	}
	return all, nil
}

// PlantRecord writes a record as something else could.
func (t *Token) PlantRecord(value []byte) error {
	return t.administrative(func(w p11.SessionHandle) error {
		_, err := t.module.create(w, template{
			attr(p11.CKA_CLASS, p11.CKO_DATA), attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true),
			attr(p11.CKA_APPLICATION, applicationLabel), attr(p11.CKA_LABEL, labelRecord), attr(p11.CKA_VALUE, value),
		})
		return err
	})
}

// SwapMaster puts another key in the place of a kept master object, with every attribute right.
func (t *Token) SwapMaster(label string) error {
	return t.administrative(func(w p11.SessionHandle) error {
		found, err := t.module.search(w, masterSearch(label))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%d objects %s: %w", len(found), label, err)
		}
		tag, err := t.module.attribute(w, found[0], p11.CKA_ID)
		if err != nil {
			return err
		}
		if err := t.module.ctx.DestroyObject(w, found[0]); err != nil {
			return err
		}
		other := &hsm.Master{Wrap: make([]byte, keySize), WrapExport: make([]byte, keySize), Bind: make([]byte, keySize)}
		scratch := &session{token: t, link: t.link.Load(), handle: w}
		if err := scratch.createMasters(other, tag, true, func(string) error { return nil }); err != nil {
			return err
		}
		for other, o := range map[string]p11.ObjectHandle{labelWrap: scratch.wrap, labelExport: scratch.export, labelBind: scratch.bind} {
			if other != label {
				if err := t.module.ctx.DestroyObject(w, o); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Record is the value of the record that counts.
func (t *Token) Record() (value []byte, err error) {
	err = t.administrative(func(w p11.SessionHandle) error {
		all, err := t.module.records(w)
		if err != nil || len(all) == 0 {
			return err
		}
		value, err = t.module.attribute(w, all[len(all)-1].object, p11.CKA_VALUE)
		return err
	})
	return value, err
}

// LoseSessions takes all sessions from the process, as a device that was reset does.
func (t *Token) LoseSessions() error { return t.module.ctx.CloseAllSessions(t.link.Load().slot) }

// LeaveOperationActive begins a search on every worker session and does not end it.
func (t *Token) LeaveOperationActive() error {
	p := t.link.Load().pool
	var taken []p11.SessionHandle
	defer func() {
		for _, s := range taken {
			p.idle <- s
		}
	}()
	for range cap(p.idle) {
		s, err := p.take(nil)
		if err != nil {
			return err
		}
		taken = append(taken, s)
		if err := t.module.ctx.FindObjectsInit(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// TakeSessions takes all worker sessions until release.
func (t *Token) TakeSessions() (release func(), err error) {
	p := t.link.Load().pool
	var taken []p11.SessionHandle
	for range cap(p.idle) {
		s, err := p.take(nil)
		if err != nil {
			return nil, err
		}
		taken = append(taken, s)
	}
	return func() {
		for _, s := range taken {
			p.idle <- s
		}
	}, nil
}

// SetFirstPIN is how NSS softokn is prepared, whose security officer has no PIN and whose database is there without C_InitToken.
func SetFirstPIN(opt Options, pin []byte) error {
	m, err := acquire(opt)
	if err != nil {
		return err
	}
	all, err := m.slots()
	for _, s := range all {
		if err == nil && trim(s.token.Label) == opt.Label {
			err = m.setUserPIN(s.id, nil, pin)
		}
	}
	return errors.Join(err, m.release())
}

// logIn opens a session of a module that need not be one for us; leave ends it.
func logIn(opt Options, pin []byte) (m *module, w p11.SessionHandle, leave func() error, err error) {
	if m, err = acquire(opt); err != nil {
		return nil, 0, nil, err
	}
	slot, err := m.find(opt)
	if err != nil {
		return nil, 0, nil, errors.Join(err, m.release())
	}
	if w, err = m.ctx.OpenSession(slot.id, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION); err != nil {
		return nil, 0, nil, errors.Join(err, m.release())
	}
	leave = func() error { return errors.Join(m.ctx.CloseSession(w), m.release()) }
	if err := m.login(w, p11.CKU_USER, pin); err != nil {
		return nil, 0, nil, errors.Join(err, leave())
	}
	return m, w, leave, nil
}

// DecryptOAEPWith imports an RSA key into a module that need not be one for us, and decrypts as a working copy does. nil: refused.
func DecryptOAEPWith(opt Options, pin []byte, key *rsa.PrivateKey, ciphertexts ...[]byte) (opened [][]byte, err error) {
	m, w, leave, err := logIn(opt, pin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	object, err := m.create(w, template{
		attr(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_RSA), attr(p11.CKA_TOKEN, false), attr(p11.CKA_DECRYPT, true),
		attr(p11.CKA_MODULUS, key.N.Bytes()), attr(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
		attr(p11.CKA_PRIVATE_EXPONENT, key.D.Bytes()), attr(p11.CKA_PRIME_1, key.Primes[0].Bytes()), attr(p11.CKA_PRIME_2, key.Primes[1].Bytes()),
		attr(p11.CKA_EXPONENT_1, key.Precomputed.Dp.Bytes()), attr(p11.CKA_EXPONENT_2, key.Precomputed.Dq.Bytes()),
		attr(p11.CKA_COEFFICIENT, key.Precomputed.Qinv.Bytes()),
	})
	if err != nil {
		return nil, err
	}
	for _, ciphertext := range ciphertexts {
		plaintext, err := decryptOAEP(m, w, object, ciphertext)
		if err != nil && codeOf(err) == p11.CKR_OK {
			return nil, err
		}
		opened = append(opened, plaintext)
	}
	return opened, nil
}

// SetPatience changes Options.Patience.
func (t *Token) SetPatience(d time.Duration) { t.opt.Patience = d }

// FinalizeModule is what something else in the process can do.
func (t *Token) FinalizeModule() error { return t.module.ctx.Finalize() }

// InitializeAgain formats the token as another process can while this one has it open: with the sessions of this one gone, as
// C_InitToken demands.
func (t *Token) InitializeAgain(soPIN, pin []byte) error {
	l := t.link.Load()
	if err := t.module.ctx.CloseAllSessions(l.slot); err != nil {
		return err
	}
	if err := t.module.initToken(l.slot, soPIN, t.opt.Label); err != nil {
		return err
	}
	return t.module.setUserPIN(l.slot, soPIN, pin)
}

// MakeOtherNodeKeys makes the keys of another node on the token, after InitializeAgain.
func (t *Token) MakeOtherNodeKeys(pin []byte) (err error) {
	l := t.link.Load()
	w, err := l.openSession()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.module.ctx.CloseSession(w)) }()
	if err := t.module.login(w, p11.CKU_USER, pin); err != nil {
		return err
	}
	return t.makeNodeKeys(w)
}

// BareUnwraps unwraps an AES key and destroys it, n times, as a loop over the binding would.
func (t *Token) BareUnwraps(blob []byte, n int) error {
	unwrap, end, err := t.BareUnwrap(blob)
	if err != nil {
		return err
	}
	defer end()
	for range n {
		if err := unwrap(); err != nil {
			return err
		}
	}
	return nil
}

// BareUnwrap gives what unwraps an AES key and destroys it, on a session of its own.
func (t *Token) BareUnwrap(blob []byte) (unwrap func() error, end func(), err error) {
	s, err := t.turns.Current()
	if err != nil {
		return nil, nil, err
	}
	row, err := lookup(hsm.AES256GCM)
	if err != nil {
		return nil, nil, err
	}
	l := t.link.Load()
	w, err := l.openSession()
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		o, err := t.module.ctx.UnwrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), s.wrap, blob, row.copyTemplate())
		if err != nil {
			return err
		}
		return t.module.ctx.DestroyObject(w, o)
	}, func() { l.closeSession(w) }, nil
}

// Direct gives what a loop over the binding needs to use a key without us: a session of its own and the key's handle.
func (t *Token) Direct(key keyuse.Key) (ctx *p11.Ctx, session p11.SessionHandle, object p11.ObjectHandle, end func(), err error) {
	l := t.link.Load()
	if session, err = l.openSession(); err != nil {
		return nil, 0, 0, nil, err
	}
	return t.module.ctx, session, key.(*workingCopy).object, func() { l.closeSession(session) }, nil
}

// LookAtDevice is one call of C_GetTokenInfo.
func (t *Token) LookAtDevice() error {
	_, err := t.module.ctx.GetTokenInfo(t.link.Load().slot)
	return err
}

// AttackRewrap tries what must not succeed with the handles of a rewrapping; nil is a success.
func (t *Token) AttackRewrap(w hsm.Rewrapping, blob, moved []byte) map[string]error {
	r, m := w.(*rewrapping), t.module
	unwrap := func(kek p11.ObjectHandle, blob []byte, sensitive, extractable bool) (p11.ObjectHandle, error) {
		return m.ctx.UnwrapKey(r.work, mechanism(p11.CKM_AES_KEY_WRAP_PAD), kek, blob, template{
			attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_AES), attr(p11.CKA_TOKEN, false),
			attr(p11.CKA_SENSITIVE, sensitive), attr(p11.CKA_EXTRACTABLE, extractable),
		})
	}
	value := func(o p11.ObjectHandle, err error) error {
		if err != nil {
			return err
		}
		return m.readable(r.work, o)
	}
	_, clearCopy := unwrap(r.from.wrap, blob, false, true)
	_, byTarget := unwrap(r.to.wrap, moved, true, true)
	return map[string]error{
		"unwrapping a readable key":         clearCopy,
		"reading what was unwrapped":        value(unwrap(r.from.wrap, blob, true, true)),
		"unwrapping under the target":       byTarget,
		"reading a handle":                  m.readable(r.work, r.from.wrap),
		"reading a target":                  m.readable(r.work, r.to.wrap),
		"wrapping a handle by the target":   m.wrappable(r.work, r.to.wrap, r.from.wrap),
		"wrapping the target by itself":     m.wrappable(r.work, r.to.wrap, r.to.wrap),
		"wrapping under a handle":           m.wrapsTransit(r.work, r.from.wrap, p11.CKM_AES_KEY_WRAP_PAD),
		"wrapping by another mechanism":     m.wrapsTransit(r.work, r.to.wrap, p11.CKM_AES_KEY_WRAP),
		"encrypting with a handle":          m.ctx.EncryptInit(r.work, mechanism(p11.CKM_AES_ECB), r.from.wrap),
		"decrypting with a target":          m.ctx.DecryptInit(r.work, mechanism(p11.CKM_AES_ECB), r.to.wrap),
		"making a handle's value available": m.ctx.SetAttributeValue(r.work, r.from.wrap, template{attr(p11.CKA_EXTRACTABLE, true)}),
	}
}

// UnderWay counts the calls that the watch knows of.
func (t *Token) UnderWay() int {
	w := t.link.Load().calls
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.from)
}

// DerivationsOf lists what derives from an AES key and from a generic secret that may be derived from, in a module that need not be one for us.
func DerivationsOf(opt Options, pin []byte) (ways map[string][]string, err error) {
	m, w, leave, err := logIn(opt, pin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	ways = make(map[string][]string)
	for name, keyType := range map[string]uint{"aes": p11.CKK_AES, "generic": p11.CKK_GENERIC_SECRET} {
		key, err := m.create(w, template{
			attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, keyType), attr(p11.CKA_TOKEN, false), attr(p11.CKA_SENSITIVE, true),
			attr(p11.CKA_DERIVE, true), attr(p11.CKA_VALUE, make([]byte, keySize)),
		})
		if err != nil {
			return nil, err
		}
		ways[name] = m.derives(w, key)
	}
	return ways, nil
}

// LeaveRewrapActive begins a search on the session that keys are moved on, and does not end it.
func (t *Token) LeaveRewrapActive(w hsm.Rewrapping) error {
	return t.module.ctx.FindObjectsInit(w.(*rewrapping).work, nil)
}

// Idle reports whether nothing uses the module at path.
func Idle(path string) bool {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	modules.mu.Lock()
	defer modules.mu.Unlock()
	m := modules.loaded[path]
	return m == nil || m.users == 0
}
