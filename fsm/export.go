package fsm

import (
	"encoding/hex"
	"strings"
)

// Exports reports whether the next version of a key is made exportable: its latest one was, and nothing has taken that away since.
func (s *State) Exports(k *Key) bool {
	c := s.ClassRecord(k.Class)
	return c != nil && c.Export && !k.NeverExportable && k.Versions[len(k.Versions)-1].Exportable
}

// exportKey records an export before anything is released, so the log may name one that came to nothing, and never misses one.
func (x *execution) exportKey(c ExportKey) error {
	k, err := x.findKey(c.Name)
	if err != nil {
		return err
	}
	v, has := k.Version(c.Version)
	if k.ID != c.ID || !has {
		return refuse(CodeNotFound, "key %s has no version %d with the id %s", k.Name, c.Version, clip(string(c.ID)))
	}
	if err := validExport(c); err != nil {
		return err
	}
	class, _ := x.Class(k.Class)
	if p := PermitFor(OpExport, class, &k, v, ""); !p.Allowed {
		return refuse(p.Code, "key %s version %d: %s", k.Name, v.Version, p.Message)
	}
	v.Dates = v.Dates.with(func(d *Dates) { d.ExportedAt = x.now })
	x.putVersion(&k, v)
	x.result.KeyID, x.result.Version = k.ID, v.Version
	x.emit(Event{
		Action: "key.export", Subject: keySubject(k.Name), SubjectID: string(k.ID), Version: v.Version,
		Detail: "form=" + c.Form + " recipient=sha256:" + hex.EncodeToString(c.Recipient[:]),
	})
	return nil
}

// validExport: the log shows the form beside other fields, so it is a word; a recipient is somebody.
func validExport(c ExportKey) error {
	if err := validText("the form of wrapping", c.Form, maxShort); err != nil {
		return err
	}
	if c.Form == "" || strings.ContainsAny(c.Form, " =") {
		return invalid("the form of wrapping %q is no word", clip(c.Form))
	}
	if c.Recipient == ([32]byte{}) {
		return invalid("an export names its recipient by the SHA-256 of a SubjectPublicKeyInfo")
	}
	return nil
}
