//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// errMaterial: what the blob holds is no key of the algorithm, or not the one whose public key is bound to it.
var errMaterial = fmt.Errorf("%w: its material", hsm.ErrWrappedKey)

// unwrapKey checks everything that can be checked before the device sees the blob, then unwraps it and checks the copy. The
// caller is counted in.
func (s *session) unwrapKey(ctx context.Context, a *algorithm, k hsm.WrappedKey) (p11.ObjectHandle, error) {
	// Before the MAC: each generation has a bind key of its own, so the MAC of another one cannot be checked at all. The claim is
	// believed only to refuse.
	if k.Binding.Generation != s.info.Generation {
		return 0, fmt.Errorf("%w: %d, open is %d", hsm.ErrGeneration, k.Binding.Generation, s.info.Generation)
	}
	if err := s.checkBinding(ctx, k); err != nil {
		return 0, err
	}
	if k.Binding.ClusterID != s.info.ClusterID {
		return 0, fmt.Errorf("%w: of another cluster", hsm.ErrWrappedKey)
	}
	if n := len(k.Blob); n < a.minBlob || n > a.maxBlob {
		return 0, errMaterial // SoftHSM would unwrap 40 bytes as an AES key
	}
	var object p11.ObjectHandle
	err := s.judgeBlob(ctx, a, func() (err error) {
		object, err = s.rawUnwrap(a, s.kek(k.Binding.Exportable), k.Blob)
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := s.judgeBlob(ctx, a, func() error { return s.examine(ctx, a, object, k.Binding.PublicKey) }); err != nil {
		s.destroyObject(object)
		return 0, err
	}
	return object, nil
}

// rawUnwrap makes an object of the master session.
func (s *session) rawUnwrap(a *algorithm, kek p11.ObjectHandle, blob []byte) (object p11.ObjectHandle, err error) {
	if len(blob) == 0 {
		return 0, errMaterial // the binding panics
	}
	err = s.own(func(h p11.SessionHandle) error {
		object, err = s.token.module.ctx.UnwrapKey(h, mechanism(p11.CKM_AES_KEY_WRAP_PAD), kek, blob, a.copyTemplate())
		return check("C_UnwrapKey", err)
	})
	return object, err
}

// examine looks at a fresh copy: RFC 5649 has no associated data, and SoftHSM does not look at lengths. A private key must sign
// for the bound public key, because a device cannot derive the point of an unwrapped one; an AES key must encrypt, because a
// device refuses only then one of a wrong length.
func (s *session) examine(ctx context.Context, a *algorithm, object p11.ObjectHandle, spki []byte) error {
	err := s.link.pool.with(ctx, func(w p11.SessionHandle) error {
		return s.token.module.examine(w, a, object, spki, false)
	})
	if classOf(err) == dropped {
		return fmt.Errorf("%w: a fresh one: %v", hsm.ErrHandle, err) // %v: it is not a loss of the token
	}
	return err
}

// examine gives what is wrong with a fresh copy.
func (m *module) examine(w p11.SessionHandle, a *algorithm, object p11.ObjectHandle, spki []byte, extractable bool) error {
	err := m.isProtected(w, object, extractable)
	if err == nil && a.inspect != nil {
		err = a.inspect(m, w, object)
	}
	switch {
	case err != nil:
	case a.isPair():
		err = m.possesses(w, a, object, spki)
	case a.id.Family() == hsm.FamilyCipher:
		_, err = m.gcm(false, w, object, make([]byte, nonceSize), nil, nil, make([]byte, 0, tagSize))
	}
	return err
}

// possesses proves that a private key belongs to the bound public key, by the one thing that it is for.
func (m *module) possesses(w p11.SessionHandle, a *algorithm, object p11.ObjectHandle, spki []byte) error {
	public, err := hsm.ParsePublicKey(a.id, spki)
	if err != nil {
		return err
	}
	message := []byte("conclave/v1/possession")
	switch a.id.Family() {
	case hsm.FamilySign:
		in := hsm.SignInput{Message: message}
		signature, err := a.sign(m.functions, w, object, in, public)
		if err != nil {
			return err
		}
		return hsm.Verify(a.id, in, spki, signature)
	case hsm.FamilyDecrypt:
		return m.oaepWorks(w, a, object, public)
	}
	mine, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	bound, err := ecdh.P256().NewPublicKey(public)
	if err != nil {
		return err
	}
	want, err := mine.ECDH(bound)
	if err != nil {
		return err
	}
	defer clear(want)
	got, err := a.agree(m, w, object, mine.PublicKey().Bytes())
	defer clear(got)
	if err == nil && !hmac.Equal(got, want) {
		err = errMaterial
	}
	return err
}

// isRestricted checks that the device gave a key the protection that it was asked for.
func (m *module) isRestricted(w p11.SessionHandle, object p11.ObjectHandle) error {
	return m.isProtected(w, object, false)
}

func (m *module) isProtected(w p11.SessionHandle, object p11.ObjectHandle, mayLeave bool) error {
	sensitive, err := m.flag(w, object, p11.CKA_SENSITIVE)
	if err != nil {
		return err
	}
	extractable, err := m.flag(w, object, p11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	if !sensitive || extractable != mayLeave {
		return fmt.Errorf("%w: an object has CKA_SENSITIVE %v and CKA_EXTRACTABLE %v", ErrModule, sensitive, extractable)
	}
	return nil
}
