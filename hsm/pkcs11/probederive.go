//go:build cgo && unix

package pkcs11

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// Whoever may derive from a master has an oracle: CKM_AES_ECB_ENCRYPT_DATA gives AES of what one likes, which forges RFC 5649 blobs, and
// others give parts of the key. So the test at the start tries it.

// Constants that the binding lacks: of PKCS#11 2.40 and 3.0.
const (
	ckmSHA1KeyDerivation   = 0x392
	ckmSHA256KeyDerivation = 0x393
	ckmSHA384KeyDerivation = 0x394
	ckmSHA512KeyDerivation = 0x395
	ckmCounterKDF          = 0x3AC
	ckmHKDFDerive          = 0x402A
)

// derivation is a way to make a key of another secret key.
type derivation struct {
	name   string
	mech   uint
	form   int
	number uint
}

// derivations are those of the standard that take an AES key or a generic secret. Devices may have others, of their vendors.
var derivations = []derivation{
	{"CKM_AES_ECB_ENCRYPT_DATA", p11.CKM_AES_ECB_ENCRYPT_DATA, derivesByString, 0},
	{"CKM_AES_CBC_ENCRYPT_DATA", p11.CKM_AES_CBC_ENCRYPT_DATA, derivesByCBC, 0},
	{"CKM_CONCATENATE_BASE_AND_DATA", p11.CKM_CONCATENATE_BASE_AND_DATA, derivesByString, 0},
	{"CKM_CONCATENATE_DATA_AND_BASE", p11.CKM_CONCATENATE_DATA_AND_BASE, derivesByString, 0},
	{"CKM_XOR_BASE_AND_DATA", p11.CKM_XOR_BASE_AND_DATA, derivesByString, 0},
	{"CKM_EXTRACT_KEY_FROM_KEY", p11.CKM_EXTRACT_KEY_FROM_KEY, derivesByNumber, 0},
	{"CKM_SHA1_KEY_DERIVATION", ckmSHA1KeyDerivation, derivesPlain, 0},
	{"CKM_SHA256_KEY_DERIVATION", ckmSHA256KeyDerivation, derivesPlain, 0},
	{"CKM_SHA384_KEY_DERIVATION", ckmSHA384KeyDerivation, derivesPlain, 0},
	{"CKM_SHA512_KEY_DERIVATION", ckmSHA512KeyDerivation, derivesPlain, 0},
	{"CKM_HKDF_DERIVE", ckmHKDFDerive, derivesByHKDF, p11.CKM_SHA256},
	{"CKM_SP800_108_COUNTER_KDF with HMAC", ckmCounterKDF, derivesByCounter, p11.CKM_SHA256_HMAC},
	{"CKM_SP800_108_COUNTER_KDF with CMAC", ckmCounterKDF, derivesByCounter, p11.CKM_AES_CMAC},
}

// derives names the ways in which a key can be derived from base, readable or not: what is unreadable can be used. The derived keys belong
// to session w.
func (m *module) derives(w p11.SessionHandle, base p11.ObjectHandle) (names []string) {
	data := make([]byte, keySize)
	ways := append(derivations[:len(derivations):len(derivations)],
		derivation{"CKM_CONCATENATE_BASE_AND_KEY", p11.CKM_CONCATENATE_BASE_AND_KEY, derivesByNumber, uint(base)})
	for _, way := range ways {
		for _, sensitive := range []bool{false, true} {
			_, err := m.deriveBy(w, way.mech, way.form, data, way.number, base, template{
				attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET), attr(p11.CKA_TOKEN, false),
				attr(p11.CKA_SENSITIVE, sensitive), attr(p11.CKA_EXTRACTABLE, !sensitive), attr(p11.CKA_VALUE_LEN, uint(16)),
			})
			if err == nil {
				names = append(names, way.name)
				break
			}
		}
	}
	return names
}

func (s *session) attacksByDerivation(w p11.SessionHandle, o target) []string {
	names := s.token.module.derives(w, o.object)
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("CKA_DERIVE: keys can be derived from %s in %d ways, such as %s", o.name, len(names), names[0])}
}
