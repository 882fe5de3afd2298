//go:build cgo && unix

package pkcs11

import (
	"crypto/rand"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// labelImport is of a key that lives for one test of the device.
const labelImport = "conclave-import"

// probeImport shows that a key which was made elsewhere can be taken in: unwrapped under a key that is no master into what cannot be read
// and can be wrapped, and wrapped under the master. blob is a key of the algorithm under the probing master.
func (s *session) probeImport(a *algorithm, blob []byte) error {
	material, err := keywrap.Unwrap(s.probing.Wrap, blob)
	if err != nil {
		return err
	}
	defer clear(material)
	return s.own(func(w p11.SessionHandle) error {
		return s.token.module.withForeign(w, a, material, func(object p11.ObjectHandle) error { return s.wrapForeign(w, a, object) })
	})
}

// withForeign unwraps material under a key that is made for it, into what cannot be read and can be wrapped, and lends the object to f.
func (m *module) withForeign(w p11.SessionHandle, a *algorithm, material []byte, f func(p11.ObjectHandle) error) (err error) {
	kek := make([]byte, keySize)
	defer clear(kek)
	if _, err := rand.Read(kek); err != nil {
		return err
	}
	foreign, err := keywrap.Wrap(kek, material)
	if err != nil {
		return err
	}
	opening, release := nested(p11.CKA_UNWRAP_TEMPLATE, rewrapTemplate())
	defer release()
	handle, err := m.create(w, masterTemplate(labelImport, nil, false, p11.CKK_AES, kek).
		with(usage(p11.CKA_UNWRAP).with(mechanisms(p11.CKM_AES_KEY_WRAP_PAD), opening)...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.destroyTransit(w, handle)) }()
	object, err := m.ctx.UnwrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), handle, foreign, a.transitCopy())
	if err != nil {
		return fmt.Errorf("CKM_AES_KEY_WRAP_PAD to unwrap an %s key: %w", a.name, check("C_UnwrapKey", err))
	}
	defer func() { err = errors.Join(err, m.destroyTransit(w, object)) }()
	return f(object)
}

func (s *session) wrapForeign(w p11.SessionHandle, a *algorithm, object p11.ObjectHandle) error {
	m := s.token.module
	if err := m.isProtected(w, object, true); err != nil {
		return err
	}
	wrapped, err := m.ctx.WrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), s.wrap, object)
	if err != nil {
		return fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key: %w", a.name, check("C_WrapKey", err))
	}
	if n := len(wrapped); n < a.minBlob || n > a.maxBlob {
		return fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key gave %d bytes, from %d to %d are right", a.name, n, a.minBlob, a.maxBlob)
	}
	return nil
}
