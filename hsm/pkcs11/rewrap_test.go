//go:build cgo && unix

package pkcs11_test

import (
	"errors"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// rewrapObjects come to the others between BeginRewrap and End.
var rewrapObjects = []string{
	"session conclave-rewrap", "session conclave-rewrap", "session conclave-rewrap",
	"session conclave-rewrap-target", "session conclave-rewrap-target", "session conclave-rewrap-target",
}

// TestRewrapLeavesNothing on the device: not of a key that was moved, nor of one that was refused, nor of the handles after End, a
// seal, or a loss.
func TestRewrapLeavesNothing(t *testing.T) {
	d := newDevice(t)
	var moved hsm.WrappedKey
	for name, end := range map[string]func(hsm.Rewrapping){
		"End":  func(w hsm.Rewrapping) { w.End() },
		"seal": func(hsm.Rewrapping) { _ = d.Seal(t.Context(), false) },
		"loss": func(w hsm.Rewrapping) {
			d.fail(cUnwrapKey, p11.CKR_DEVICE_REMOVED, 0, 1)
			_, err := w.Rewrap(t.Context(), generate(t, d, hsm.AES256GCM))
			is(t, "rewrapping on a lost device", err, hsm.ErrLost)
			d.comesBack(t)
		},
	} {
		importInto(t, d, 1, nil)
		k := generate(t, d, hsm.ECDSAP256)
		w, err := d.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		if moved, err = w.Rewrap(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		d.fail(cUnwrapKey, p11.CKR_WRAPPED_KEY_INVALID, 0, 1)
		_, err = w.Rewrap(t.Context(), k)
		is(t, "a blob that the device refuses", err, hsm.ErrWrappedKey)
		wantObjects(t, d.Token, "while rewrapping", nodeObjects, masterObjects, rewrapObjects)
		end(w)
		_, err = w.Rewrap(t.Context(), k)
		if err == nil {
			t.Errorf("rewrapping went on after %s", name)
		}
		w.End()
		want := [][]string{nodeObjects, masterObjects}
		if name == "seal" {
			want = want[:1]
		}
		wantObjects(t, d.Token, "after "+name, want...)
	}
	importInto(t, d, 2, nil)
	if _, err := openKey(t, d.Token, moved).Sign(t.Context(), message); err != nil {
		t.Error(err)
	}
}

// TestRewrapHandlesAreRestricted: what a rewrap handle unwraps cannot be read, and neither handle can be used for anything else.
func TestRewrapHandlesAreRestricted(t *testing.T) {
	d := newDevice(t)
	k := generate(t, d, hsm.AES256GCM)
	w, err := d.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer w.End()
	moved, err := w.Rewrap(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range d.AttackRewrap(w, k.Blob, moved.Blob) {
		if got == nil {
			t.Errorf("the device lets through: %s", what)
		}
	}
}

// TestRewrapBlamesTheDevice: a key of which it is said that it is damaged is given up by a rekey, so that is not said for a failing device.
func TestRewrapBlamesTheDevice(t *testing.T) {
	d := newDevice(t)
	k := generate(t, d, hsm.ECDSAP256)
	w, err := d.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer w.End()
	d.fail(cUnwrapKey, p11.CKR_FUNCTION_FAILED, 0, 1)
	if _, err := w.Rewrap(t.Context(), k); err != nil {
		t.Errorf("after one failure: %v", err)
	}
	d.fail(cUnwrapKey, p11.CKR_FUNCTION_FAILED, 0, always)
	_, err = w.Rewrap(t.Context(), k)
	is(t, "on a device that fails", err, hsm.ErrDevice)
	if errors.Is(err, hsm.ErrWrappedKey) {
		t.Errorf("the key is blamed: %v", err)
	}
	d.heal()
	if _, err := w.Rewrap(t.Context(), k); err != nil {
		t.Errorf("on a device that works again: %v", err)
	}
}

// TestRewrapOnAnActiveSession: the session that a device left an operation active on is replaced, and the key is moved; where that does not
// help the caller is told, and the next key finds a good session.
func TestRewrapOnAnActiveSession(t *testing.T) {
	d := newDevice(t)
	k := generate(t, d, hsm.ECDSAP256)
	w, err := d.BeginRewrap(t.Context(), testMaster(t, 1), testMaster(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer w.End()
	for _, call := range []int{cSign, cSignInit, cUnwrapKey, cWrapKey} {
		for skip := range uint64(2) { // the binding's MAC, and the proof of possession
			closed := d.calls(cCloseSession)
			d.fail(call, p11.CKR_OPERATION_ACTIVE, skip, 1)
			if _, err := w.Rewrap(t.Context(), k); err != nil {
				t.Errorf("call %d, after %d: %v", call, skip, err)
			}
			if used := d.calls(cCloseSession) - closed; used != 1 && !(call >= cWrapKey && skip == 1) {
				t.Errorf("call %d, after %d: %d sessions were replaced", call, skip, used)
			}
			d.heal()
		}
		d.fail(call, p11.CKR_OPERATION_ACTIVE, 0, always)
		if _, err := w.Rewrap(t.Context(), k); err == nil || d.isLost() || errors.Is(err, hsm.ErrWrappedKey) {
			t.Errorf("call %d on sessions that are all active: %v", call, err)
		}
		d.heal()
		if _, err := w.Rewrap(t.Context(), k); err != nil {
			t.Errorf("call %d in the end: %v", call, err)
		}
	}
	wantObjects(t, d.Token, "afterwards", nodeObjects, masterObjects, rewrapObjects)
	// One that is left active for good, as by a call that was interrupted.
	if err := d.LeaveRewrapActive(w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rewrap(t.Context(), k); err != nil {
		t.Errorf("on a session with an active operation: %v", err)
	}
}
