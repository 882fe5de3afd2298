package hsm

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/mlkem"
	"encoding/pem"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// uncompressedPoint is the first byte of a SEC 1 point with both coordinates: the only form here, so that a key has one encoding.
const uncompressedPoint = 0x04

// spkiPrefix is everything in a DER SubjectPublicKeyInfo before the key itself. DER has one encoding for a value, so for an
// algorithm with fixed parameters and a key of fixed length the prefix is a constant, and comparing it is the strictest parser.
var spkiPrefix = map[Algorithm]string{
	// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 65 bytes } (RFC 5480)
	ECDSAP256: prefixP256,
	ECDHP256:  prefixP256, // id-ecPublicKey too: id-ecDH is hardly understood by anyone, and the binding names the use
	// SEQUENCE { SEQUENCE { id-ecPublicKey, secp384r1 }, BIT STRING of 97 bytes }
	ECDSAP384: "\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
	// SEQUENCE { SEQUENCE { id-ecPublicKey, secp521r1 }, BIT STRING of 133 bytes }
	ECDSAP521: "\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00",
	// SEQUENCE { SEQUENCE { id-ecPublicKey, secp256k1 1.3.132.0.10 }, BIT STRING of 65 bytes } (SEC 2); unknown to crypto/x509
	ECDSASecp256k1: "\x30\x56\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a\x03\x42\x00",
	// SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING of 32 bytes } (RFC 8410)
	Ed25519: "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
	// SEQUENCE { SEQUENCE { id-X25519 }, BIT STRING of 32 bytes } (RFC 8410)
	ECDHX25519: "\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00",
	// SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING of 270, 398 or 526 bytes } (RFC 4055). Decryption keys have the same
	// identifier: id-RSAES-OAEP would tie parameters that peers' programs do not read.
	RSA2048: prefixRSA2048, RSA2048OAEP: prefixRSA2048,
	RSA3072: prefixRSA3072, RSA3072OAEP: prefixRSA3072,
	RSA4096: prefixRSA4096, RSA4096OAEP: prefixRSA4096,
	// SEQUENCE { SEQUENCE { id-ml-dsa-44, -65, -87 }, BIT STRING of 1312, 1952 or 2592 bytes } (RFC 9881)
	MLDSA44: "\x30\x82\x05\x32\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x11\x03\x82\x05\x21\x00",
	MLDSA65: "\x30\x82\x07\xb2\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12\x03\x82\x07\xa1\x00",
	MLDSA87: "\x30\x82\x0a\x32\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x13\x03\x82\x0a\x21\x00",
	// SEQUENCE { SEQUENCE { id-alg-ml-kem-768 }, BIT STRING of 1184 bytes } (RFC 9935)
	MLKEM768: "\x30\x82\x04\xb2\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02\x03\x82\x04\xa1\x00",
}

const (
	prefixP256    = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
	prefixRSA2048 = "\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00"
	prefixRSA3072 = "\x30\x82\x01\xa2\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x8f\x00"
	prefixRSA4096 = "\x30\x82\x02\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x02\x0f\x00"
)

// rsaForm is an RSAPublicKey (RFC 8017 A.1.1) of one size: SEQUENCE { INTEGER of modulus bytes behind a zero byte, INTEGER 65537 }.
type rsaForm struct {
	prefix  string
	modulus int // bytes
}

const rsaSuffix = "\x02\x03\x01\x00\x01"

var (
	rsaForm2048 = rsaForm{"\x30\x82\x01\x0a\x02\x82\x01\x01\x00", 2048 / 8}
	rsaForm3072 = rsaForm{"\x30\x82\x01\x8a\x02\x82\x01\x81\x00", 3072 / 8}
	rsaForm4096 = rsaForm{"\x30\x82\x02\x0a\x02\x82\x02\x01\x00", 4096 / 8}
)

// MarshalPublicKey encodes a public key as DER SubjectPublicKeyInfo. public is the uncompressed SEC 1 point (65, 97 or 133 bytes) on
// a Weierstrass curve, the 32 bytes of RFC 8032 or RFC 7748, the DER RSAPublicKey (RFC 8017) of 270, 398 or 526 bytes for RSA, the
// encoding of FIPS 204 or FIPS 203 for ML-DSA and ML-KEM. ErrInput if it is no key of alg, ErrUnsupported if alg has no public keys.
func MarshalPublicKey(alg Algorithm, public []byte) ([]byte, error) {
	prefix, ok := spkiPrefix[alg]
	if !ok {
		return nil, fmt.Errorf("%w: public keys of %q", ErrUnsupported, alg)
	}
	if err := checkPublic(alg, public); err != nil {
		return nil, err
	}
	return append([]byte(prefix), public...), nil
}

// ParsePublicKey is the inverse of MarshalPublicKey. It accepts exactly what MarshalPublicKey makes. ErrInput, ErrUnsupported.
func ParsePublicKey(alg Algorithm, spki []byte) ([]byte, error) {
	prefix, ok := spkiPrefix[alg]
	if !ok {
		return nil, fmt.Errorf("%w: public keys of %q", ErrUnsupported, alg)
	}
	public, ok := bytes.CutPrefix(spki, []byte(prefix))
	if !ok {
		return nil, fmt.Errorf("%w: no DER SubjectPublicKeyInfo of an %s key", ErrInput, alg)
	}
	if err := checkPublic(alg, public); err != nil {
		return nil, err
	}
	return public, nil
}

// checkPublic verifies length and form, and what else makes a key valid: on a Weierstrass curve that the point is on it (SP 800-56A
// §5.6.2.3.4), for RSA that the modulus has all its bits and is odd, for ML-KEM that every coefficient is reduced (FIPS 203 §7.2).
// Ed25519 and X25519 accept any 32 bytes here: whether they decode to a point is decided by each verification, and a point of small
// order is refused by each agreement. Every encoding of the right length is an ML-DSA key (FIPS 204 alg. 23).
func checkPublic(alg Algorithm, public []byte) error {
	ok := false
	switch alg {
	case ECDSAP256, ECDHP256:
		ok = isOnCurve(ecdh.P256(), 32, public)
	case ECDSAP384:
		ok = isOnCurve(ecdh.P384(), 48, public)
	case ECDSAP521:
		ok = isOnCurve(ecdh.P521(), 66, public)
	case ECDSASecp256k1:
		if ok = isUncompressed(public, 32); ok {
			_, err := secp256k1.ParsePubKey(public)
			ok = err == nil
		}
	case Ed25519, ECDHX25519:
		ok = len(public) == ed25519.PublicKeySize
	case RSA2048, RSA2048OAEP:
		ok = rsaForm2048.is(public)
	case RSA3072, RSA3072OAEP:
		ok = rsaForm3072.is(public)
	case RSA4096, RSA4096OAEP:
		ok = rsaForm4096.is(public)
	case MLDSA44:
		ok = len(public) == mldsa44.PublicKeySize
	case MLDSA65:
		ok = len(public) == mldsa65.PublicKeySize
	case MLDSA87:
		ok = len(public) == mldsa87.PublicKeySize
	case MLKEM768:
		_, err := mlkem.NewEncapsulationKey768(public)
		ok = err == nil
	}
	if !ok {
		return fmt.Errorf("%w: no %s public key", ErrInput, alg)
	}
	return nil
}

func isUncompressed(point []byte, coordinate int) bool {
	return len(point) == 1+2*coordinate && point[0] == uncompressedPoint
}

func isOnCurve(curve ecdh.Curve, coordinate int, point []byte) bool {
	if !isUncompressed(point, coordinate) {
		return false
	}
	_, err := curve.NewPublicKey(point)
	return err == nil
}

func (f rsaForm) is(public []byte) bool {
	rest, ok1 := bytes.CutPrefix(public, []byte(f.prefix))
	modulus, ok2 := bytes.CutSuffix(rest, []byte(rsaSuffix))
	return ok1 && ok2 && len(modulus) == f.modulus && modulus[0]&0x80 != 0 && modulus[f.modulus-1]&1 != 0
}

// PublicKeyPEM is the form users get: PEM "PUBLIC KEY" (RFC 7468) of a DER SubjectPublicKeyInfo.
func PublicKeyPEM(spki []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
}
