//go:build cgo && unix

package pkcs11

import (
	"errors"
	"fmt"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
)

// link is one life of the login: the slot, the root session, the workers, and the handles of the node's keys. When the module has
// lost it, it is drained and replaced as a whole; no handle of it reaches the module afterwards. Whoever calls the module is
// counted in, master sessions for as long as they are open.
type link struct {
	*drain.Session
	token *Token
	slot  uint
	// root holds the login, which ends with the last session of the process. It does nothing else.
	root p11.SessionHandle
	pool *pool

	identity, exchange p11.ObjectHandle

	calls  *watch
	lost   atomic.Pointer[error] // hsm.ErrLost and why
	shrunk atomic.Bool
}

// newLink makes a link to a token that was found. The caller logs in.
func (t *Token) newLink(found slotOf) *link {
	l := &link{token: t, slot: found.id, calls: newWatch()}
	l.pool = newPool(workers(t.opt.Sessions, found.token), l.openSession, l.closeSession, l.tellShrunk, l.calls)
	l.Session = drain.NewSession(l.close)
	return l
}

// reservedSessions are what a token needs beside its workers: root, master, and two administrative ones.
const reservedSessions = 4

// workers bounds the configured number by what the device says it has (0 and all ones mean that it does not say).
func workers(configured int, token p11.TokenInfo) int {
	for _, most := range []uint{token.MaxSessionCount, token.MaxRwSessionCount} {
		if most != 0 && most != ^uint(0) && most < reservedSessions+uint(configured) {
			configured = max(int(most)-reservedSessions, 1)
		}
	}
	return configured
}

func (l *link) tellShrunk(sessions int32, err error) {
	if l.shrunk.CompareAndSwap(false, true) {
		l.token.log.Warn("the device has fewer sessions than configured; operations wait for each other", "sessions", sessions, "err", err)
	}
}

// close ends all sessions, the root session last, which logs out. Nobody is counted in any more.
func (l *link) close() {
	l.pool.shut()
	if l.root != 0 {
		l.closeSession(l.root)
	}
}

// openSession opens a session that can make token objects; the login is the process's.
func (l *link) openSession() (p11.SessionHandle, error) {
	defer l.calls.leave(l.calls.enter())
	s, err := l.token.module.ctx.OpenSession(l.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err = check("C_OpenSession", err); classOf(err) == limit {
		return 0, fmt.Errorf("%w: the device has no session left; configure fewer (sessions), or end other programs that use it", err)
	}
	return s, err
}

// ownSession opens a session outside the pool; if the device has none left, an idle worker's is given up for it.
func (l *link) ownSession() (p11.SessionHandle, error) {
	s, err := l.openSession()
	if classOf(err) == limit && l.pool.yield() {
		return l.openSession()
	}
	return s, err
}

// closeSession: there is nothing to do about a session that cannot be closed but to say so.
func (l *link) closeSession(s p11.SessionHandle) {
	defer l.calls.leave(l.calls.enter())
	err := check("C_CloseSession", l.token.module.ctx.CloseSession(s))
	if err != nil && !isGone(err) && l.lost.Load() == nil {
		l.token.log.Error("a session was not closed", "err", err)
	}
}

// administrative runs f on a session of its own, so that an order to forget does not queue behind operations. The caller is
// counted in.
func (l *link) administrative(f func(p11.SessionHandle) error) error {
	defer l.calls.leave(l.calls.enter())
	w, err := l.ownSession()
	if err != nil {
		return err
	}
	defer l.closeSession(w)
	return f(w)
}

// fault looks at what a module answered to a call on this link, whose caller is counted in. An answer that means that nothing made
// before works seals the token from this moment on, and has it rebuilt.
func (l *link) fault(err error) error {
	switch classOf(err) {
	case lost, dropped: // of a master or of a node key, which is as good as all: working copies have workingCopy.fault
		return l.lose(err)
	case doubt:
		select {
		case l.token.doubts <- struct{}{}:
		default:
		}
	}
	return failed(err)
}

// lose seals the token because of err, and gives what callers are told.
func (l *link) lose(err error) error {
	reason := fmt.Errorf("%w: %w; it comes back by itself with the device, and is unsealed then", hsm.ErrLost, err)
	if l.lost.CompareAndSwap(nil, &reason) {
		l.token.log.Error("the token is lost: keys are refused, the device is looked for again; check the device and its connection",
			"serial", l.token.info.Serial, "err", err)
		l.pool.stop(l.sealed())
		if s, current := l.token.turns.Current(); current == nil {
			s.Shut()
		}
		l.Shut()
		l.token.losses <- l
	}
	return l.sealed()
}

// sealed is hsm.ErrSealed with the reason, if there is one.
func (l *link) sealed() error {
	if reason := l.lost.Load(); reason != nil {
		return fmt.Errorf("%w: %w", hsm.ErrSealed, *reason)
	}
	return hsm.ErrSealed
}

// begin counts a call of the module in; the caller ends it. hsm.ErrClosed; hsm.ErrSealed with hsm.ErrLost.
func (t *Token) begin() (*link, error) {
	l := t.link.Load()
	if l.Begin() == nil {
		return l, nil
	}
	if _, err := t.turns.Current(); err != nil {
		return nil, err
	}
	return nil, l.sealed()
}

// why says more than hsm.ErrSealed if the token did not choose to be sealed: that it is lost, or was, with its master.
func (t *Token) why(err error) error {
	if !errors.Is(err, hsm.ErrSealed) {
		return err
	}
	if l := t.link.Load(); l.lost.Load() != nil {
		return l.sealed()
	}
	if s, current := t.turns.Current(); current == nil && s.link != nil && s.link.lost.Load() != nil {
		return fmt.Errorf("%w: its device was lost and is back; the master has to be opened again", hsm.ErrSealed)
	}
	return err
}

// administrative is link.administrative on the present link.
func (t *Token) administrative(f func(p11.SessionHandle) error) error {
	l, err := t.begin()
	if err != nil {
		return err
	}
	defer l.End()
	return l.fault(l.administrative(f))
}

// always runs f on a worker session for what works while sealed and has no context.
func (t *Token) always(what string, f func(*link, p11.SessionHandle) error) error {
	l, err := t.begin()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer l.End()
	if err := l.pool.always(func(w p11.SessionHandle) error { return f(l, w) }); err != nil {
		return fmt.Errorf("%s: %w", what, l.fault(err))
	}
	return nil
}
