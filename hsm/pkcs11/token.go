//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/internal/memlock"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// Available says whether this binary can load PKCS#11 modules.
const Available = true

var (
	_ hsm.Token   = (*Token)(nil)
	_ keyuse.Port = (*Token)(nil)
)

// Token is a token of a PKCS#11 module. Use Create or Open.
type Token struct {
	hsm.Redacted
	module   *module
	opt      Options
	starting *starting
	serial   string // as the device writes it
	info     hsm.Info
	log      *slog.Logger

	turns *drain.Turns[*session]
	link  atomic.Pointer[link] // never nil; the supervisor replaces a lost one
	pin   *memlock.Secret

	// Of the supervisor (supervise.go). A link is sent to losses once, when it is lost, and there is never more than one.
	losses              chan *link
	doubts              chan struct{} // somebody had an answer that makes one want to look at the device
	closing, supervised chan struct{}
	linked              bool // the link counts at the module; only the supervisor touches it, and who comes after it

	identity     *identity
	exchange     *exchange
	capabilities []hsm.Capability

	step func(string) error // told before each change of what the token keeps; tests stop it there
}

// Info implements hsm.Token.
func (t *Token) Info() hsm.Info { return t.info }

// Capabilities implements hsm.Token.
func (t *Token) Capabilities() []hsm.Capability { return slices.Clone(t.capabilities) }

// Identity implements hsm.Token.
func (t *Token) Identity() crypto.Signer { return t.identity }

// Exchange implements hsm.Token.
func (t *Token) Exchange() ecdh.KeyExchanger { return t.exchange }

// maxRandom bounds one C_GenerateRandom: devices have limits, and none says which.
const maxRandom = 1 << 10

// Random implements hsm.Token.
func (t *Token) Random(b []byte) error {
	err := t.always("reading random bytes", func(_ *link, w p11.SessionHandle) error {
		for part := range slices.Chunk(b, maxRandom) {
			if err := t.module.random(w, part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		clear(b)
	}
	return err
}

// enter finds the session and counts an operation in; the caller ends it.
func (t *Token) enter(ctx context.Context, operation string) (*session, error) {
	s, err := t.turns.Enter(ctx, operation)
	return s, t.why(err)
}

// usable is the row of an algorithm. hsm.ErrUnsupported, with what the device lacks.
func (t *Token) usable(id hsm.Algorithm) (*algorithm, error) {
	for _, c := range t.capabilities {
		if c.Algorithm == id && !c.Usable() {
			return nil, fmt.Errorf("%w: %s on %s: %s", hsm.ErrUnsupported, id, t.info.Model, c.Missing)
		}
	}
	return lookup(id)
}

// Generate implements hsm.Token: the key is made and wrapped inside the device.
func (t *Token) Generate(ctx context.Context, b hsm.Binding, exportable bool) (hsm.WrappedKey, error) {
	if err := b.ValidateSubject(); err != nil {
		return hsm.WrappedKey{}, err
	}
	s, err := t.enter(ctx, "generate")
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	defer s.End()
	if b.ClusterID != s.info.ClusterID {
		return hsm.WrappedKey{}, fmt.Errorf("%w: a key of cluster %q under the master of %q", hsm.ErrInput, b.ClusterID, s.info.ClusterID)
	}
	a, err := t.usable(b.Algorithm)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	b.Generation, b.PublicKey, b.Exportable = s.info.Generation, nil, exportable
	k, err := s.generate(ctx, a, b)
	if err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("generating: %w", s.link.fault(err))
	}
	return k, nil
}

// Open implements keyuse.Port.
func (t *Token) Open(ctx context.Context, k hsm.WrappedKey) (keyuse.Key, error) {
	s, err := t.enter(ctx, "open")
	if err != nil {
		return nil, err
	}
	defer s.End()
	if err := k.Validate(); err != nil {
		return nil, err
	}
	a, err := t.usable(k.Binding.Algorithm)
	if err != nil {
		return nil, err
	}
	object, err := s.unwrapKey(ctx, a, k)
	if err != nil {
		return nil, s.link.fault(err)
	}
	return s.adopt(a, object, k.Binding.PublicKey)
}

// ImportMaster implements hsm.Token. What is kept follows the import: with persist m replaces what was kept, without it nothing
// stays kept, so that a restart never brings back an older generation. An error leaves the token sealed, unless it is
// hsm.ErrInput or hsm.ErrClosed, which change nothing.
func (t *Token) ImportMaster(ctx context.Context, m *hsm.Master, persist *hsm.Persistence) error {
	if err := validateMaster(m, persist); err != nil {
		return err
	}
	release, err := t.turns.Administer(ctx)
	if err != nil {
		return err
	}
	defer release()
	l, err := t.begin()
	if err != nil {
		return err
	}
	defer l.End()
	if err := t.turns.Drain(ctx); err != nil {
		return err
	}
	var s *session
	err = l.administrative(func(w p11.SessionHandle) error {
		if persist == nil {
			s, err = t.importUnkept(ctx, l, w, m)
		} else {
			s, err = t.importKept(ctx, l, w, m, *persist)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("importing a master: %w", l.fault(err))
	}
	return t.install(s)
}

// install makes s the master session, unless its link was lost meanwhile: lose ends the session that it finds installed, and what
// is installed after that is ended here.
func (t *Token) install(s *session) error {
	if err := t.turns.Install(s); err != nil {
		return err
	}
	if s.link.lost.Load() != nil {
		s.Shut()
		return s.link.sealed()
	}
	return nil
}

func (t *Token) importUnkept(ctx context.Context, l *link, w p11.SessionHandle, m *hsm.Master) (*session, error) {
	s, err := t.importMaster(ctx, l, m, nil, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	if err := t.forget(w); err != nil {
		s.Shut()
		return nil, err
	}
	return s, nil
}

func (t *Token) importKept(ctx context.Context, l *link, w p11.SessionHandle, m *hsm.Master, p hsm.Persistence) (*session, error) {
	r, err := t.newRecord(w, p)
	if err != nil {
		return nil, err
	}
	s, err := t.importMaster(ctx, l, m, r, t.step)
	if err == nil {
		if err = t.keep(ctx, w, s, r); err != nil {
			s.Shut()
		}
	}
	// In any case: after a success the earlier master goes, after a failure what was made of the new one.
	if swept := t.sweep(w); err == nil && swept != nil {
		s.Shut()
		err = swept
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// RestoreMaster implements hsm.Token.
func (t *Token) RestoreMaster(ctx context.Context) (hsm.Persistence, error) {
	release, err := t.turns.Administer(ctx)
	if err != nil {
		return hsm.Persistence{}, err
	}
	defer release()
	l, err := t.begin()
	if err != nil {
		return hsm.Persistence{}, err
	}
	defer l.End()
	var r *record
	err = l.administrative(func(w p11.SessionHandle) error {
		if err := t.sweep(w); err != nil { // what a crash left of another import
			return err
		}
		all, err := t.module.records(w)
		if err == nil {
			r, err = current(all)
		}
		return err
	})
	if err != nil {
		return hsm.Persistence{}, fmt.Errorf("restoring a master: %w", l.fault(err))
	}
	if err := t.turns.Drain(ctx); err != nil {
		return hsm.Persistence{}, err
	}
	s, err := t.restore(ctx, l, r)
	if err != nil {
		return hsm.Persistence{}, fmt.Errorf("restoring a master: %w", l.fault(err))
	}
	return r.Persistence, t.install(s)
}

// Master implements hsm.Token.
func (t *Token) Master() (hsm.MasterInfo, error) {
	s, err := t.turns.Current()
	if err != nil {
		return hsm.MasterInfo{}, err
	}
	if err := s.Begin(); err != nil {
		return hsm.MasterInfo{}, t.why(err)
	}
	defer s.End()
	return s.info, nil
}

// Seal implements hsm.Token. New work is refused from the first moment, whatever else fails. If ctx ends first the error says
// so, the token stays sealed, and the master session is closed when the last operation under way ends; another Seal waits for
// that.
func (t *Token) Seal(ctx context.Context, forget bool) error {
	if !forget {
		return t.turns.Seal(ctx, nil)
	}
	return t.turns.Seal(ctx, func() error { return t.administrative(t.forget) })
}

// Close implements hsm.Token: it waits for operations under way, because a module crashes if it is finalised under them. A call that does
// not return within Options.Patience is left behind (ErrHung), with a goroutine that ends the token if it returns after all. A second
// call of Close does nothing.
func (t *Token) Close() error {
	ended := make(chan error, 1)
	go func() { ended <- t.shutDown() }()
	patience := time.NewTimer(t.opt.Patience)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		return fmt.Errorf("closing token %s: %w within %s", t.info.Serial, ErrHung, t.opt.Patience)
	}
}

func (t *Token) shutDown() error {
	if !t.turns.Close() {
		return nil
	}
	close(t.closing)
	<-t.supervised
	t.pin.Wipe()
	return t.end()
}
