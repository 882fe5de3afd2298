//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

var _ keyuse.Key = (*workingCopy)(nil)

// workingCopy is an unwrapped key: a session object of the master session, used by its handle from worker sessions.
type workingCopy struct {
	hsm.Redacted
	*drain.Copy
	token     *Token
	link      *link
	algorithm *algorithm
	object    p11.ObjectHandle
	public    []byte // in the form of hsm.ParsePublicKey; nil for secret keys
}

// adopt registers a copy. The caller is counted in. spki was checked with the binding.
func (s *session) adopt(a *algorithm, object p11.ObjectHandle, spki []byte) (*workingCopy, error) {
	c := &workingCopy{Copy: s.Adopt(func() { s.destroyObject(object) }), token: s.token, link: s.link, algorithm: a, object: object}
	if !a.isPair() {
		return c, nil
	}
	var err error
	if c.public, err = hsm.ParsePublicKey(a.id, spki); err != nil {
		c.Release()
		return nil, errMaterial
	}
	return c, nil
}

// use runs f on a worker session, counted in, if the copy is of that family. check looks at the input first, so that nothing
// outside the limits reaches the device.
func (c *workingCopy) use(
	ctx context.Context, operation string, family hsm.Family, check func() error, f func(p11.SessionHandle) error,
) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	if err := c.Begin(); err != nil {
		return c.why(err)
	}
	defer c.End()
	if c.algorithm.id.Family() != family {
		return fmt.Errorf("%w: %s with %s", hsm.ErrUnsupported, operation, c.algorithm.id)
	}
	if err := check(); err != nil {
		return err
	}
	if err := c.link.pool.with(ctx, f); err != nil {
		return fmt.Errorf("%s: %w", operation, c.fault(err))
	}
	return nil
}

// fault is link.fault, but that a copy which the device dropped is no more than that.
func (c *workingCopy) fault(err error) error {
	if classOf(err) == dropped {
		return fmt.Errorf("%w: %v", hsm.ErrHandle, err) // %v: it is not a loss of the token
	}
	return c.link.fault(err)
}

func (c *workingCopy) why(err error) error {
	if errors.Is(err, hsm.ErrSealed) {
		return c.link.sealed()
	}
	return err
}

// Sign implements keyuse.Key. Messages are hashed here and digests signed raw: SoftHSM lacks ECDSA with a hash, and less
// crosses over.
func (c *workingCopy) Sign(ctx context.Context, in hsm.SignInput) (signature []byte, err error) {
	valid := func() error { return in.Validate(c.algorithm.id) }
	err = c.use(ctx, "sign", hsm.FamilySign, valid, func(w p11.SessionHandle) (err error) {
		signature, err = c.algorithm.sign(c.token.module.functions, w, c.object, in, c.public)
		return err
	})
	return signature, err
}

// Encrypt implements keyuse.Key. The nonce is drawn from the device for each encryption (SP 800-38D §8.2.2).
func (c *workingCopy) Encrypt(ctx context.Context, plaintext, aad []byte) (sealed []byte, err error) {
	valid := func() error {
		if len(plaintext) > hsm.MaxMessage || len(aad) > hsm.MaxAAD {
			return fmt.Errorf("%w: %d bytes with %d associated, at most %d and %d are; use a data key",
				hsm.ErrInput, len(plaintext), len(aad), hsm.MaxMessage, hsm.MaxAAD)
		}
		return nil
	}
	err = c.use(ctx, "encrypt", hsm.FamilyCipher, valid, func(w p11.SessionHandle) error {
		out := make([]byte, nonceSize, nonceSize+len(plaintext)+tagSize)
		if err := c.token.module.random(w, out); err != nil {
			return err
		}
		got, err := c.token.module.gcm(false, w, c.object, out, aad, plaintext, out)
		if err == nil && len(got) != cap(out) {
			return fmt.Errorf("CKM_AES_GCM gave %d bytes, %d were expected", len(got)-nonceSize, cap(out)-nonceSize)
		}
		sealed = got
		return err
	})
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// Decrypt implements keyuse.Key.
func (c *workingCopy) Decrypt(ctx context.Context, ciphertext, aad []byte) (plaintext []byte, err error) {
	if c.algorithm.decrypt != nil {
		return c.decryptOAEP(ctx, ciphertext, aad)
	}
	valid := func() error {
		// What Encrypt would not have made does not verify.
		if len(ciphertext) < sealedSize || len(ciphertext) > hsm.MaxMessage+sealedSize || len(aad) > hsm.MaxAAD {
			return hsm.ErrVerify
		}
		return nil
	}
	err = c.use(ctx, "decrypt", hsm.FamilyCipher, valid, func(w p11.SessionHandle) error {
		// The device may want room for the tag too.
		out := make([]byte, 0, len(ciphertext)-nonceSize)
		open := func() (err error) {
			plaintext, err = c.token.module.gcm(true, w, c.object, ciphertext[:nonceSize], aad, ciphertext[nonceSize:], out)
			if err == nil && len(plaintext) != len(ciphertext)-sealedSize {
				err = fmt.Errorf("CKM_AES_GCM opened %d bytes, %d were expected", len(plaintext), len(ciphertext)-sealedSize)
			}
			return err
		}
		err := open()
		if err != nil {
			err = c.judgeGCM(w, err, open)
		}
		if err != nil {
			clear(out[:cap(out)])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// MAC implements keyuse.Key.
func (c *workingCopy) MAC(ctx context.Context, message []byte) (mac []byte, err error) {
	valid := func() error {
		if len(message) > hsm.MaxMessage {
			return fmt.Errorf("%w: a message of %d bytes, at most %d are", hsm.ErrInput, len(message), hsm.MaxMessage)
		}
		return nil
	}
	err = c.use(ctx, "mac", hsm.FamilyMAC, valid, func(w p11.SessionHandle) (err error) {
		mac, err = c.token.module.hmac(w, c.algorithm.mac, c.object, message, c.algorithm.length)
		return err
	})
	return mac, err
}

// VerifyMAC implements keyuse.Key: the MAC is computed by the device and compared here in constant time.
func (c *workingCopy) VerifyMAC(ctx context.Context, message, mac []byte) error {
	valid := func() error {
		if len(message) > hsm.MaxMessage {
			return hsm.ErrVerify // too large a message has no MAC of this key
		}
		return nil
	}
	return c.use(ctx, "verify-mac", hsm.FamilyMAC, valid, func(w p11.SessionHandle) error {
		want, err := c.token.module.hmac(w, c.algorithm.mac, c.object, message, c.algorithm.length)
		if err == nil && !hmac.Equal(want, mac) {
			return hsm.ErrVerify
		}
		return err
	})
}

// decryptOAEP opens what hsm.EncryptOAEP made. All refusals of data are one, and take equally long: see judgeOAEP.
func (c *workingCopy) decryptOAEP(ctx context.Context, ciphertext, aad []byte) (plaintext []byte, err error) {
	valid := func() error {
		switch {
		case len(aad) != 0:
			return fmt.Errorf("%w: associated data for %s, which takes none", hsm.ErrInput, c.algorithm.id)
		case len(ciphertext) != c.algorithm.bits/8:
			return hsm.ErrVerify
		}
		return nil
	}
	err = c.use(ctx, "decrypt", hsm.FamilyDecrypt, valid, func(w p11.SessionHandle) (err error) {
		open := func() (err error) {
			plaintext, err = c.algorithm.decrypt(c.token.module, w, c.object, ciphertext)
			return err
		}
		if err = open(); err != nil {
			return c.judgeOAEP(w, err, open)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// Agree implements keyuse.Key.
func (c *workingCopy) Agree(ctx context.Context, peer []byte) (secret []byte, err error) {
	var point []byte
	valid := func() error {
		if point, err = hsm.ParsePublicKey(c.algorithm.id, peer); err != nil {
			return err
		}
		if bytes.Equal(point, c.public) {
			return fmt.Errorf("%w: the peer's public key is this key's own", hsm.ErrInput)
		}
		return nil
	}
	err = c.use(ctx, "agree", hsm.FamilyAgree, valid, func(w p11.SessionHandle) (err error) {
		secret, err = c.algorithm.agree(c.token.module, w, c.object, point)
		if err == nil && hmac.Equal(secret, make([]byte, len(secret))) {
			return fmt.Errorf("%w: the peer's public key leads to no secret", hsm.ErrInput)
		}
		return err
	})
	return secret, err
}

// Decapsulate implements keyuse.Key: PKCS#11 has a mechanism for ML-KEM from version 3.2 on, and no device was at hand to try it.
func (c *workingCopy) Decapsulate(ctx context.Context, _ []byte) ([]byte, error) {
	return nil, c.use(ctx, "decapsulate", hsm.FamilyDecapsulate, func() error { return nil }, func(p11.SessionHandle) error {
		return fmt.Errorf("%w: decapsulation on %s", hsm.ErrUnsupported, c.token.info.Model)
	})
}
