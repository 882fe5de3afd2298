package soft

import (
	"bytes"
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

var _ keyuse.Exporter = (*Token)(nil)

// Export implements keyuse.Exporter.
func (t *Token) Export(ctx context.Context, k hsm.WrappedKey, to hsm.Recipient) ([]byte, error) {
	s, err := t.turns.Enter(ctx, "export")
	if err != nil {
		return nil, err
	}
	defer s.End()
	if !k.Binding.Exportable {
		return nil, fmt.Errorf("%w: the key was not made exportable: it rests under the master's wrap key, from which nothing leaves", hsm.ErrInput)
	}
	return erased(func() ([]byte, error) { return t.export(s, k, to) })
}

func (t *Token) export(s *session, k hsm.WrappedKey, to hsm.Recipient) ([]byte, error) {
	material, err := s.unwrapKey(k)
	if err != nil {
		return nil, err
	}
	defer clear(material)
	// What is no key of its algorithm must not leave under its name.
	opened := bytes.Clone(material) // some kinds of keys take and wipe it
	defer clear(opened)
	usable, err := openMaterial(k.Binding.Algorithm, opened, k.Binding.PublicKey, t.region)
	if err != nil {
		return nil, err
	}
	usable.wipe()
	return wrapTo(to, material)
}

func wrapTo(to hsm.Recipient, material []byte) ([]byte, error) {
	switch to.Form() {
	case hsm.FormRSA:
		return keywrap.WrapRSA(to.RSA(), material)
	case hsm.FormECDH:
		return keywrap.WrapECDH(to.ECDH(), material)
	}
	return nil, fmt.Errorf("%w: no recipient", hsm.ErrInput)
}
