//go:build cgo && unix

package pkcs11

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"unicode"

	p11 "github.com/miekg/pkcs11"
)

// Constants of PKCS#11 3.0 that the binding lacks.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// template is a list of attributes.
type template []*p11.Attribute

// with makes a longer one; it shares nothing that an append could overwrite.
func (t template) with(more ...*p11.Attribute) template {
	return append(t[:len(t):len(t)], more...)
}

// attr makes an attribute of a bool, uint, string or []byte; anything else is a mistake of this package.
func attr(attribute uint, value any) *p11.Attribute { return p11.NewAttribute(attribute, value) }

// ulong encodes a CK_ULONG as the machine has it.
func ulong(x uint) []byte {
	b := make([]byte, bits.UintSize/8)
	if bits.UintSize == 64 {
		binary.NativeEndian.PutUint64(b, uint64(x))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(x))
	}
	return b
}

// mechanisms is the value of CKA_ALLOWED_MECHANISMS: an array of CK_MECHANISM_TYPE.
func mechanisms(types ...uint) *p11.Attribute {
	var b []byte
	for _, m := range types {
		b = append(b, ulong(m)...)
	}
	return &p11.Attribute{Type: p11.CKA_ALLOWED_MECHANISMS, Value: b}
}

// usage names every right a key can have, so that none is left to a module's default.
func usage(granted ...uint) template {
	var t template
	for _, right := range []uint{
		p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_DERIVE,
	} {
		t = append(t, attr(right, slices.Contains(granted, right)))
	}
	return t
}

// privateUsage is usage for private keys, which do not encrypt, verify or wrap.
func privateUsage(granted ...uint) template {
	var t template
	for _, right := range []uint{p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_UNWRAP, p11.CKA_DERIVE} {
		t = append(t, attr(right, slices.Contains(granted, right)))
	}
	return t
}

func mechanism(m uint) []*p11.Mechanism { return []*p11.Mechanism{p11.NewMechanism(m, nil)} }

// trim cuts what CK_TOKEN_INFO pads with.
func trim(s string) string { return strings.TrimRight(s, " \x00") }

// printable is text of a device for people: trimmed, and without bytes that could mislead a terminal or a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, trim(s))
}

// attribute reads one attribute that is no secret.
func (m *module) attribute(s p11.SessionHandle, object p11.ObjectHandle, which uint) ([]byte, error) {
	got, err := m.ctx.GetAttributeValue(s, object, template{attr(which, nil)})
	if err != nil {
		return nil, check("C_GetAttributeValue", err)
	}
	if len(got) != 1 {
		return nil, fmt.Errorf("C_GetAttributeValue gave %d attributes for one", len(got))
	}
	return got[0].Value, nil
}

// flag reads a CK_BBOOL.
func (m *module) flag(s p11.SessionHandle, object p11.ObjectHandle, which uint) (bool, error) {
	v, err := m.attribute(s, object, which)
	if err != nil {
		return false, err
	}
	return len(v) == 1 && v[0] == 1, nil
}

// maxFound bounds a search: a node's token holds about a dozen objects.
const maxFound = 1024

// search lists the objects that match. It leaves no search active.
func (m *module) search(s p11.SessionHandle, t template) (found []p11.ObjectHandle, err error) {
	if err := check("C_FindObjectsInit", m.ctx.FindObjectsInit(s, t)); err != nil {
		return nil, err
	}
	defer func() {
		if final := check("C_FindObjectsFinal", m.ctx.FindObjectsFinal(s)); err == nil {
			err = final
		}
	}()
	for {
		some, _, err := m.ctx.FindObjects(s, 64)
		if err != nil {
			return nil, check("C_FindObjects", err)
		}
		if len(some) == 0 {
			return found, nil
		}
		if found = append(found, some...); len(found) > maxFound {
			return nil, fmt.Errorf("more than %d objects match a search", maxFound)
		}
	}
}
