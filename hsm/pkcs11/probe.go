//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// The test at every start. CKM_AES_KEY_WRAP_PAD is RFC 5649 on some devices and something else on others, mechanism lists
// promise what does not work, and some modules accept attributes that they do not enforce: nothing is believed that was not
// tried. It runs under a master that nobody else has, and leaves nothing on the token.

// probe fails with ErrModule if the module computes wrongly or does not enforce; what it merely lacks goes to Capabilities.
func (t *Token) probe(ctx context.Context) error {
	return t.probing(ctx, t.link.Load(), func(s *session) {
		for _, id := range hsm.Algorithms() {
			row := s.probeOnce(ctx, id)
			if row.Missing != "" {
				t.log.Warn("the token lacks an algorithm", "algorithm", id, "missing", row.Missing)
			}
			t.capabilities = append(t.capabilities, row)
		}
	})
}

// probeModule is probe without the algorithms: what keys need of any device.
func (t *Token) probeModule(ctx context.Context, l *link) error {
	return t.probing(ctx, l, func(*session) {})
}

func (t *Token) probing(ctx context.Context, l *link, algorithms func(*session)) error {
	m, err := probeMaster()
	if err != nil {
		return fmt.Errorf("testing the module: %w", err)
	}
	defer m.Wipe()
	s, verify, err := t.importUnverified(l, m, nil, func(string) error { return nil })
	if err != nil {
		return t.refused(err)
	}
	defer s.Shut()
	s.probing = m
	// All of them, so that operators learn all that is wrong with a module at once.
	var wrong faults
	for _, err := range []error{verify(ctx), s.probeWrap(ctx, m), s.probeEnforcement(ctx)} {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) > 0 {
		return t.refused(wrong)
	}
	algorithms(s)
	return nil
}

// faults is errors.Join in one line.
type faults []error

func (f faults) Error() string {
	all := make([]string, len(f))
	for i, err := range f {
		all[i] = err.Error()
	}
	return strings.Join(all, "; ")
}

func (f faults) Unwrap() []error { return f }

// refused is ErrModule, but for a module that could not be tried: its device is lost.
func (t *Token) refused(err error) error {
	if isGone(err) {
		return err
	}
	return fmt.Errorf("%w: %s, %s: %w", ErrModule, t.module.library(), t.info.Model, err)
}

func probeMaster() (*hsm.Master, error) {
	secret := make([]byte, keySize)
	defer clear(secret)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return hsm.DeriveMaster(secret, "probe", 1)
}

func (s *session) probeBinding(id hsm.Algorithm) hsm.Binding {
	return hsm.Binding{ClusterID: s.info.ClusterID, KeyID: "probe", Version: 1, Algorithm: id, Generation: s.info.Generation}
}

// probeWrap: what the device wraps, Go unwraps, with the right length. The other direction is the canary of the import.
func (s *session) probeWrap(ctx context.Context, m *hsm.Master) error {
	row, err := lookup(hsm.AES256GCM)
	if err != nil {
		return err
	}
	for _, exportable := range []bool{false, true} {
		b, kek := s.probeBinding(row.id), m.Wrap
		if exportable {
			b.Exportable, kek = true, m.WrapExport
		}
		k, err := s.generate(ctx, row, b)
		if err != nil {
			return err
		}
		if err := hsm.CheckBinding(m.Bind, k); err != nil {
			return fmt.Errorf("CKM_SHA256_HMAC: %w", err)
		}
		key, err := keywrap.Unwrap(kek, k.Blob)
		clear(key)
		if err != nil || len(key) != keySize {
			return fmt.Errorf("CKM_AES_KEY_WRAP_PAD is not RFC 5649: a wrapped AES-256 key unwraps to %d bytes", len(key))
		}
	}
	return nil
}

// probeOnce tries the generation of RSA keys once in a process for each kind of token: a search for primes takes from 0.1 s to seconds.
// Of the sizes only the smallest is searched for; for the others the mechanism's range is believed, which the first generation in need
// would refute, and keys made elsewhere show the rest.
func (s *session) probeOnce(ctx context.Context, id hsm.Algorithm) hsm.Capability {
	a, err := lookup(id)
	if err != nil || a.keyType != p11.CKK_RSA {
		return s.probeAlgorithm(ctx, id)
	}
	m, kind := s.token.module, fmt.Sprintf("%s %s thorough=%t", s.token.info.Model, id, s.token.opt.Thorough)
	m.rsa.mu.Lock()
	defer m.rsa.mu.Unlock()
	row, known := m.rsa.rows[kind]
	if !known {
		row = s.probeAlgorithm(ctx, id)
	}
	if row.Usable() {
		if m.rsa.rows == nil {
			m.rsa.rows = make(map[string]hsm.Capability)
		}
		m.rsa.rows[kind] = row
	}
	return row
}

// probeKey makes the key that an algorithm is tried with.
func (s *session) probeKey(ctx context.Context, a *algorithm) (hsm.WrappedKey, error) {
	b := s.probeBinding(a.id)
	if a.decrypt == nil && (s.token.opt.Thorough || a.bits <= smallestRSA) { // everything that is not RSA has no bits
		return s.generate(ctx, a, b)
	}
	if err := s.canGenerateRSA(a.bits); err != nil {
		return hsm.WrappedKey{}, err
	}
	der, spki, err := selftest.Pair(a.id)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	b.PublicKey = spki
	k := hsm.WrappedKey{Binding: b}
	if k.Blob, err = keywrap.Wrap(s.probing.Wrap, der); err != nil {
		return hsm.WrappedKey{}, err
	}
	k.MAC, err = s.mac(ctx, hsm.BindingMessage(k.Binding, k.Blob))
	return k, err
}

const smallestRSA = 2048

// canGenerateRSA asks the device for the range of its generator.
func (s *session) canGenerateRSA(bits int) error {
	info, err := s.token.module.ctx.GetMechanismInfo(s.link.slot, mechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN))
	if err != nil {
		return fmt.Errorf("CKM_RSA_PKCS_KEY_PAIR_GEN: %w", check("C_GetMechanismInfo", err))
	}
	if uint(bits) < info.MinKeySize || uint(bits) > info.MaxKeySize {
		return fmt.Errorf("CKM_RSA_PKCS_KEY_PAIR_GEN makes keys of %d to %d bits", info.MinKeySize, info.MaxKeySize)
	}
	return nil
}

// probeAlgorithm runs a key of an algorithm through its whole life.
func (s *session) probeAlgorithm(ctx context.Context, id hsm.Algorithm) (row hsm.Capability) {
	row.Algorithm = id
	a, err := lookup(id)
	if err != nil {
		row.Missing = "this release has no PKCS#11 mechanism for it"
		return row
	}
	k, err := s.probeKey(ctx, a)
	if err != nil {
		if _, made := errors.AsType[wrapFault](err); made {
			row.Can = hsm.CanGenerate
		}
		row.Missing = err.Error()
		return row
	}
	row.Can = hsm.CanGenerate | hsm.CanWrap
	object, err := s.unwrapKey(ctx, a, k)
	if err != nil {
		unwrapped := false
		if unwrapped, row.Missing = s.whyNotOpened(ctx, a, k, err); unwrapped {
			row.Can |= hsm.CanUnwrap
		}
		return row
	}
	row.Can |= hsm.CanUnwrap
	c, err := s.adopt(a, object, k.Binding.PublicKey)
	if err != nil {
		row.Missing = err.Error()
		return row
	}
	defer c.Release()
	if err := exercise(ctx, c, k.Binding.PublicKey); err != nil {
		row.Missing = fmt.Sprintf("%s: %v", a.useName, err)
		return row
	}
	row.Can = id.Abilities() &^ hsm.CanImport
	if err := s.probeImport(a, k.Blob); err != nil {
		row.Missing = fmt.Sprintf("import: %v", err)
		return row
	}
	row.Can |= hsm.CanImport
	return row
}

// whyNotOpened finds for operators the cause that users must not see: whether the key was unwrapped, and what went wrong.
func (s *session) whyNotOpened(ctx context.Context, a *algorithm, k hsm.WrappedKey, err error) (unwrapped bool, missing string) {
	object, cause := s.rawUnwrap(a, s.wrap, k.Blob)
	if cause != nil {
		return false, fmt.Sprintf("CKM_AES_KEY_WRAP_PAD to unwrap an %s key: %v", a.name, cause)
	}
	defer s.destroyObject(object)
	if a.isPair() {
		cause = s.link.pool.with(ctx, func(w p11.SessionHandle) error { return s.token.module.possesses(w, a, object, k.Binding.PublicKey) })
	}
	if cause == nil {
		cause = err
	}
	return true, fmt.Sprintf("%s: %v", a.useName, cause)
}

// exercise uses a copy and checks the result.
func exercise(ctx context.Context, c *workingCopy, spki []byte) error {
	message := []byte("conclave/v1/probe")
	switch c.algorithm.id.Family() {
	case hsm.FamilySign:
		in := hsm.SignInput{Message: message}
		signature, err := c.Sign(ctx, in)
		if err != nil {
			return err
		}
		return hsm.Verify(c.algorithm.id, in, spki, signature)
	case hsm.FamilyMAC:
		mac, err := c.MAC(ctx, message)
		if err != nil {
			return err
		}
		return c.VerifyMAC(ctx, message, mac)
	case hsm.FamilyCipher:
		sealed, err := c.Encrypt(ctx, message, message)
		if err != nil {
			return err
		}
		_, err = c.Decrypt(ctx, sealed, message)
		return err
	}
	return nil // the proof of possession at its opening has used it
}

// errNotEnforced: a module takes an attribute and does not keep to it.
var errNotEnforced = errors.New("it does not enforce what it promises")

// probeEnforcement tries what an attacker who is logged in would try. Each attempt that the module lets through is named.
func (s *session) probeEnforcement(ctx context.Context) error {
	a, err := lookup(hsm.AES256GCM)
	if err != nil {
		return err
	}
	var blob, exportable []byte
	err = s.link.pool.with(ctx, func(w p11.SessionHandle) (err error) {
		if blob, _, err = s.wrapNew(w, a, false); err != nil {
			return err
		}
		exportable, _, err = s.wrapNew(w, a, true)
		return err
	})
	if err != nil {
		return err
	}
	object, err := s.rawUnwrap(a, s.wrap, blob)
	if err != nil {
		return fmt.Errorf("CKM_AES_KEY_WRAP_PAD to unwrap an AES-256 key: %w", err)
	}
	defer s.destroyObject(object)
	return s.enforced(
		target{"wrap", s.wrap, blob}, target{"wrap-export", s.export, exportable},
		target{"bind", s.bind, nil}, target{"an unwrapped key", object, nil},
	)
}

// enforced attacks on a session of its own: an attempt that succeeds leaves an operation active or objects behind, and both go
// with it.
func (s *session) enforced(targets ...target) error {
	var violations []string
	err := s.link.administrative(func(w p11.SessionHandle) error {
		for _, o := range targets {
			violations = append(violations, s.attacksByDerivation(w, o)...) // first: an attempt that succeeds may leave the session unusable
			violations = append(violations, s.attacksOnValue(w, o)...)
			if o.blob != nil {
				violations = append(violations, s.attacksByMaster(w, o)...)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(violations) > 0 {
		return fmt.Errorf("%w: %s", errNotEnforced, strings.Join(violations, "; "))
	}
	return nil
}

// target is a key that is attacked.
type target struct {
	name   string
	object p11.ObjectHandle
	blob   []byte // something wrapped under it; nil: it wraps nothing
}

// attempt is what must not succeed.
type attempt struct {
	what string // begins with what is not enforced
	err  error
}

func succeeded(attempts ...attempt) (violations []string) {
	for _, a := range attempts {
		if a.err == nil {
			violations = append(violations, a.what)
		}
	}
	return violations
}

func (s *session) attacksOnValue(w p11.SessionHandle, o target) []string {
	m := s.token.module
	change := func(a *p11.Attribute) error { return m.ctx.SetAttributeValue(w, o.object, template{a}) }
	_, copied := m.ctx.CopyObject(w, o.object, template{attr(p11.CKA_TOKEN, false), attr(p11.CKA_EXTRACTABLE, true)})
	return succeeded(
		attempt{"CKA_SENSITIVE: the value of " + o.name + " can be read", m.readable(w, o.object)},
		attempt{"CKA_EXTRACTABLE can be switched on for " + o.name, change(attr(p11.CKA_EXTRACTABLE, true))},
		attempt{"CKA_SENSITIVE can be switched off for " + o.name, change(attr(p11.CKA_SENSITIVE, false))},
		attempt{"CKA_EXTRACTABLE: " + o.name + " can be wrapped", m.wrappable(w, s.wrap, o.object)},
		attempt{"CKA_COPYABLE: an extractable copy of " + o.name + " can be made", copied},
	)
}

func (s *session) attacksByMaster(w p11.SessionHandle, o target) []string {
	m := s.token.module
	unwrap := func(sensitive, extractable bool) error {
		_, err := m.ctx.UnwrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), o.object, o.blob, template{
			attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_AES), attr(p11.CKA_TOKEN, false),
			attr(p11.CKA_SENSITIVE, sensitive), attr(p11.CKA_EXTRACTABLE, extractable),
		})
		return err
	}
	return succeeded(
		attempt{"CKA_UNWRAP_TEMPLATE: a readable key can be unwrapped under " + o.name, unwrap(false, false)},
		attempt{"CKA_UNWRAP_TEMPLATE: an extractable key can be unwrapped under " + o.name, unwrap(true, true)},
		attempt{"CKA_ENCRYPT: " + o.name + " encrypts", m.ctx.EncryptInit(w, mechanism(p11.CKM_AES_ECB), o.object)},
		attempt{"CKA_DECRYPT: " + o.name + " decrypts", m.ctx.DecryptInit(w, mechanism(p11.CKM_AES_ECB), o.object)},
		attempt{"CKA_ALLOWED_MECHANISMS: " + o.name + " wraps by CKM_AES_KEY_WRAP", m.wrapsTransit(w, o.object, p11.CKM_AES_KEY_WRAP)},
	)
}

// readable is nil if the value of a key can be had.
func (m *module) readable(w p11.SessionHandle, o p11.ObjectHandle) error {
	value := make([]byte, keySize)
	defer clear(value)
	_, err := m.read(w, o, p11.CKA_VALUE, value)
	return err
}

func (m *module) wrappable(w p11.SessionHandle, kek, o p11.ObjectHandle) error {
	_, err := m.ctx.WrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), kek, o)
	return err
}

// wrapsTransit is nil if a new, extractable key can be wrapped by mech: all is right but the mechanism.
func (m *module) wrapsTransit(w p11.SessionHandle, kek p11.ObjectHandle, mech uint) error {
	a, err := lookup(hsm.AES256GCM)
	if err != nil {
		return err
	}
	key, _, err := m.newTransit(w, a)
	if err != nil {
		return err
	}
	_, err = m.ctx.WrapKey(w, mechanism(mech), kek, key)
	return errors.Join(err, m.destroyTransit(w, key))
}
