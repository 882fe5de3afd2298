package soft

import (
	"bytes"
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
)

var _ hsm.Rewrapper = (*Token)(nil)

// rewrapping holds two generations. It is a copy of the open master session, so that it ends with it.
type rewrapping struct {
	hsm.Redacted
	*drain.Copy
	from, to *session
	region   *region
}

// BeginRewrap implements hsm.Rewrapper.
func (t *Token) BeginRewrap(ctx context.Context, from, to *hsm.Master) (hsm.Rewrapping, error) {
	s, err := t.turns.Enter(ctx, "rewrap")
	if err != nil {
		return nil, err
	}
	defer s.End()
	if err := hsm.ValidateRewrap(s.info, from, to); err != nil {
		return nil, err
	}
	r := &rewrapping{region: t.region}
	if r.from, err = openSession(from, t.region); err != nil {
		return nil, err
	}
	if r.to, err = openSession(to, t.region); err != nil {
		r.from.Shut()
		return nil, err
	}
	r.Copy = s.Adopt(func() { r.from.Shut(); r.to.Shut() })
	return r, nil
}

// End implements hsm.Rewrapping.
func (r *rewrapping) End() { r.Release() }

// Rewrap implements hsm.Rewrapping.
func (r *rewrapping) Rewrap(ctx context.Context, k hsm.WrappedKey) (hsm.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("rewrap: %w", err)
	}
	if err := r.Begin(); err != nil {
		return hsm.WrappedKey{}, err
	}
	defer r.Copy.End()
	return erased(func() (hsm.WrappedKey, error) { return r.rewrap(k) })
}

func (r *rewrapping) rewrap(k hsm.WrappedKey) (hsm.WrappedKey, error) {
	material, err := r.from.unwrapKey(k)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	defer clear(material)
	// What is no key of its algorithm must not get a fresh MAC.
	opened := bytes.Clone(material) // some kinds of keys take and wipe it
	defer clear(opened)
	usable, err := openMaterial(k.Binding.Algorithm, opened, k.Binding.PublicKey, r.region)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	usable.wipe()
	b := k.Binding
	b.Generation = r.to.info.Generation
	return r.to.wrapKey(b, material)
}
