//go:build cgo && unix

package pkcs11_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// tokenFolder finds the folder of a SoftHSM token by its label, which is in the token's object in clear.
func tokenFolder(t *testing.T, label string) string {
	t.Helper()
	objects, err := filepath.Glob(filepath.Join(softHSM.tokens, "*", "token.object"))
	if err != nil {
		t.Fatal(err)
	}
	padded := append([]byte(label), bytes.Repeat([]byte(" "), 32-len(label))...)
	for _, path := range objects {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, padded) {
			return filepath.Dir(path)
		}
	}
	t.Fatalf("no folder holds the token %q", label)
	return ""
}

// moveAway takes a token's folder away, and gives what brings it back.
func moveAway(t *testing.T, folder string) (back func()) {
	t.Helper()
	away := filepath.Join(softHSM.away, filepath.Base(folder))
	t.Cleanup(func() { _ = os.RemoveAll(away) }) // if the test did not bring it back
	if err := os.Rename(folder, away); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(away, folder); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTokenTakenOutAndPutBack, under load: everything is refused meanwhile, nothing crashes, and it works again without a new
// process, the kept master too.
func TestTokenTakenOutAndPutBack(t *testing.T) {
	r := newDevice(t).open(t)
	kept := hsm.Persistence{ClusterID: "c1", Generation: 1, UnsealedAt: 7}
	importInto(t, r.Token, 1, &kept)
	r.reopen(t)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, op := range []operation{opSign, opDecrypt, opOpen, opIdentity} {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = op.run(t.Context(), r) // refused once the token is gone
				}
			}
		})
	}
	back := moveAway(t, tokenFolder(t, r.opt.Label))
	eventually(t, "the loss is noticed under load", r.isLost)
	close(stop)
	load.Wait()
	r.clock.tick(t, try1)
	r.clock.tick(t, 2*try1)
	third := r.clock.next(t, 4*try1)
	is(t, "identity without a token", identitySigns(r.Token), hsm.ErrLost)
	back()
	third.fire <- time.Time{}
	eventually(t, "the token comes back", func() bool { return !r.isLost() })
	if err := identitySigns(r.Token); err != nil {
		t.Errorf("the identity handed out before: %v", err)
	}
	if err := opExchange.run(t.Context(), r); err != nil {
		t.Errorf("the exchange key handed out before: %v", err)
	}
	is(t, "a copy of before", opSign.run(t.Context(), r), hsm.ErrSealed)
	got, err := r.RestoreMaster(t.Context())
	if err != nil || got != kept {
		t.Fatalf("the kept master: %+v, %v", got, err)
	}
	r.reopen(t)
	for _, op := range []operation{opSign, opDecrypt, opOpen} {
		if err := op.run(t.Context(), r); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
	}
}

// TestTokenTakenOutWhileIdle is noticed by looking.
func TestTokenTakenOutWhileIdle(t *testing.T) {
	d := newDevice(t)
	back := moveAway(t, tokenFolder(t, d.opt.Label))
	d.clock.tick(t, beat)
	d.clock.next(t, hung) // the look has begun
	select {
	case a := <-d.clock.asked:
		if a.after == again { // the module answered badly, and is asked once more
			a.fire <- time.Time{}
		}
	case <-time.After(patience):
		t.Fatal("the supervisor stands still")
	}
	eventually(t, "the loss is noticed", d.isLost)
	back()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestFinalizedByAnother: something else in the process ended Cryptoki.
func TestFinalizedByAnother(t *testing.T) {
	r := newDevice(t).open(t)
	if err := r.FinalizeModule(); err != nil {
		t.Fatal(err)
	}
	is(t, "sign", opSign.run(t.Context(), r), hsm.ErrLost)
	r.clock.tick(t, try1) // in vain: Cryptoki is not initialised
	r.clock.tick(t, 2*try1)
	eventually(t, "the token comes back", func() bool { return !r.isLost() })
	importInto(t, r.Token, 1, nil)
	r.reopen(t)
	for _, op := range []operation{opIdentity, opSign, opDecrypt} {
		if err := op.run(t.Context(), r); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
	}
}

// TestSessionsLost: the device forgot this process, and nothing else.
func TestSessionsLost(t *testing.T) {
	r := newDevice(t).open(t)
	if err := r.LoseSessions(); err != nil {
		t.Fatal(err)
	}
	is(t, "decrypt", opDecrypt.run(t.Context(), r), hsm.ErrLost)
	r.comesBack(t)
	r.reopen(t)
	if err := opDecrypt.run(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// TestOtherTokenInItsPlace: another serial is never logged in to; the same serial with other keys is refused for good.
func TestOtherTokenInItsPlace(t *testing.T) {
	t.Run("another serial", func(t *testing.T) {
		d := newDevice(t)
		folder := tokenFolder(t, d.opt.Label)
		other := d.opt // same PIN
		other.Label += " b"
		if err := pkcs11.Initialize(other, soPIN, pin); err != nil {
			t.Fatal(err)
		}
		back := moveAway(t, folder)
		logins := d.calls(cLogin)
		is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
		for i := range 4 {
			d.clock.tick(t, try1<<i)
		}
		d.clock.next(t, try1<<4)
		if n := d.calls(cLogin) - logins; n != 0 {
			t.Errorf("%d logins while only %q was there", n, other.Label)
		}
		back()
	})
	for name, c := range map[string]struct {
		pin  []byte
		keys bool
	}{
		"initialised anew": {pin, false}, "initialised anew with another PIN": {[]byte("1111-other-pin"), false}, "the keys of another node": {pin, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			if err := d.InitializeAgain(soPIN, c.pin); err != nil {
				t.Fatal(err)
			}
			if c.keys {
				if err := d.MakeOtherNodeKeys(pin); err != nil {
					t.Fatal(err)
				}
			}
			logins := d.calls(cLogin)
			err := identitySigns(d.Token)
			is(t, "identity", err, hsm.ErrLost)
			for wait := try1; d.log.count(logFinal) == 0 && wait < time.Minute; wait *= 2 {
				select {
				case a := <-d.clock.asked:
					a.fire <- time.Time{}
				case <-time.After(time.Second):
				}
			}
			eventually(t, "the token is refused for good", func() bool { return d.log.count(logFinal) == 1 })
			is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
			is(t, "import", d.ImportMaster(t.Context(), testMaster(t, 1), nil), hsm.ErrLost)
			if n := d.calls(cLogin) - logins; n > 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// TestRebuildingWaitsForCallsUnderWay: a slow call holds the rebuilding up, and is not answered by a crash. The device counts
// C_Finalize under a call.
func TestRebuildingWaitsForCallsUnderWay(t *testing.T) {
	r := newDevice(t).open(t)
	end := r.hang(t, cSign, func() error { return opSign.run(t.Context(), r) })
	r.fail(cDecrypt, p11.CKR_DEVICE_ERROR, 0, 1)
	is(t, "decrypt", opDecrypt.run(t.Context(), r), hsm.ErrLost)
	r.fail(cLogin, p11.CKR_DEVICE_ERROR, 0, 1) // so that the second try finalises
	if err := end(); err != nil {
		t.Errorf("the call under way: %v", err)
	}
	r.clock.tick(t, try1)
	r.clock.tick(t, 2*try1)
	eventually(t, "the token comes back", func() bool { return !r.isLost() })
	if n := r.calls(cFinalize); n == 0 {
		t.Error("the module was never finalised: the test shows nothing")
	}
}

// TestAHungCallHoldsUpNobody: a call that does not return seals the token after two minutes of beats, so that nobody waits behind it, and is told; the
// identity is refused with the reason meanwhile. When it returns after all the token comes back. Close gives up on it, and ends the token later.
func TestAHungCallHoldsUpNobody(t *testing.T) {
	r := newDevice(t).open(t)
	end := r.hang(t, cSign, func() error { return opSign.run(t.Context(), r) })
	for range 24 {
		if r.isLost() {
			t.Fatal("a call of less than two minutes counts as hung")
		}
		r.clock.tick(t, beat)
	}
	eventually(t, "the token is given up", r.isLost)
	for _, op := range []operation{opIdentity, opDecrypt, opOpen} {
		err := op.run(t.Context(), r)
		is(t, op.name, err, hsm.ErrLost)
		if err == nil || !strings.Contains(err.Error(), "has not returned for 2m0s") {
			t.Errorf("%s: %v", op.name, err)
		}
	}
	if n := r.log.count(logLost); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := end(); err != nil {
		t.Errorf("the call, when it returned: %v", err)
	}
	r.clock.tick(t, try1)
	eventually(t, "the token comes back", func() bool { return !r.isLost() })
	importInto(t, r.Token, 1, nil)
	r.reopen(t)

	end = r.hang(t, cSign, func() error { return opSign.run(t.Context(), r) })
	r.Token.SetPatience(100 * time.Millisecond)
	is(t, "Close", r.Close(), pkcs11.ErrHung)
	if err := end(); err != nil {
		t.Errorf("the call under Close: %v", err)
	}
	eventually(t, "what was left behind is ended", func() bool {
		again, err := pkcs11.Open(r.opt, pin)
		return err == nil && again.Close() == nil
	})
}

// TestAHungDeviceIsNoticed: one that answers nothing at all does not answer the supervisor either, who must not wait for it like the rest.
func TestAHungDeviceIsNoticed(t *testing.T) {
	r := newDevice(t).open(t)
	end := r.hold(t, cGetTokenInfo, func() { r.clock.tick(t, beat) })
	if r.isLost() {
		t.Error("a look that takes a moment counts as a loss")
	}
	r.clock.tick(t, hung)
	eventually(t, "the token is given up", r.isLost)
	end()
	if err := opSign.run(t.Context(), r); err == nil || !strings.Contains(err.Error(), "has not returned for 2m0s") {
		t.Errorf("a use: %v", err)
	}
	r.clock.tick(t, try1) // the old link goes when the look has returned after all
	eventually(t, "the token comes back", func() bool { return !r.isLost() })
}

// TestEveryCallCanHang: opening a session and moving a key to another master are calls like any other.
func TestEveryCallCanHang(t *testing.T) {
	r := newDevice(t)
	k := generate(t, r, hsm.AES256GCM)
	w, err := r.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	for call, run := range map[int]func() error{
		cUnwrapKey:   func() error { _, err := w.Rewrap(t.Context(), k); return err },
		cOpenSession: func() error { _, err := r.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2)); return err },
	} {
		end := r.hang(t, call, run)
		if n := r.UnderWay(); n != 1 {
			t.Errorf("%d calls under way are watched while call %d runs", n, call)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	if n := r.UnderWay(); n != 0 {
		t.Errorf("%d calls are watched that have returned", n)
	}
}

// TestStartOnADeviceThatHangs: initialising, making and opening give up and say what to do; the PIN of a start that was given up is not tried
// afterwards, nor the token changed, and the next start finds everything as it was.
func TestStartOnADeviceThatHangs(t *testing.T) {
	f, clock, logins := withFaults(t), newClock(), 0
	opt := pkcs11.Options{
		Module: f.module, Label: fmt.Sprintf("node %d", labels.Add(1)), Environment: softHSM.environment, After: clock.After,
	}
	begin := map[string]func() error{
		"initialising a token":      func() error { return pkcs11.Initialize(opt, soPIN, pin) },
		"making the keys of a node": func() error { return opened(pkcs11.Create(opt, pin)) },
		"opening a token":           func() error { return opened(pkcs11.Open(opt, pin)) },
	}
	for _, c := range []struct {
		what   string
		call   int
		before int // logins that such a start has made when it is given up
	}{
		{"initialising a token", cGetTokenInfo, 0}, {"making the keys of a node", cGetTokenInfo, 0}, {"making the keys of a node", cOpenSession, 0},
		{"making the keys of a node", cLogin, 1}, {"making the keys of a node", cUnwrapKey, 1}, {"opening a token", cLogin, 1}, {"opening a token", cSign, 1},
	} {
		if c.what == "opening a token" {
			if err := begin["making the keys of a node"](); err != nil && !errors.Is(err, hsm.ErrTokenExists) {
				t.Fatal(err)
			}
		}
		clock.planned()
		logins = int(f.calls(cLogin))
		gaveUp := make(chan error, 1)
		end := f.hang(t, c.call, func() error { err := begin[c.what](); gaveUp <- err; return nil })
		clock.tick(t, start)
		err := <-gaveUp
		is(t, c.what, err, pkcs11.ErrHung)
		if err == nil || !containsAll(err.Error(), c.what, f.module, "within 5m0s", "restart") {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		eventually(t, "what was begun is ended", func() bool { return pkcs11.Idle(f.module) })
		if n := int(f.calls(cLogin)) - logins; n != c.before {
			t.Errorf("%s given up in call %d: %d logins", c.what, c.call, n)
		}
		if c.what == "initialising a token" {
			if err := begin[c.what](); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := begin["opening a token"](); err != nil {
		t.Errorf("in the end: %v", err)
	}
}

// opened closes a token that was opened.
func opened(token *pkcs11.Token, err error) error {
	if err != nil {
		return err
	}
	return token.Close()
}

// TestRebuildingOnADeviceThatHangs is told, and goes on when the device answers.
func TestRebuildingOnADeviceThatHangs(t *testing.T) {
	d := newDevice(t)
	d.fail(cSign, p11.CKR_DEVICE_REMOVED, 0, 1)
	is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
	end := d.hold(t, cLogin, func() { d.clock.tick(t, try1) })
	d.clock.tick(t, hung)
	eventually(t, "the operator is told", func() bool { return d.log.count(logMute) == 1 })
	if !d.isLost() {
		t.Error("the token is back, and the device hangs")
	}
	end()
	eventually(t, "the token comes back", func() bool { return !d.isLost() })
}

// TestTwoTokensOfAModule: the module is not started anew under a token that works.
func TestTwoTokensOfAModule(t *testing.T) {
	a := newDevice(t)
	opt := a.opt
	opt.Label += " b"
	if err := pkcs11.Initialize(opt, soPIN, pin); err != nil {
		t.Fatal(err)
	}
	opt.After = newClock().After
	b, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	importInto(t, b, 1, nil)
	key := openKey(t, b, generate(t, b, hsm.ECDSAP256))
	finalized := a.calls(cFinalize)
	back := moveAway(t, tokenFolder(t, a.opt.Label))
	is(t, "identity", identitySigns(a.Token), hsm.ErrLost)
	for i := range 4 {
		a.clock.tick(t, try1<<i)
		if _, err := key.Sign(t.Context(), message); err != nil {
			t.Errorf("the other token: %v", err)
		}
	}
	a.clock.next(t, try1<<4)
	if n := a.calls(cFinalize) - finalized; n != 0 {
		t.Errorf("C_Finalize was called %d times under a token that works", n)
	}
	back()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestThoroughly: a tool that may take its time tries the generation of each size of RSA, and believes no range: a device that names one and
// makes no key is found out. The device fails here, because a search for primes takes long.
func TestThoroughly(t *testing.T) {
	d := newDevice(t)
	want, opt := d.Capabilities(), d.opt
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	const curvesBefore, sizes = 5, 3 // in the order of hsm.Algorithms
	for _, thorough := range []bool{false, true} {
		d.fail(cGenerateKeyPair, p11.CKR_KEY_SIZE_RANGE, curvesBefore, sizes)
		opt.Thorough = thorough
		token, err := pkcs11.Open(opt, pin)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range token.Capabilities() {
			switch row.Algorithm {
			case hsm.RSA2048, hsm.RSA3072, hsm.RSA4096:
				if thorough {
					want[i] = hsm.Capability{Algorithm: row.Algorithm, Missing: "CKM_RSA_PKCS_KEY_PAIR_GEN: C_GenerateKeyPair: CKR_KEY_SIZE_RANGE (0x62)"}
				}
			case hsm.ECDHP256: // the only pair after RSA; not thoroughly, the device's failure meets it
				if !thorough {
					continue
				}
			}
			if row != want[i] {
				t.Errorf("thorough %t: %+v, want %+v", thorough, row, want[i])
			}
		}
		d.heal()
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
