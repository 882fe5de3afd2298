//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto/hmac"
	"fmt"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
)

// session is a master session: a PKCS#11 session that owns the three master objects and every working copy unwrapped under
// them, so that closing it destroys them all. It is used by nothing else; operations run on worker sessions with its handles.
type session struct {
	hsm.Redacted
	*drain.Session
	token *Token
	link  *link // counts the session in until it is closed; nil: sealed from the start
	info  hsm.MasterInfo

	mu     sync.Mutex // one call at a time on handle
	handle p11.SessionHandle

	probing *hsm.Master // its keys, in a session that only tests the device; else nil

	// Valid until the session is destroyed; who uses them is counted in.
	wrap, export, bind p11.ObjectHandle
	canary             canary // of wrap: what the device must be able to unwrap
}

// sealedSession stands for "no master": it refuses everything.
func sealedSession() *session { return &session{Session: drain.Sealed()} }

// newSession opens a session without masters.
func (l *link) newSession() (*session, error) {
	if l.Begin() != nil {
		return nil, l.sealed()
	}
	handle, err := l.ownSession()
	if err != nil {
		l.End()
		return nil, err
	}
	s := &session{token: l.token, link: l, handle: handle}
	s.Session = drain.NewSession(s.close)
	return s, nil
}

// close ends the session, which destroys its objects. Kept masters are objects of the token and stay.
func (s *session) close() {
	s.mu.Lock()
	s.link.closeSession(s.handle)
	s.mu.Unlock()
	s.link.End()
}

// own runs f alone on the owning session.
func (s *session) own(f func(p11.SessionHandle) error) error {
	defer s.link.calls.leave(s.link.calls.enter())
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s.handle)
}

// destroyObject is for objects of this session that are not needed any more. What cannot be destroyed goes with the session.
func (s *session) destroyObject(o p11.ObjectHandle) {
	if s.link.lost.Load() != nil {
		return // so did the object
	}
	err := s.own(func(h p11.SessionHandle) error {
		return check("C_DestroyObject", s.token.module.ctx.DestroyObject(h, o))
	})
	if err != nil && !isGone(err) {
		s.token.log.Error("a working copy was not destroyed and stays until the token is sealed", "err", err)
	}
}

func (s *session) kek(exportable bool) p11.ObjectHandle {
	if exportable {
		return s.export
	}
	return s.wrap
}

// mac computes HMAC-SHA-256 under the bind key. The caller is counted in.
func (s *session) mac(ctx context.Context, message []byte) (mac []byte, err error) {
	err = s.link.pool.with(ctx, func(w p11.SessionHandle) error {
		mac, err = s.token.module.hmac(w, p11.CKM_SHA256_HMAC, s.bind, message, macSize)
		return err
	})
	return mac, err
}

// hmac computes a full-length MAC of size bytes.
func (m *module) hmac(w p11.SessionHandle, mechanism uint, key p11.ObjectHandle, message []byte, size int) ([]byte, error) {
	mac, err := m.sign(w, mechanism, nil, key, message, size)
	if err == nil && len(mac) != size {
		return nil, fmt.Errorf("HMAC by mechanism %#x gave %d bytes, %d were expected", mechanism, len(mac), size)
	}
	return mac, err
}

// checkBinding is hsm.CheckBinding by the device. hsm.ErrWrappedKey.
func (s *session) checkBinding(ctx context.Context, k hsm.WrappedKey) error {
	want, err := s.mac(ctx, hsm.BindingMessage(k.Binding, k.Blob))
	if err != nil {
		return fmt.Errorf("checking a binding: %w", err)
	}
	if !hmac.Equal(want, k.MAC) {
		return fmt.Errorf("%w: its binding", hsm.ErrWrappedKey)
	}
	return nil
}

// generate makes a key in the device, wraps it there and destroys it: only the blob and the public key come out. b is complete
// but for the public key. The caller is counted in.
func (s *session) generate(ctx context.Context, a *algorithm, b hsm.Binding) (hsm.WrappedKey, error) {
	k := hsm.WrappedKey{Binding: b}
	err := s.link.pool.with(ctx, func(w p11.SessionHandle) (err error) {
		k.Blob, k.Binding.PublicKey, err = s.wrapNew(w, a, b.Exportable)
		return err
	})
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	if n := len(k.Blob); n < a.minBlob || n > a.maxBlob {
		return hsm.WrappedKey{}, wrapFault{fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key gave %d bytes, from %d to %d are right: not RFC 5649",
			a.name, n, a.minBlob, a.maxBlob)}
	}
	if k.MAC, err = s.mac(ctx, hsm.BindingMessage(k.Binding, k.Blob)); err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("binding a key: %w", err)
	}
	return k, nil
}

// wrapNew gives the blob and the SubjectPublicKeyInfo of a new key.
func (s *session) wrapNew(w p11.SessionHandle, a *algorithm, exportable bool) (blob, spki []byte, err error) {
	m := s.token.module
	secret, public, err := m.newTransit(w, a)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if gone := m.destroyTransit(w, secret, public); err == nil {
			err = gone
		}
	}()
	if a.isPair() {
		point, err := a.public(m, w, public)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the public %s key: %w", a.name, err)
		}
		if spki, err = hsm.MarshalPublicKey(a.id, point); err != nil {
			return nil, nil, fmt.Errorf("the device made no %s public key: %w", a.name, err)
		}
	}
	blob, err = m.ctx.WrapKey(w, mechanism(p11.CKM_AES_KEY_WRAP_PAD), s.kek(exportable), secret)
	if err != nil {
		return nil, nil, wrapFault{fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key: %w", a.name, check("C_WrapKey", err))}
	}
	return blob, spki, nil
}

// wrapFault: the key was made, and the device did not wrap it.
type wrapFault struct{ error }

func (f wrapFault) Unwrap() error { return f.error }

// newTransit makes an extractable key or pair as objects of session w.
func (m *module) newTransit(w p11.SessionHandle, a *algorithm) (secret, public p11.ObjectHandle, err error) {
	if a.isPair() {
		half := template{attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, false), attr(p11.CKA_VERIFY, true)}.with(a.parameters...)
		public, secret, err = m.ctx.GenerateKeyPair(w, mechanism(a.generator), half, a.transitTemplate())
		err = check("C_GenerateKeyPair", err)
	} else {
		secret, err = m.ctx.GenerateKey(w, mechanism(a.generator), a.transitTemplate())
		err = check("C_GenerateKey", err)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", a.generatorName, err)
	}
	return secret, public, nil
}

// destroyTransit: an extractable key that stayed could be wrapped under any key, so a failure fails the generation; closing the
// token destroys what was left.
func (m *module) destroyTransit(w p11.SessionHandle, objects ...p11.ObjectHandle) error {
	var failed error
	for _, o := range objects {
		if o == 0 {
			continue
		}
		if err := check("C_DestroyObject", m.ctx.DestroyObject(w, o)); err != nil {
			failed = fmt.Errorf("destroying a key after wrapping it: %w", err)
		}
	}
	return failed
}
