//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
)

// Whose fault is it? "Does not verify" is what a user hears of data that was changed, and then throws away; of a device that fails it must
// not be said. PKCS#11 has codes for data, but modules answer a wrong tag by others as well: SoftHSM 2.6.1 by CKR_GENERAL_ERROR. So what is
// no word about data is believed to be one only from a device that does the same with good data at that moment.

// ckrAEADDecryptFailed is of PKCS#11 3.0.
const ckrAEADDecryptFailed = 0x42

// dataCodes are those of C_Decrypt that speak of the data and of nothing else.
var dataCodes = map[p11.Error]bool{
	p11.CKR_DATA_INVALID: true, p11.CKR_DATA_LEN_RANGE: true, p11.CKR_ENCRYPTED_DATA_INVALID: true, p11.CKR_ENCRYPTED_DATA_LEN_RANGE: true,
	ckrAEADDecryptFailed: true,
}

// wrappedCodes are those of C_UnwrapKey that speak of the wrapped key.
var wrappedCodes = map[p11.Error]bool{
	p11.CKR_WRAPPED_KEY_INVALID: true, p11.CKR_WRAPPED_KEY_LEN_RANGE: true,
	p11.CKR_DATA_INVALID: true, p11.CKR_DATA_LEN_RANGE: true, p11.CKR_ENCRYPTED_DATA_INVALID: true, p11.CKR_ENCRYPTED_DATA_LEN_RANGE: true,
}

// speaksOf reports whether err is an answer to the call itself; a failed C_DecryptInit has not seen any data.
func speaksOf(err error, call string) bool {
	answer, ok := errors.AsType[*callError](err)
	return ok && answer.call == call
}

// judge says what a failed decryption means: hsm.ErrVerify, or err, which is the device's. known is what the device must be able to do
// with good data and the same key. again repeats the decryption, because the failure may have been an accident of a moment.
func judge(err error, known, again func() error) error {
	if isGone(err) || classOf(err) == busy || !speaksOf(err, "C_Decrypt") {
		return err
	}
	if sick := known(); classOf(sick) == busy { // the failed call left its operation active: pool.lend begins anew on another session
		return fmt.Errorf("%w after %v", sick, err)
	} else if sick != nil {
		return err
	}
	if err := again(); err == nil || isGone(err) || classOf(err) == busy {
		return err
	}
	return hsm.ErrVerify
}

// judgeGCM trusts the codes that speak of data: a wrong tag has no cause that an answer or its time could tell.
func (c *workingCopy) judgeGCM(w p11.SessionHandle, err error, again func() error) error {
	if speaksOf(err, "C_Decrypt") && dataCodes[codeOf(err)] {
		return hsm.ErrVerify
	}
	return judge(err, func() error { return c.token.module.gcmWorks(w, c.object) }, again)
}

// gcmWorks seals nothing and opens it again. The result stays here.
func (m *module) gcmWorks(w p11.SessionHandle, key p11.ObjectHandle) error {
	nonce := make([]byte, nonceSize)
	tag, err := m.gcm(false, w, key, nonce, nil, nil, make([]byte, 0, tagSize))
	if err == nil {
		_, err = m.gcm(true, w, key, nonce, nil, tag, make([]byte, 0, tagSize))
	}
	return err
}

// judgeOAEP trusts no code: a device may have one for each way in which a padding can be wrong, and what follows from a code takes time. Every
// failure takes the same steps, so that none can be told from another (Manger's attack).
func (c *workingCopy) judgeOAEP(w p11.SessionHandle, err error, again func() error) error {
	return judge(err, func() error { return c.token.module.oaepWorks(w, c.algorithm, c.object, c.public) }, again)
}

var errWrongAnswer = errors.New("the device decrypts to something else")

func (m *module) oaepWorks(w p11.SessionHandle, a *algorithm, key p11.ObjectHandle, public []byte) error {
	message := []byte("conclave/v1/possession")
	spki, err := hsm.MarshalPublicKey(a.id, public)
	if err != nil {
		return err
	}
	sealed, err := hsm.EncryptOAEP(a.id, spki, message)
	if err != nil {
		return err
	}
	got, err := a.decrypt(m, w, key, sealed)
	if err == nil && !bytes.Equal(got, message) {
		err = errWrongAnswer
	}
	return err
}

// judgeBlob takes a step of opening a bound blob, unwrapping it or examining its copy, and says what a failure means: hsm.ErrWrappedKey, or the
// device's error. The binding MAC was right, so a thief's blob does not come this far; a device that fails does: whatever does not speak of the
// wrapped key alone is believed only if a key that is known to be good passes. The cause goes to the log.
func (s *session) judgeBlob(ctx context.Context, a *algorithm, step func() error) error {
	passes := func(err error) bool {
		return err == nil || isGone(err) || classOf(err) == busy || errors.Is(err, hsm.ErrHandle) || errors.Is(err, ctx.Err())
	}
	err := step()
	if passes(err) {
		return err
	}
	if !speaksOf(err, "C_UnwrapKey") || !wrappedCodes[codeOf(err)] {
		if s.checkCanary(ctx, s.wrap, s.canary) != nil || s.checkKnown(ctx, a) != nil {
			return err
		}
		if err = step(); passes(err) { // the failure was one of a moment
			return err
		}
	}
	s.token.log.Debug("an unwrapped key is not what its binding says", "algorithm", a.id, "err", err)
	return fmt.Errorf("%w: its material", hsm.ErrWrappedKey)
}

// checkKnown unwraps a pair that is known to be good, under a key that is no master, and examines it as one that is opened. For secret
// keys the canary has done it.
func (s *session) checkKnown(ctx context.Context, a *algorithm) error {
	if !a.isPair() {
		return nil
	}
	der, spki, err := selftest.Pair(a.id)
	if err != nil {
		return err
	}
	return s.link.pool.with(ctx, func(w p11.SessionHandle) error {
		return s.token.module.withForeign(w, a, der, func(object p11.ObjectHandle) error {
			return s.token.module.examine(w, a, object, spki, true)
		})
	})
}

// failed marks what the device answered for no fault of the caller, and no loss: another node may do better.
func failed(err error) error {
	if codeOf(err) == p11.CKR_OK {
		return err
	}
	for _, said := range []error{hsm.ErrWrappedKey, hsm.ErrTokenDamaged, hsm.ErrHandle, hsm.ErrVerify, ErrModule} {
		if errors.Is(err, said) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", hsm.ErrDevice, err)
}
