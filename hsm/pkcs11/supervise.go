//go:build cgo && unix

package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	stdecdsa "crypto/ecdsa"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

const (
	// beat is how often an idle device is looked at, so that a token taken out is noticed without a user.
	beat = 5 * time.Second
	// beatAgain is how soon it is looked at again after an answer that may have been an accident.
	beatAgain = time.Second
	// firstTry is how long a lost token waits for its first rebuilding: a device that restarts needs a moment. Each try after that
	// waits twice as long, lastTry at most.
	firstTry = 250 * time.Millisecond
	lastTry  = 30 * time.Second
)

// supervise looks at the device and brings it back when it is lost. It belongs to the Token and ends with closing.
func (t *Token) supervise() {
	defer close(t.supervised)
	misses := 0
	for {
		wait := beat
		if misses > 0 {
			wait = beatAgain
		}
		select {
		case l := <-t.losses:
			misses = 0
			if !t.rebuild(l) {
				<-t.closing
				return
			}
			continue
		case <-t.doubts:
		case <-t.opt.After(wait):
			if l := t.link.Load(); wait == beat && l.calls.tick() {
				_ = l.lose(errHung) // logged there
				continue
			}
		case <-t.closing:
			return
		}
		misses = t.look(misses)
	}
}

// errNotAlive: the device answers, and not as the one that was opened.
var errNotAlive = errors.New("it is not logged in any more, or another token is in its place")

// look asks the device for its token and for the login. It gives the number of doubtful answers in a row; the second one counts as
// a loss, because a sealed node costs a ceremony and a hiccup should not.
func (t *Token) look(misses int) int {
	l, err := t.begin()
	if err != nil {
		return 0 // lost already, or closing
	}
	answered := make(chan error, 1)
	go func() { // a device that hangs must not hang who watches it; the link waits for this call like for any other
		defer l.End()
		answered <- t.alive(l)
	}()
	select {
	case err = <-answered:
	case <-t.opt.After(hungBeats * beat):
		_ = l.lose(errHung) // logged there
		return 0
	case <-t.closing:
		return 0
	}
	switch {
	case err == nil:
		return 0
	case isGone(err) || errors.Is(err, errNotAlive) || misses > 0:
		_ = l.lose(err) // logged there
		return 0
	}
	t.log.Warn("the device answers badly; it is looked at again", "err", err)
	return misses + 1
}

func (t *Token) alive(l *link) error {
	info, err := t.module.ctx.GetTokenInfo(l.slot)
	if err != nil {
		return check("C_GetTokenInfo", err)
	}
	session, err := t.module.ctx.GetSessionInfo(l.root)
	if err != nil {
		return check("C_GetSessionInfo", err)
	}
	if trim(info.SerialNumber) != t.serial || session.State != p11.CKS_RW_USER_FUNCTIONS {
		return errNotAlive
	}
	return nil
}

// rebuild waits until nobody calls the module, then tries to make a new link until it succeeds. False: the token is closed, or must
// not be tried again.
func (t *Token) rebuild(dead *link) bool {
	select {
	case <-dead.Shut():
	case <-t.closing:
		return false
	}
	t.module.retire()
	t.linked = false
	told := ""
	for wait, try := firstTry, 0; ; wait, try = min(2*wait, lastTry), try+1 {
		select {
		case <-t.opt.After(wait):
		case <-t.closing:
			return false
		}
		l, err := t.relinkPatiently(try > 0)
		if err == nil {
			t.linked = true
			t.link.Store(l)
			t.log.Info("the token is back; identity and storage work, and keys after it is unsealed", "serial", t.info.Serial, "tries", try+1)
			return true
		}
		if isFinal(err) {
			t.giveUp(dead, err)
			return false
		}
		if text := err.Error(); text != told {
			t.log.Warn("the token is not back yet", "err", err)
			told = text
		}
	}
}

// relinkPatiently is relink, and tells the operator if the device does not answer. There is nothing else to do: a second try would wait behind
// the first.
func (t *Token) relinkPatiently(restart bool) (*link, error) {
	var l *link
	done := make(chan error, 1)
	go func() {
		var err error
		l, err = t.relink(restart)
		done <- err
	}()
	select {
	case err := <-done:
		return l, err
	case <-t.opt.After(hungBeats * beat):
	}
	t.log.Error("the device does not answer while the token is brought back; look at it and its connection, and if that does not help restart the process",
		"serial", t.info.Serial, "err", errHung)
	err := <-done
	return l, err
}

// isFinal reports what trying again can only make worse: a refused PIN, and a token that is not the one that was opened.
func isFinal(err error) bool {
	return classOf(err) == stop || errors.Is(err, hsm.ErrPIN) || errors.Is(err, hsm.ErrTokenDamaged) ||
		errors.Is(err, ErrNoKeys) || errors.Is(err, ErrModule)
}

func (t *Token) giveUp(dead *link, err error) {
	t.pin.Wipe()
	reason := fmt.Errorf("%w for good: %w; correct it and restart the process", hsm.ErrLost, err)
	dead.lost.Store(&reason)
	t.log.Error("the token is lost for good and not tried again; correct what is wrong and restart the process", "serial", t.info.Serial, "err", err)
}

// relink logs in again and checks that it is the same token. With restart the module is initialised anew, if no other token of it
// is in use: some modules forget a device until then.
func (t *Token) relink(restart bool) (_ *link, err error) {
	if err := t.module.revive(restart); err != nil {
		return nil, err
	}
	var l *link
	defer func() {
		if err != nil {
			if l != nil {
				<-l.Shut()
			}
			t.module.retire()
		}
	}()
	found, err := t.module.find(Options{Serial: t.serial}) // nothing is logged in to that has another
	if err != nil {
		return nil, err
	}
	// All sessions on the slot are this token's remains (claim): with the last of them the old login is over.
	if err := check("C_CloseAllSessions", t.module.ctx.CloseAllSessions(found.id)); err != nil {
		return nil, err
	}
	l = t.newLink(found)
	if !t.pin.Use(func(pin []byte) { err = l.logIn(pin, found.token) }) {
		err = hsm.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return l, t.recognise(l)
}

// recognise: the node's keys are those from before and work, and the device still enforces what it did at the start.
func (t *Token) recognise(l *link) error {
	err := l.administrative(func(w p11.SessionHandle) error {
		found, err := t.requireNodeKeys(w)
		if err != nil {
			return err
		}
		keys, err := t.readNodeKeys(w, found)
		if err != nil {
			return err
		}
		if !keys.identity.Equal(t.identity.public) || !keys.exchange.Equal(t.exchange.public) {
			return fmt.Errorf("%w: a token with this serial holds the keys of another node", hsm.ErrTokenDamaged)
		}
		l.identity, l.exchange = found["identity"], found["exchange"]
		digest := sha256.Sum256([]byte("conclave/v1/the same token"))
		signature, err := signNode(t.module.functions, w, l.identity, digest[:])
		if err != nil {
			return err
		}
		if !stdecdsa.VerifyASN1(t.identity.public, digest[:], signature) {
			return fmt.Errorf("%w: the node's identity key does not belong to its public key", hsm.ErrTokenDamaged)
		}
		return t.sweep(w)
	})
	if err != nil {
		return err
	}
	return t.probeModule(context.Background(), l) // nobody waits for it
}
