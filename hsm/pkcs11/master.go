//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// Labels of the master objects. Kept ones are told apart by CKA_ID: the tag of one import.
const (
	labelWrap   = "conclave-wrap"
	labelExport = "conclave-wrap-export"
	labelBind   = "conclave-bind"
)

// unwrapTemplate is what a device must impose on everything that a master unwraps. Without it whoever is logged in unwraps any
// blob of the catalog in clear.
func unwrapTemplate() template {
	return template{attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false)}
}

// masterTemplate has what all three masters share. CKA_DERIVE must never be true: CKM_AES_ECB_ENCRYPT_DATA would be an oracle for
// RFC 5649 blobs.
func masterTemplate(label string, tag []byte, keep bool, keyType uint, value []byte) template {
	return template{
		attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, keyType),
		attr(p11.CKA_TOKEN, keep), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_LABEL, label), attr(p11.CKA_ID, tag),
		attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false), attr(p11.CKA_MODIFIABLE, false), attr(p11.CKA_COPYABLE, false),
		attr(p11.CKA_VALUE, value),
	}
}

// createMasters imports the keys of m: as objects of the session, or of the token if they are kept. step is told before each.
func (s *session) createMasters(m *hsm.Master, tag []byte, keep bool, step func(string) error) error {
	restrict, release := nested(p11.CKA_UNWRAP_TEMPLATE, unwrapTemplate())
	defer release()
	wrapping := usage(p11.CKA_WRAP, p11.CKA_UNWRAP).with(mechanisms(p11.CKM_AES_KEY_WRAP_PAD), restrict)
	binding := usage(p11.CKA_SIGN, p11.CKA_VERIFY).with(mechanisms(p11.CKM_SHA256_HMAC))
	for _, k := range []struct {
		object  *p11.ObjectHandle
		label   string
		keyType uint
		value   []byte
		rights  template
	}{
		{&s.wrap, labelWrap, p11.CKK_AES, m.Wrap, wrapping},
		{&s.export, labelExport, p11.CKK_AES, m.WrapExport, wrapping},
		{&s.bind, labelBind, p11.CKK_GENERIC_SECRET, m.Bind, binding},
	} {
		if err := step("create " + k.label); err != nil {
			return err
		}
		err := s.own(func(h p11.SessionHandle) (err error) {
			*k.object, err = s.token.module.create(h, masterTemplate(k.label, tag, keep, k.keyType, k.value).with(k.rights...))
			return err
		})
		if err != nil {
			return fmt.Errorf("importing %s: %w", k.label, err)
		}
	}
	return nil
}

// newCanary is made in Go, so that device and Go check each other.
func newCanary(kek []byte) (canary, error) {
	key := make([]byte, keySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return canary{}, err
	}
	blob, err := keywrap.Wrap(kek, key)
	if err != nil {
		return canary{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return canary{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return canary{}, err
	}
	return canary{blob: blob, sealed: aead.Seal(nil, nil, nil, []byte(canaryAAD))}, nil
}

const canaryAAD = "conclave/v1/canary"

// errAnswer: an imported or kept master computes something else than it must.
var errAnswer = errors.New("a master key answers wrongly")

// checkCanary verifies one wrap key by known answer.
func (s *session) checkCanary(ctx context.Context, kek p11.ObjectHandle, c canary) error {
	row, err := lookup(hsm.AES256GCM)
	if err != nil {
		return err
	}
	object, err := s.rawUnwrap(row, kek, c.blob)
	if err != nil {
		return fmt.Errorf("%w: an RFC 5649 blob by CKM_AES_KEY_WRAP_PAD: %w", errAnswer, err)
	}
	defer s.destroyObject(object)
	var got []byte
	err = s.link.pool.with(ctx, func(w p11.SessionHandle) (err error) {
		got, err = s.token.module.gcm(false, w, object, c.sealed[:nonceSize], []byte(canaryAAD), nil, make([]byte, 0, tagSize))
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: CKM_AES_GCM: %w", errAnswer, err)
	}
	if !bytes.Equal(got, c.sealed[nonceSize:]) {
		return fmt.Errorf("%w: CKM_AES_GCM under a key unwrapped by CKM_AES_KEY_WRAP_PAD", errAnswer)
	}
	return nil
}

// bindCheckMessage is that of hsm.Master.Check.
const bindCheckMessage = "conclave/v1/bind check value"

// verify checks the three objects by known answers, and by CKA_CHECK_VALUE where the device keeps one.
func (s *session) verify(ctx context.Context, want hsm.CheckValues, wrap, export canary) error {
	if err := errors.Join(s.checkValue(s.wrap, want.Wrap), s.checkValue(s.export, want.WrapExport)); err != nil {
		return err
	}
	if err := s.checkCanary(ctx, s.wrap, wrap); err != nil {
		return err
	}
	if err := s.checkCanary(ctx, s.export, export); err != nil {
		return err
	}
	mac, err := s.mac(ctx, []byte(bindCheckMessage))
	if err != nil {
		return fmt.Errorf("%w: CKM_SHA256_HMAC: %w", errAnswer, err)
	}
	if !bytes.Equal(mac[:8], want.Bind) {
		return fmt.Errorf("%w: CKM_SHA256_HMAC", errAnswer)
	}
	return nil
}

func (s *session) checkValue(object p11.ObjectHandle, want []byte) error {
	return s.own(func(h p11.SessionHandle) error {
		got, err := s.token.module.attribute(h, object, p11.CKA_CHECK_VALUE)
		if isGone(err) {
			return err
		}
		if err == nil && len(got) > 0 && !bytes.Equal(got, want) {
			return fmt.Errorf("%w: CKA_CHECK_VALUE", errAnswer)
		}
		return nil // optional in PKCS#11: the canary decides
	})
}

// importMaster makes a session of m and verifies it. With kept (nil: not), masters are objects of the token; the caller writes
// the record.
func (t *Token) importMaster(ctx context.Context, l *link, m *hsm.Master, kept *record, step func(string) error) (*session, error) {
	s, verify, err := t.importUnverified(l, m, kept, step)
	if err != nil {
		return nil, err
	}
	if err := verify(ctx); err != nil {
		s.Shut()
		return nil, damaged(err)
	}
	return s, nil
}

// damaged says so of a token whose masters do not answer, unless the module is lost.
func damaged(err error) error {
	if errors.Is(err, errAnswer) && !isGone(err) {
		return fmt.Errorf("%w: %w", hsm.ErrTokenDamaged, err)
	}
	return err
}

// importUnverified is importMaster before its last step, which it returns.
func (t *Token) importUnverified(l *link, m *hsm.Master, kept *record, step func(string) error) (
	s *session, verify func(context.Context) error, err error,
) {
	want, err := m.Check()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %v", hsm.ErrInput, err) // %v: one sentinel only
	}
	wrap, err1 := newCanary(m.Wrap)
	export, err2 := newCanary(m.WrapExport)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	if s, err = l.newSession(); err != nil {
		return nil, nil, err
	}
	s.info, s.canary = hsm.MasterInfo{ClusterID: m.ClusterID, Generation: m.Generation, Check: want}, wrap
	var tag []byte
	if kept != nil {
		tag, kept.check, kept.wrap, kept.export = kept.tag, want, wrap, export
	}
	if err := s.createMasters(m, tag, kept != nil, step); err != nil {
		s.Shut()
		return nil, nil, err
	}
	return s, func(ctx context.Context) error { return s.verify(ctx, want, wrap, export) }, nil
}

func validateMaster(m *hsm.Master, persist *hsm.Persistence) error {
	switch {
	case m == nil || m.ClusterID == "" || len(m.ClusterID) > hsm.MaxClusterID || m.Generation == 0:
		return fmt.Errorf("%w: a master needs a cluster id of at most %d bytes and a generation from 1", hsm.ErrInput, hsm.MaxClusterID)
	case len(m.Wrap) != keySize || len(m.WrapExport) != keySize || len(m.Bind) != keySize:
		return fmt.Errorf("%w: the keys of a master have %d bytes each", hsm.ErrInput, keySize)
	case persist != nil && (persist.ClusterID != m.ClusterID || persist.Generation != m.Generation):
		return fmt.Errorf("%w: the persistence of another master", hsm.ErrInput)
	}
	return nil
}
