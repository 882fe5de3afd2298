//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// A kept master is three objects of the token with one CKA_ID, and the record that names it. The order of writing makes every
// crash leave the old kept master, the new one, or none:
//
//	keep:   masters → record (from now on the new one counts) → remove older records → remove masters that no record names
//	forget: remove records, the oldest first, so that none comes back to life → remove masters
//
// What a crash leaves over is removed when the token is opened, and by the next import.

const (
	labelRecord      = "conclave-kept-master"
	applicationLabel = "conclave"
)

func masterLabels() []string { return []string{labelWrap, labelExport, labelBind} }

// storedRecord is a record as it was found; record is nil if it does not decode.
type storedRecord struct {
	object p11.ObjectHandle
	record *record
	err    error
}

// records lists what is there, the one that counts last, and before all those that do not decode.
func (m *module) records(w p11.SessionHandle) ([]storedRecord, error) {
	objects, err := m.search(w, template{
		attr(p11.CKA_CLASS, p11.CKO_DATA), attr(p11.CKA_TOKEN, true),
		attr(p11.CKA_APPLICATION, applicationLabel), attr(p11.CKA_LABEL, labelRecord),
	})
	if err != nil {
		return nil, fmt.Errorf("looking for a kept master: %w", err)
	}
	var all []storedRecord
	for _, o := range objects {
		value, err := m.attribute(w, o, p11.CKA_VALUE)
		if err != nil {
			return nil, fmt.Errorf("reading the record of a kept master: %w", err)
		}
		found := storedRecord{object: o}
		found.record, found.err = decodeRecord(value)
		all = append(all, found)
	}
	slices.SortFunc(all, func(a, b storedRecord) int { return cmp.Compare(a.order(), b.order()) })
	return all, nil
}

func (s storedRecord) order() uint64 {
	if s.record == nil {
		return 0
	}
	return s.record.sequence
}

// current is the record that counts. hsm.ErrNoMaster; hsm.ErrTokenDamaged if there are records and none decodes.
func current(all []storedRecord) (*record, error) {
	if len(all) == 0 {
		return nil, hsm.ErrNoMaster
	}
	last := all[len(all)-1]
	return last.record, last.err
}

// newRecord prepares the record of an import: a sequence above all that are there, and a fresh tag.
func (t *Token) newRecord(w p11.SessionHandle, p hsm.Persistence) (*record, error) {
	all, err := t.module.records(w)
	if err != nil {
		return nil, err
	}
	r := &record{Persistence: p, sequence: 1, tag: make([]byte, importTagSize)}
	if n := len(all); n > 0 {
		if r.sequence = all[n-1].order() + 1; r.sequence == 0 {
			return nil, fmt.Errorf("%w: the sequence of kept masters is used up; seal with forgetting first", hsm.ErrTokenDamaged)
		}
	}
	if _, err := rand.Read(r.tag); err != nil {
		return nil, fmt.Errorf("naming a kept master: %w", err)
	}
	return r, nil
}

// keep writes the record of the open session s.
func (t *Token) keep(ctx context.Context, w p11.SessionHandle, s *session, r *record) (err error) {
	if r.mac, err = s.mac(ctx, r.message()); err != nil {
		return fmt.Errorf("signing the record of a kept master: %w", err)
	}
	if err := t.step("create " + labelRecord); err != nil {
		return err
	}
	_, err = t.module.create(w, template{
		attr(p11.CKA_CLASS, p11.CKO_DATA), attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_MODIFIABLE, false),
		attr(p11.CKA_APPLICATION, applicationLabel), attr(p11.CKA_LABEL, labelRecord),
		attr(p11.CKA_VALUE, append(r.encode(), r.mac...)),
	})
	if err != nil {
		return fmt.Errorf("writing the record of a kept master: %w", err)
	}
	return nil
}

// sweep removes everything kept but the record that counts and its masters.
func (t *Token) sweep(w p11.SessionHandle) error {
	all, err := t.module.records(w)
	if err != nil || len(all) == 0 {
		return firstError(err, func() error { return t.removeMasters(w, nil) })
	}
	last := all[len(all)-1]
	if err := t.removeRecords(w, all[:len(all)-1]); err != nil {
		return err
	}
	if last.record == nil {
		return nil // damaged: which masters it named is unknown; the next import removes all
	}
	return t.removeMasters(w, last.record.tag)
}

// forget removes all that is kept.
func (t *Token) forget(w p11.SessionHandle) error {
	all, err := t.module.records(w)
	if err != nil {
		return err
	}
	if err := t.removeRecords(w, all); err != nil {
		return err
	}
	return t.removeMasters(w, nil)
}

func firstError(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

// removeRecords keeps the order: a younger one must not go before an older one, which would count again.
func (t *Token) removeRecords(w p11.SessionHandle, all []storedRecord) error {
	for _, r := range all {
		if err := t.remove(w, labelRecord, r.object); err != nil {
			return err
		}
	}
	return nil
}

// removeMasters destroys the kept master objects, but those of the tag except (nil: of none).
func (t *Token) removeMasters(w p11.SessionHandle, except []byte) error {
	for _, label := range masterLabels() {
		objects, err := t.module.search(w, masterSearch(label))
		if err != nil {
			return fmt.Errorf("looking for kept masters: %w", err)
		}
		for _, o := range objects {
			tag, err := t.module.attribute(w, o, p11.CKA_ID)
			if err != nil {
				return fmt.Errorf("looking for kept masters: %w", err)
			}
			if except != nil && bytes.Equal(tag, except) {
				continue
			}
			if err := t.remove(w, label, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func masterSearch(label string) template {
	return template{attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_TOKEN, true), attr(p11.CKA_LABEL, label)}
}

func (t *Token) remove(w p11.SessionHandle, label string, o p11.ObjectHandle) error {
	if err := t.step("destroy " + label); err != nil {
		return err
	}
	if err := check("C_DestroyObject", t.module.ctx.DestroyObject(w, o)); err != nil {
		return fmt.Errorf("removing %s from the token: %w", label, err)
	}
	return nil
}

// restore opens a session on the masters that r names. hsm.ErrTokenDamaged if they are not all there, not protected, or answer
// wrongly.
func (t *Token) restore(ctx context.Context, l *link, r *record) (*session, error) {
	s, err := l.newSession()
	if err != nil {
		return nil, err
	}
	s.info, s.canary = hsm.MasterInfo{ClusterID: r.ClusterID, Generation: r.Generation, Check: r.check}, r.wrap
	err = s.own(func(h p11.SessionHandle) error { return s.adoptKept(h, r.tag) })
	if err == nil {
		err = damaged(s.verify(ctx, r.check, r.wrap, r.export))
	}
	if err == nil {
		err = s.verifyRecord(ctx, r)
	}
	if err == nil { // what was imposed on an object of the token must have survived the restart
		err = s.enforced(
			target{labelWrap, s.wrap, r.wrap.blob}, target{labelExport, s.export, r.export.blob}, target{labelBind, s.bind, nil},
		)
		if errors.Is(err, errNotEnforced) {
			err = t.refused(err)
		}
	}
	if err != nil {
		s.Shut()
		return nil, err
	}
	return s, nil
}

// adoptKept finds the objects of a tag.
func (s *session) adoptKept(h p11.SessionHandle, tag []byte) error {
	m := s.token.module
	for label, object := range map[string]*p11.ObjectHandle{labelWrap: &s.wrap, labelExport: &s.export, labelBind: &s.bind} {
		found, err := m.search(h, masterSearch(label).with(attr(p11.CKA_ID, tag)))
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("%w: its record names a kept master, and %d objects %s are there; unseal it by a ceremony",
				hsm.ErrTokenDamaged, len(found), label)
		}
		if err := m.isRestricted(h, found[0]); err != nil {
			return fmt.Errorf("%w: %s: %w", hsm.ErrTokenDamaged, label, err)
		}
		*object = found[0]
	}
	return nil
}

// verifyRecord: cluster, generation and index of the unsealing are as they were written under this master.
func (s *session) verifyRecord(ctx context.Context, r *record) error {
	want, err := s.mac(ctx, r.message())
	if err != nil {
		return fmt.Errorf("checking the record of a kept master: %w", err)
	}
	if !hmac.Equal(want, r.mac) {
		return fmt.Errorf("%w: the record of the kept master does not verify; unseal it by a ceremony", hsm.ErrTokenDamaged)
	}
	return nil
}
