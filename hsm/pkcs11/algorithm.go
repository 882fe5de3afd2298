//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// algorithm is how PKCS#11 speaks of one of ours.
type algorithm struct {
	id        hsm.Algorithm
	name      string // for people
	generator uint   // CKM_… that makes a key or a pair
	// generatorName and useName are for what Capabilities says is missing.
	generatorName, useName string
	keyType                uint
	parameters             template // of generation: length, curve or modulus; for a pair they are the public key's
	uses                   []uint   // rights of a working copy
	allowed                []uint   // its mechanisms, and no others
	// minBlob and maxBlob bound the wrapped form: what cannot hold such a key is refused before the device parses it.
	minBlob, maxBlob int
	// inspect checks a fresh working copy by its attributes; nil: nothing can be read.
	inspect func(*module, p11.SessionHandle, p11.ObjectHandle) error
	// public reads the public key in the form of hsm.MarshalPublicKey.
	public func(*module, p11.SessionHandle, p11.ObjectHandle) ([]byte, error)
	// length of a raw secret, in bytes, bits of an RSA modulus, and the mechanism of an HMAC.
	length int
	bits   int
	mac    uint
	// sign makes the signature that hsm.Verify takes. public is the bound key in the form of hsm.ParsePublicKey.
	sign func(f functions, w p11.SessionHandle, key p11.ObjectHandle, in hsm.SignInput, public []byte) ([]byte, error)
	// decrypt opens what hsm.EncryptOAEP made.
	decrypt func(m *module, w p11.SessionHandle, key p11.ObjectHandle, ciphertext []byte) ([]byte, error)
	// agree gives the shared secret with a peer's public key, in the form of hsm.ParsePublicKey.
	agree func(m *module, w p11.SessionHandle, key p11.ObjectHandle, peer []byte) ([]byte, error)
}

func (a *algorithm) isPair() bool { return a.public != nil }

// curve is a Weierstrass curve.
type curve struct {
	name   string
	params string // CKA_EC_PARAMS: DER of the curve's object identifier
	size   int    // bytes of a coordinate
}

var (
	p256      = curve{"P-256", "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 32} // prime256v1
	p384      = curve{"P-384", "\x06\x05\x2b\x81\x04\x00\x22", 48}             // secp384r1
	p521      = curve{"P-521", "\x06\x05\x2b\x81\x04\x00\x23", 66}             // secp521r1
	secp256k1 = curve{"secp256k1", "\x06\x05\x2b\x81\x04\x00\x0a", 32}         // 1.3.132.0.10
)

const curveEd25519 = "\x06\x03\x2b\x65\x70" // id-Ed25519, RFC 8410

// blobs bounds the wrapped form of a private key on c: PKCS#8 has the scalar, the point or not, the curve once or twice (RFC 5915), some
// 40 bytes of structure, and up to seven of a device's filling.
func (c curve) blobs() (least, most int) { return c.size + 40, 3*c.size + 90 }

func (c curve) point() int { return 2*c.size + 1 }

var algorithms = []*algorithm{
	aesGCM(hsm.AES128GCM, "AES-128", 16),
	aesGCM(hsm.AES256GCM, "AES-256", 32),
	mac(hsm.HMACSHA256, "CKM_SHA256_HMAC", p11.CKM_SHA256_HMAC, 32),
	mac(hsm.HMACSHA384, "CKM_SHA384_HMAC", p11.CKM_SHA384_HMAC, 48),
	mac(hsm.HMACSHA512, "CKM_SHA512_HMAC", p11.CKM_SHA512_HMAC, 64),
	ecdsa(hsm.ECDSAP256, p256, derSignature),
	ecdsa(hsm.ECDSAP384, p384, derSignature),
	ecdsa(hsm.ECDSAP521, p521, derSignature),
	ecdsa(hsm.ECDSASecp256k1, secp256k1, secp256k1Signature),
	{
		id: hsm.Ed25519, name: "Ed25519", keyType: ckkECEdwards, generator: ckmECEdwardsKeyPairGen,
		generatorName: "CKM_EC_EDWARDS_KEY_PAIR_GEN", useName: "CKM_EDDSA",
		parameters: template{attr(p11.CKA_EC_PARAMS, curveEd25519)},
		uses:       []uint{p11.CKA_SIGN}, allowed: []uint{ckmEdDSA},
		minBlob: 56, maxBlob: 64, // RFC 8410: 48 bytes
		inspect: func(m *module, s p11.SessionHandle, o p11.ObjectHandle) error {
			return inspectCurve(m, s, o, curveEd25519, "\x13\x0cedwards25519")
		},
		public: func(m *module, s p11.SessionHandle, o p11.ObjectHandle) ([]byte, error) {
			return readPoint(m, s, o, 32)
		},
		sign: func(f functions, s p11.SessionHandle, key p11.ObjectHandle, in hsm.SignInput, _ []byte) ([]byte, error) {
			signature, err := f.sign(s, ckmEdDSA, nil, key, in.Message, 64)
			if err == nil && len(signature) != 64 {
				return nil, errSignature
			}
			return signature, err
		},
	},
	rsaSigning(hsm.RSA2048, 2048), rsaSigning(hsm.RSA3072, 3072), rsaSigning(hsm.RSA4096, 4096),
	rsaDecryption(hsm.RSA2048OAEP, 2048), rsaDecryption(hsm.RSA3072OAEP, 3072), rsaDecryption(hsm.RSA4096OAEP, 4096),
	agreement(hsm.ECDHP256, p256),
}

// secret is a raw secret; RFC 5649 makes blobs of exactly eight bytes more.
func secret(id hsm.Algorithm, name string, length int) *algorithm {
	return &algorithm{
		id: id, name: name, length: length, parameters: template{attr(p11.CKA_VALUE_LEN, length)},
		minBlob: length + 8, maxBlob: length + 8,
		inspect: func(m *module, s p11.SessionHandle, o p11.ObjectHandle) error { return inspectLength(m, s, o, length) },
	}
}

func aesGCM(id hsm.Algorithm, name string, length int) *algorithm {
	a := secret(id, name, length)
	a.keyType, a.generator, a.generatorName, a.useName = p11.CKK_AES, p11.CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN", "CKM_AES_GCM"
	a.uses, a.allowed = []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}, []uint{p11.CKM_AES_GCM}
	return a
}

func mac(id hsm.Algorithm, name string, mechanism uint, length int) *algorithm {
	a := secret(id, "HMAC", length)
	a.keyType, a.generator, a.generatorName = p11.CKK_GENERIC_SECRET, p11.CKM_GENERIC_SECRET_KEY_GEN, "CKM_GENERIC_SECRET_KEY_GEN"
	a.useName, a.mac = name, mechanism
	a.uses, a.allowed = []uint{p11.CKA_SIGN, p11.CKA_VERIFY}, []uint{mechanism}
	return a
}

// pair is a key pair on a curve.
func pair(id hsm.Algorithm, c curve) *algorithm {
	least, most := c.blobs()
	return &algorithm{
		id: id, name: c.name, keyType: p11.CKK_EC, generator: p11.CKM_EC_KEY_PAIR_GEN, generatorName: "CKM_EC_KEY_PAIR_GEN",
		parameters: template{attr(p11.CKA_EC_PARAMS, c.params)}, minBlob: least, maxBlob: most,
		inspect: func(m *module, s p11.SessionHandle, o p11.ObjectHandle) error { return inspectCurve(m, s, o, c.params) },
		public: func(m *module, s p11.SessionHandle, o p11.ObjectHandle) ([]byte, error) {
			return readPoint(m, s, o, c.point())
		},
	}
}

func ecdsa(id hsm.Algorithm, c curve, encode encoder) *algorithm {
	a := pair(id, c)
	a.useName, a.uses, a.allowed = "CKM_ECDSA", []uint{p11.CKA_SIGN}, []uint{p11.CKM_ECDSA}
	a.sign = func(f functions, s p11.SessionHandle, key p11.ObjectHandle, in hsm.SignInput, public []byte) ([]byte, error) {
		return signECDSA(f, s, key, id, in, public, c.size, encode)
	}
	return a
}

func agreement(id hsm.Algorithm, c curve) *algorithm {
	a := pair(id, c)
	a.useName, a.uses, a.allowed = "CKM_ECDH1_DERIVE", []uint{p11.CKA_DERIVE}, []uint{p11.CKM_ECDH1_DERIVE}
	a.agree = (*module).derive
	return a
}

// lookup finds the row of an algorithm. hsm.ErrUnsupported.
func lookup(id hsm.Algorithm) (*algorithm, error) {
	for _, a := range algorithms {
		if a.id == id {
			return a, nil
		}
	}
	return nil, fmt.Errorf("%w: algorithm %q", hsm.ErrUnsupported, id)
}

// classAndType are the first attributes of every template.
func (a *algorithm) classAndType() template {
	class := uint(p11.CKO_SECRET_KEY)
	if a.isPair() {
		class = p11.CKO_PRIVATE_KEY
	}
	return template{attr(p11.CKA_CLASS, class), attr(p11.CKA_KEY_TYPE, a.keyType)}
}

// rights are those of a working copy, with its mechanisms.
func (a *algorithm) rights() template {
	if a.isPair() {
		return privateUsage(a.uses...).with(mechanisms(a.allowed...))
	}
	return usage(a.uses...).with(mechanisms(a.allowed...))
}

// copyTemplate is that of C_UnwrapKey: strict, and without CKA_MODIFIABLE, which SoftHSM takes for an attempt to change
// something.
func (a *algorithm) copyTemplate() template {
	return a.classAndType().with(
		attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, true),
		attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false), attr(p11.CKA_COPYABLE, false),
	).with(a.rights()...)
}

// transitCopy is that of a key which is unwrapped to be wrapped again.
func (a *algorithm) transitCopy() template {
	return a.classAndType().with(
		attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, true),
	).with(a.rights()...)
}

// transitTemplate is that of a new key, which lives until it is wrapped: extractable, or it could not be, and good for nothing
// else.
func (a *algorithm) transitTemplate() template {
	t := template{
		attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, true),
	}
	if a.isPair() {
		return t.with(a.rights()...)
	}
	return t.with(a.classAndType()...).with(a.parameters...).with(a.rights()...)
}

// inspectLength checks CKA_VALUE_LEN where the device keeps it after unwrapping; SoftHSM 2.6.1 says 0, and the length of the
// blob has to do.
func inspectLength(m *module, s p11.SessionHandle, o p11.ObjectHandle, length int) error {
	v, err := m.attribute(s, o, p11.CKA_VALUE_LEN)
	if isGone(err) {
		return err
	}
	if err != nil || bytes.Equal(v, ulong(0)) || bytes.Equal(v, ulong(uint(length))) {
		return nil
	}
	return errMaterial
}

func inspectCurve(m *module, s p11.SessionHandle, o p11.ObjectHandle, curves ...string) error {
	v, err := m.attribute(s, o, p11.CKA_EC_PARAMS)
	if err != nil {
		return err
	}
	for _, curve := range curves {
		if string(v) == curve {
			return nil
		}
	}
	return errMaterial
}

// readPoint reads CKA_EC_POINT, which is a DER OCTET STRING of the point; some modules give the bare point.
func readPoint(m *module, s p11.SessionHandle, o p11.ObjectHandle, size int) ([]byte, error) {
	v, err := m.attribute(s, o, p11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	der, point := cryptobyte.String(v), cryptobyte.String(nil)
	if der.ReadASN1(&point, casn1.OCTET_STRING) && der.Empty() && len(point) == size {
		return point, nil
	}
	if len(v) == size {
		return v, nil
	}
	return nil, fmt.Errorf("CKA_EC_POINT has %d bytes, a point of %d was expected", len(v), size)
}
