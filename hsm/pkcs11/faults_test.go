//go:build cgo && unix

package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// rig has a key of each kind open.
type rig struct {
	*device
	signing, cipher hsm.WrappedKey
	signer, aes     keyuse.Key
	sealed          []byte
}

func (d *device) open(t *testing.T) *rig {
	t.Helper()
	r := &rig{device: d, signing: generate(t, d, hsm.ECDSAP256), cipher: generate(t, d, hsm.AES256GCM)}
	r.reopen(t)
	var err error
	if r.sealed, err = r.aes.Encrypt(t.Context(), []byte("plain"), nil); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) reopen(t *testing.T) {
	t.Helper()
	r.signer, r.aes = openKey(t, r.Token, r.signing), openKey(t, r.Token, r.cipher)
}

var message = hsm.SignInput{Message: []byte("m")}

// operation is one of each class, with the call that is made to fail in it.
type operation struct {
	name string
	call int
	run  func(context.Context, *rig) error
}

func identitySigns(token *pkcs11.Token) error {
	digest := sha256.Sum256([]byte("m"))
	signature, err := token.Identity().Sign(nil, digest[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(token.Identity().Public().(*ecdsa.PublicKey), digest[:], signature) {
		return errors.New("the identity's signature does not verify")
	}
	return err
}

var (
	opIdentity = operation{"identity", cSign, func(_ context.Context, r *rig) error { return identitySigns(r.Token) }}
	opExchange = operation{"exchange", cDeriveKey, func(_ context.Context, r *rig) error {
		_, err := r.Exchange().ECDH(r.Exchange().PublicKey())
		return err
	}}
	opRandom   = operation{"random", cGenerateRandom, func(_ context.Context, r *rig) error { return r.Random(make([]byte, 8)) }}
	opGenerate = operation{"generate", cGenerateKey, func(ctx context.Context, r *rig) error {
		_, err := r.Generate(ctx, keyOf(hsm.AES256GCM), false)
		return err
	}}
	opImport = operation{"import", cCreateObject, func(ctx context.Context, r *rig) error {
		m, err := hsm.DeriveMaster(make([]byte, 32), "c1", 1)
		if err != nil {
			return err
		}
		return r.ImportMaster(ctx, m, nil)
	}}
	opOpen = operation{"open", cUnwrapKey, func(ctx context.Context, r *rig) error {
		key, err := r.Token.Open(ctx, r.signing)
		if err == nil {
			key.Release()
		}
		return err
	}}
	opSign    = operation{"sign", cSignInit, func(ctx context.Context, r *rig) error { _, err := r.signer.Sign(ctx, message); return err }}
	opEncrypt = operation{"encrypt", cEncryptInit, func(ctx context.Context, r *rig) error {
		_, err := r.aes.Encrypt(ctx, []byte("p"), nil)
		return err
	}}
	opDecrypt = operation{"decrypt", cDecrypt, func(ctx context.Context, r *rig) error { _, err := r.aes.Decrypt(ctx, r.sealed, nil); return err }}
)

// TestLossMatrix: every answer that means a loss, in every class of operation: sealed at once with the reason, told to the operator
// once, back by itself, and unsealed by an import.
func TestLossMatrix(t *testing.T) {
	r := newDevice(t).open(t)
	codes := []uint64{
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED,
	}
	operations := []operation{opIdentity, opExchange, opRandom, opGenerate, opImport, opOpen, opSign, opEncrypt, opDecrypt}
	losses := 0
	for i, code := range codes {
		for j, op := range operations {
			if (i+j)%3 != 0 { // each code with three classes, and each class with three codes
				continue
			}
			what := fmt.Sprintf("0x%X in %s", code, op.name)
			r.fail(op.call, code, 0, 1)
			err := op.run(t.Context(), r)
			is(t, what, err, hsm.ErrSealed)
			is(t, what, err, hsm.ErrLost)
			for _, next := range []operation{opIdentity, opSign, opDecrypt, opOpen, opImport} {
				is(t, what+", then "+next.name, next.run(t.Context(), r), hsm.ErrLost)
			}
			losses++
			r.comesBack(t)
			is(t, what+": a copy of before", opSign.run(t.Context(), r), hsm.ErrSealed)
			r.reopen(t)
			for _, next := range []operation{opIdentity, opExchange, opSign, opDecrypt} {
				if err := next.run(t.Context(), r); err != nil {
					t.Fatalf("%s, then back: %s: %v", what, next.name, err)
				}
			}
		}
	}
	if losses != 27 || r.log.count(logLost) != losses || r.log.count(logBack) != losses {
		t.Errorf("%d losses, told %d times, and %d times that it is back", losses, r.log.count(logLost), r.log.count(logBack))
	}
}

// TestDroppedHandles: a copy that the device dropped is the copy's matter alone; a master or node key that it dropped is a loss.
func TestDroppedHandles(t *testing.T) {
	r := newDevice(t).open(t)
	for _, code := range []uint64{p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_HANDLE_INVALID} {
		for _, op := range []operation{opSign, opEncrypt, opDecrypt} {
			what := fmt.Sprintf("0x%X in %s", code, op.name)
			r.fail(op.call, code, 0, 1)
			err := op.run(t.Context(), r)
			is(t, what, err, hsm.ErrHandle)
			if errors.Is(err, hsm.ErrSealed) || r.isLost() {
				t.Errorf("%s sealed the token: %v", what, err)
			}
			if err := op.run(t.Context(), r); err != nil {
				t.Errorf("%s, then: %v", what, err)
			}
		}
	}
	for _, c := range []struct {
		op   operation
		code uint64
	}{{opIdentity, p11.CKR_KEY_HANDLE_INVALID}, {opExchange, p11.CKR_OBJECT_HANDLE_INVALID}, {opOpen, p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID}} {
		r.fail(c.op.call, c.code, 0, 1)
		is(t, c.op.name, c.op.run(t.Context(), r), hsm.ErrLost)
		r.comesBack(t)
		r.reopen(t)
	}
}

// TestDataErrors: what is known to be the data's fault is told as that, tried once, and no loss.
func TestDataErrors(t *testing.T) {
	r := newDevice(t).open(t)
	for op, c := range map[*operation]struct {
		codes []uint64
		want  error
	}{
		&opOpen: {[]uint64{p11.CKR_WRAPPED_KEY_INVALID, p11.CKR_WRAPPED_KEY_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_INVALID}, hsm.ErrWrappedKey},
		&opDecrypt: {[]uint64{
			p11.CKR_DATA_INVALID, p11.CKR_DATA_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, 0x42,
		}, hsm.ErrVerify},
	} {
		for _, code := range c.codes {
			before := r.calls(op.call)
			r.fail(op.call, code, 0, always)
			is(t, fmt.Sprintf("0x%X in %s", code, op.name), op.run(t.Context(), r), c.want)
			if n := r.calls(op.call) - before; n != 1 {
				t.Errorf("0x%X in %s: tried %d times", code, op.name, n)
			}
			r.heal()
			if err := op.run(t.Context(), r); err != nil {
				t.Errorf("0x%X in %s, then: %v", code, op.name, err)
			}
		}
	}
	if r.log.count(logLost) != 0 {
		t.Error("a data error was taken for a loss")
	}
}

// TestADeviceThatFailsIsNotTheDatasFault: answers that say nothing about the data, vendors' among them. Once, the operation is done all the
// same; always, the device is blamed; and data that is wrong is told as wrong by a device that has no better word for it.
func TestADeviceThatFailsIsNotTheDatasFault(t *testing.T) {
	r := newDevice(t).open(t)
	const vendor = 0x80000001
	for _, code := range []uint64{p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_HOST_MEMORY, p11.CKR_ARGUMENTS_BAD, vendor} {
		for _, op := range []operation{opOpen, opDecrypt} {
			what := fmt.Sprintf("0x%X in %s", code, op.name)
			r.fail(op.call, code, 0, 1)
			if err := op.run(t.Context(), r); err != nil {
				t.Errorf("%s, once: %v", what, err)
			}
			r.fail(op.call, code, 0, always)
			err := op.run(t.Context(), r)
			is(t, what+", always", err, hsm.ErrDevice)
			if errors.Is(err, hsm.ErrVerify) || errors.Is(err, hsm.ErrWrappedKey) {
				t.Errorf("%s is told as the data's fault: %v", what, err)
			}
			r.heal()
			if err := op.run(t.Context(), r); err != nil {
				t.Errorf("%s, healed: %v", what, err)
			}
		}
		changed := bytes.Clone(r.sealed)
		changed[len(changed)-1] ^= 1
		if _, err := r.aes.Decrypt(t.Context(), changed, nil); !errors.Is(err, hsm.ErrVerify) || errors.Is(err, hsm.ErrDevice) {
			t.Errorf("a changed ciphertext: %v", err)
		}
	}
	if r.isLost() || r.log.count(logLost) != 0 {
		t.Error("a failing device was taken for a lost one")
	}
}

// TestADeviceThatCannotSignIsNotTheKeysFault: opening a key makes it sign. A device that has unlearnt that is told from a key that is none by
// a key that is known to be good.
func TestADeviceThatCannotSignIsNotTheKeysFault(t *testing.T) {
	d := newDevice(t)
	const bindingMAC = 1 // the first C_Sign of an opening
	for _, row := range d.Capabilities() {
		if !row.Usable() || row.Algorithm.Family() != hsm.FamilySign && row.Algorithm.Family() != hsm.FamilyAgree {
			continue
		}
		call, before := cSign, uint64(bindingMAC)
		if row.Algorithm.Family() == hsm.FamilyAgree {
			call, before = cDeriveKey, 0
		}
		k := generate(t, d, row.Algorithm)
		for _, code := range []uint64{p11.CKR_FUNCTION_FAILED, p11.CKR_HOST_MEMORY, 0x80000001} {
			d.fail(call, code, before, always)
			_, err := d.Open(t.Context(), k)
			is(t, fmt.Sprintf("0x%X on opening %s", code, row.Algorithm), err, hsm.ErrDevice)
			if errors.Is(err, hsm.ErrWrappedKey) {
				t.Errorf("0x%X on opening %s is told as the key's fault: %v", code, row.Algorithm, err)
			}
			d.fail(call, code, before, 1)
			openKey(t, d.Token, k).Release()
			d.heal()
		}
		wantObjects(t, d.Token, "after "+string(row.Algorithm), nodeObjects, masterObjects)
	}
	if d.isLost() {
		t.Error("a failing device was taken for a lost one")
	}
}

// TestActiveOperation: the session is replaced and the operation done; if that does not help the caller is told.
func TestActiveOperation(t *testing.T) {
	r := newDevice(t).open(t)
	for _, op := range []operation{opIdentity, opSign, opEncrypt, opDecrypt, opGenerate} {
		r.fail(op.call, p11.CKR_OPERATION_ACTIVE, 0, 1)
		if err := op.run(t.Context(), r); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
		r.fail(op.call, p11.CKR_OPERATION_ACTIVE, 0, always)
		if err := op.run(t.Context(), r); err == nil || r.isLost() {
			t.Errorf("%s on sessions that are all active: %v", op.name, err)
		}
		r.heal()
		if err := op.run(t.Context(), r); err != nil {
			t.Errorf("%s in the end: %v", op.name, err)
		}
	}
}

// TestRefusedPIN: a PIN that the device refuses when it is back is tried once and never again.
func TestRefusedPIN(t *testing.T) {
	for _, code := range []uint64{p11.CKR_PIN_INCORRECT, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED, p11.CKR_USER_PIN_NOT_INITIALIZED} {
		d := newDevice(t)
		logins := d.calls(cLogin)
		d.fail(cLogin, code, 0, 1)
		d.fail(cSign, p11.CKR_DEVICE_REMOVED, 0, 1)
		is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
		d.clock.tick(t, try1)
		eventually(t, "the token gives up", func() bool { return d.log.count(logFinal) == 1 })
		is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
		is(t, "import", d.ImportMaster(t.Context(), testMaster(t, 1), nil), hsm.ErrSealed)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if n, more := d.calls(cLogin)-logins, d.clock.planned(); n != 1 || more != 0 {
			t.Errorf("0x%X: %d logins, and %d more are planned", code, n, more)
		}
		// The process needs no restart for that: the token opens again with the right PIN.
		again, err := pkcs11.Open(d.opt, pin)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBackoff: tries wait twice as long each time, half a minute at most, and end with Close.
func TestBackoff(t *testing.T) {
	d := newDevice(t)
	d.fail(cOpenSession, p11.CKR_DEVICE_REMOVED, 0, always)
	d.fail(cSign, p11.CKR_DEVICE_REMOVED, 0, 1)
	is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
	for want := try1; want < 30*time.Second; want *= 2 {
		d.clock.tick(t, want)
	}
	d.clock.tick(t, 30*time.Second)
	d.clock.next(t, 30*time.Second)
	if n := d.log.count("the token is not back yet"); n != 1 {
		t.Errorf("the same failure was told %d times", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestIdleDeviceIsLookedAt: a loss is noticed without an operation, and a hiccup is none.
func TestIdleDeviceIsLookedAt(t *testing.T) {
	d := newDevice(t)
	d.fail(cGetTokenInfo, p11.CKR_GENERAL_ERROR, 0, 1)
	d.clock.tick(t, beat)
	d.clock.tick(t, again)
	live := d.clock.next(t, beat)
	if d.isLost() {
		t.Error("one bad answer was taken for a loss")
	}
	d.fail(cGetTokenInfo, p11.CKR_TOKEN_NOT_PRESENT, 0, 1)
	live.fire <- time.Time{}
	eventually(t, "the loss is noticed", d.isLost)
	d.comesBack(t)
	d.fail(cGetTokenInfo, p11.CKR_GENERAL_ERROR, 0, 2)
	d.clock.tick(t, beat)
	d.clock.tick(t, again)
	eventually(t, "the second bad answer counts", d.isLost)
}

// TestSessionLimit: operations share the sessions that there are; the operator is told once.
func TestSessionLimit(t *testing.T) {
	for name, c := range map[string]struct {
		limit, announced uint64
		told             int
	}{
		"announced": {6, 6, 0}, "not announced": {6, 0, 1}, "the least": {5, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, func(f *faults, opt *pkcs11.Options) { f.limit, f.announced, opt.Sessions = c.limit, c.announced, 64 })
			r := d.open(t)
			atomic.StoreUint64(&r.rule[cSign].slow, 2000) // so that more want to sign than there are sessions
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 5 {
						if err := errors.Join(opSign.run(t.Context(), r), opIdentity.run(t.Context(), r), opDecrypt.run(t.Context(), r)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			if n := d.log.count(logFew); n != c.told {
				t.Errorf("the operator was told %d times, want %d", n, c.told)
			}
			importInto(t, d.Token, 2, nil) // needs sessions beside the workers'
		})
	}
	f := withFaults(t)
	opt := pkcs11.Options{Module: f.module, Label: fmt.Sprintf("node %d", labels.Add(1)), Environment: softHSM.environment}
	if err := pkcs11.Initialize(opt, soPIN, pin); err != nil {
		t.Fatal(err)
	}
	f.limit = 1
	_, err := pkcs11.Create(opt, pin)
	if err == nil || !containsAll(err.Error(), "CKR_SESSION_COUNT", "no session left") {
		t.Errorf("on a device of one session: %v", err)
	}
}

func containsAll(s string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}
