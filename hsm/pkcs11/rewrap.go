//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

var _ hsm.Rewrapper = (*Token)(nil)

const (
	labelRewrap       = "conclave-rewrap"
	labelRewrapTarget = "conclave-rewrap-target"
)

// rewrapTemplate is what the device imposes on what a rewrap handle unwraps: still unreadable, but it can be wrapped.
func rewrapTemplate() template {
	return template{attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, true)}
}

// rewrapping is two sessions of its own: one owns two generations of masters and does nothing else, keys are moved on the other, which can be
// replaced. It is a copy of the open master session, so that sealing ends it, and its handles with it.
type rewrapping struct {
	hsm.Redacted
	*drain.Copy
	session *session // of the open master
	link    *link
	from    rewrapSide
	to      rewrapSide

	owner p11.SessionHandle
	mu    sync.Mutex // one key at a time
	work  p11.SessionHandle
}

type rewrapSide struct {
	generation         uint32
	clusterID          string
	wrap, export, bind p11.ObjectHandle
}

func (r rewrapSide) kek(exportable bool) p11.ObjectHandle {
	if exportable {
		return r.export
	}
	return r.wrap
}

// BeginRewrap implements hsm.Rewrapper. It is refused (ErrModule) if the device lets a handle of it unwrap something readable.
func (t *Token) BeginRewrap(ctx context.Context, from, to *hsm.Master) (hsm.Rewrapping, error) {
	s, err := t.enter(ctx, "rewrap")
	if err != nil {
		return nil, err
	}
	defer s.End()
	if err := hsm.ValidateRewrap(s.info, from, to); err != nil {
		return nil, err
	}
	r := &rewrapping{session: s, link: s.link}
	if err := r.start(from, to); err != nil {
		r.close()
		return nil, fmt.Errorf("rewrap: %w", s.link.fault(err))
	}
	r.Copy = s.Adopt(r.close)
	return r, nil
}

func (r *rewrapping) start(from, to *hsm.Master) (err error) {
	if r.owner, err = r.link.ownSession(); err != nil {
		return err
	}
	if r.work, err = r.link.ownSession(); err != nil {
		return err
	}
	return r.load(from, to)
}

func (r *rewrapping) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range []p11.SessionHandle{r.work, r.owner} {
		if s != 0 {
			r.link.closeSession(s)
		}
	}
}

// load imports the six keys as objects of the session.
func (r *rewrapping) load(from, to *hsm.Master) error {
	defer r.link.calls.leave(r.link.calls.enter())
	r.from.generation, r.from.clusterID = from.Generation, from.ClusterID
	r.to.generation, r.to.clusterID = to.Generation, to.ClusterID
	opening, release := nested(p11.CKA_UNWRAP_TEMPLATE, rewrapTemplate())
	defer release()
	unwraps := usage(p11.CKA_UNWRAP).with(mechanisms(p11.CKM_AES_KEY_WRAP_PAD), opening)
	wraps := usage(p11.CKA_WRAP).with(mechanisms(p11.CKM_AES_KEY_WRAP_PAD))
	signs := usage(p11.CKA_SIGN, p11.CKA_VERIFY).with(mechanisms(p11.CKM_SHA256_HMAC))
	for _, k := range []struct {
		object  *p11.ObjectHandle
		label   string
		keyType uint
		value   []byte
		rights  template
	}{
		{&r.from.wrap, labelRewrap, p11.CKK_AES, from.Wrap, unwraps},
		{&r.from.export, labelRewrap, p11.CKK_AES, from.WrapExport, unwraps},
		{&r.from.bind, labelRewrap, p11.CKK_GENERIC_SECRET, from.Bind, signs},
		{&r.to.wrap, labelRewrapTarget, p11.CKK_AES, to.Wrap, wraps},
		{&r.to.export, labelRewrapTarget, p11.CKK_AES, to.WrapExport, wraps},
		{&r.to.bind, labelRewrapTarget, p11.CKK_GENERIC_SECRET, to.Bind, signs},
	} {
		var err error
		*k.object, err = r.link.token.module.create(r.owner, masterTemplate(k.label, nil, false, k.keyType, k.value).with(k.rights...))
		if err != nil {
			return fmt.Errorf("importing a key of the %s: %w", k.label, err)
		}
	}
	return errors.Join(r.attack(r.from.wrap, from.Wrap), r.attack(r.from.export, from.WrapExport))
}

// attack tries to unwrap something readable under a rewrap handle. Whoever could would read the whole catalog.
func (r *rewrapping) attack(handle p11.ObjectHandle, kek []byte) error {
	blob, err := keywrap.Wrap(kek, make([]byte, keySize))
	if err != nil {
		return err
	}
	m := r.link.token.module
	o, err := m.ctx.UnwrapKey(r.work, mechanism(p11.CKM_AES_KEY_WRAP_PAD), handle, blob, template{
		attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_AES), attr(p11.CKA_TOKEN, false),
		attr(p11.CKA_SENSITIVE, false), attr(p11.CKA_EXTRACTABLE, true),
	})
	if err != nil {
		return nil // as it should
	}
	return r.link.token.refused(errors.Join(fmt.Errorf("%w: CKA_UNWRAP_TEMPLATE of a rewrap handle", errNotEnforced), m.destroyTransit(r.work, o)))
}

// End implements hsm.Rewrapping.
func (r *rewrapping) End() { r.Release() }

// Rewrap implements hsm.Rewrapping.
func (r *rewrapping) Rewrap(ctx context.Context, k hsm.WrappedKey) (hsm.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("rewrap: %w", err)
	}
	if err := r.Begin(); err != nil {
		return hsm.WrappedKey{}, r.link.token.why(err)
	}
	defer r.Copy.End()
	if err := k.Validate(); err != nil {
		return hsm.WrappedKey{}, err
	}
	a, err := r.link.token.usable(k.Binding.Algorithm)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	if k.Binding.Generation != r.from.generation {
		return hsm.WrappedKey{}, fmt.Errorf("%w: %d, a rekey from %d", hsm.ErrGeneration, k.Binding.Generation, r.from.generation)
	}
	defer r.link.calls.leave(r.link.calls.enter())
	r.mu.Lock()
	defer r.mu.Unlock()
	out, err := r.onGoodSession(func() (hsm.WrappedKey, error) { return r.rewrap(ctx, a, k) })
	if err != nil {
		return hsm.WrappedKey{}, r.link.fault(err)
	}
	return out, nil
}

// onGoodSession runs f, and once more on another session if an operation was left active on this one, as pool.lend does.
func (r *rewrapping) onGoodSession(f func() (hsm.WrappedKey, error)) (out hsm.WrappedKey, err error) {
	if r.work != 0 {
		if out, err = f(); classOf(err) != busy {
			return out, err
		}
		r.link.closeSession(r.work)
	}
	var again error
	if r.work, again = r.link.ownSession(); again != nil { // 0: the next key tries again
		return out, errors.Join(err, again)
	}
	return f()
}

func (r *rewrapping) rewrap(ctx context.Context, a *algorithm, k hsm.WrappedKey) (out hsm.WrappedKey, err error) {
	m := r.link.token.module
	mac, err := m.hmac(r.work, p11.CKM_SHA256_HMAC, r.from.bind, hsm.BindingMessage(k.Binding, k.Blob), macSize)
	if err != nil {
		return out, fmt.Errorf("checking a binding: %w", err)
	}
	if n := len(k.Blob); !hmac.Equal(mac, k.MAC) || k.Binding.ClusterID != r.from.clusterID || n < a.minBlob || n > a.maxBlob {
		return out, fmt.Errorf("%w: its binding", hsm.ErrWrappedKey)
	}
	object, err := r.unwrap(ctx, a, k)
	if err != nil {
		return out, err
	}
	defer func() {
		if gone := m.destroyTransit(r.work, object); err == nil {
			err = gone
		}
	}()
	err = r.session.judgeBlob(ctx, a, func() error { return m.examine(r.work, a, object, k.Binding.PublicKey, true) })
	if err != nil {
		return out, err
	}
	out.Binding = k.Binding
	out.Binding.Generation = r.to.generation
	out.Blob, err = m.ctx.WrapKey(r.work, mechanism(p11.CKM_AES_KEY_WRAP_PAD), r.to.kek(k.Binding.Exportable), object)
	if err != nil {
		return out, fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key: %w", a.name, check("C_WrapKey", err))
	}
	if n := len(out.Blob); n < a.minBlob || n > a.maxBlob {
		return out, fmt.Errorf("CKM_AES_KEY_WRAP_PAD of an %s key gave %d bytes", a.name, n)
	}
	out.MAC, err = m.hmac(r.work, p11.CKM_SHA256_HMAC, r.to.bind, hsm.BindingMessage(out.Binding, out.Blob), macSize)
	return out, err
}

// unwrap makes what can be wrapped again.
func (r *rewrapping) unwrap(ctx context.Context, a *algorithm, k hsm.WrappedKey) (object p11.ObjectHandle, err error) {
	kek, pad := r.from.kek(k.Binding.Exportable), mechanism(p11.CKM_AES_KEY_WRAP_PAD)
	err = r.session.judgeBlob(ctx, a, func() (err error) {
		object, err = r.link.token.module.ctx.UnwrapKey(r.work, pad, kek, k.Blob, a.transitCopy())
		return check("C_UnwrapKey", err)
	})
	return object, err
}
