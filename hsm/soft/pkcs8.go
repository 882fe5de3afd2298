package soft

import (
	"bytes"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/conclave-vault/conclave/hsm"
)

var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} // RFC 5480
	oidP256        = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384        = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidP521        = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	oidSecp256k1   = asn1.ObjectIdentifier{1, 3, 132, 0, 10} // SEC 2; unknown to crypto/x509
)

// maxPadding is how many zero bytes may follow a PKCS#8 DER: SoftHSM 2.6.1 fills to a multiple of eight before it wraps, so the
// length inside RFC 5649 is the filled one.
const maxPadding = 7

var (
	tagECParameters = casn1.Tag(0).Constructed().ContextSpecific()
	tagECPublicKey  = casn1.Tag(1).Constructed().ContextSpecific()
)

// curveOf is the named curve of an algorithm on a Weierstrass curve, nil for others.
func curveOf(alg hsm.Algorithm) asn1.ObjectIdentifier {
	switch alg {
	case hsm.ECDSAP256, hsm.ECDHP256:
		return oidP256
	case hsm.ECDSAP384:
		return oidP384
	case hsm.ECDSAP521:
		return oidP521
	case hsm.ECDSASecp256k1:
		return oidSecp256k1
	}
	return nil
}

// marshalEC encodes a scalar of the order's length as PKCS#8 (RFC 5958) around ECPrivateKey (RFC 5915). With a point the result is
// what crypto/x509 makes for NIST curves. It is one allocation, so that wiping it wipes all.
func marshalEC(curve asn1.ObjectIdentifier, scalar, point []byte) ([]byte, error) {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, maxPKCS8))
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidECPublicKey)
			b.AddASN1ObjectIdentifier(curve)
		})
		b.AddASN1(casn1.OCTET_STRING, func(b *cryptobyte.Builder) { addECPrivateKey(b, scalar, point) })
	})
	return b.Bytes()
}

func addECPrivateKey(b *cryptobyte.Builder, scalar, point []byte) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1OctetString(scalar)
		if point != nil {
			b.AddASN1(tagECPublicKey, func(b *cryptobyte.Builder) { b.AddASN1BitString(point) })
		}
	})
}

// parseEC is strict: DER, the named curve, no attributes, nothing behind but maxPadding zeros. It returns views of der; point is nil
// if the encoding has none, and is not checked against the scalar here. The scalar's length and range are publicOf's to check.
func parseEC(der []byte, curve asn1.ObjectIdentifier) (scalar, point []byte, ok bool) {
	rest := cryptobyte.String(der)
	var outer, algorithm, private cryptobyte.String
	var version int
	var named asn1.ObjectIdentifier
	ok = rest.ReadASN1(&outer, casn1.SEQUENCE) && isPadding(rest) &&
		outer.ReadASN1Integer(&version) && version == 0 &&
		outer.ReadASN1(&algorithm, casn1.SEQUENCE) &&
		algorithm.ReadASN1ObjectIdentifier(&named) && named.Equal(oidECPublicKey) &&
		algorithm.ReadASN1ObjectIdentifier(&named) && named.Equal(curve) && algorithm.Empty() &&
		outer.ReadASN1(&private, casn1.OCTET_STRING) && outer.Empty()
	if !ok {
		return nil, nil, false
	}
	return parseECPrivateKey(private, curve)
}

func parseECPrivateKey(private cryptobyte.String, curve asn1.ObjectIdentifier) (scalar, point []byte, ok bool) {
	var key, d cryptobyte.String
	var version int
	ok = private.ReadASN1(&key, casn1.SEQUENCE) && private.Empty() &&
		key.ReadASN1Integer(&version) && version == 1 &&
		key.ReadASN1(&d, casn1.OCTET_STRING) &&
		readParameters(&key, curve) && readPoint(&key, &point) && key.Empty()
	return d, point, ok
}

// readParameters reads the optional curve inside ECPrivateKey, which repeats the one outside.
func readParameters(key *cryptobyte.String, curve asn1.ObjectIdentifier) bool {
	var field cryptobyte.String
	var present bool
	if !key.ReadOptionalASN1(&field, &present, tagECParameters) {
		return false
	}
	var named asn1.ObjectIdentifier
	return !present || field.ReadASN1ObjectIdentifier(&named) && named.Equal(curve) && field.Empty()
}

func readPoint(key *cryptobyte.String, point *[]byte) bool {
	var field cryptobyte.String
	var present bool
	if !key.ReadOptionalASN1(&field, &present, tagECPublicKey) {
		return false
	}
	return !present || field.ReadASN1BitStringAsBytes(point) && field.Empty()
}

func isPadding(b []byte) bool {
	return len(b) <= maxPadding && len(bytes.Trim(b, "\x00")) == 0
}

// seedPrefix is all of a PKCS#8 before the seed, for algorithms whose fields all have a fixed length: the constant is the strictest
// parser. Version 0, no attributes, no public key.
var seedPrefix = map[hsm.Algorithm]string{
	// SEQUENCE { 0, SEQUENCE { id-Ed25519 or id-X25519 }, OCTET STRING { OCTET STRING of 32 } } (RFC 8410 §7)
	hsm.Ed25519:    "\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
	hsm.ECDHX25519: "\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20",
	// SEQUENCE { 0, SEQUENCE { id-ml-dsa-44, -65, -87 }, OCTET STRING { [0] of 32 } }: the seed form of RFC 9881 §6. The expanded form
	// cannot be checked as cheaply, and would not fit a blob.
	hsm.MLDSA44: "\x30\x34\x02\x01\x00\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x11\x04\x22\x80\x20",
	hsm.MLDSA65: "\x30\x34\x02\x01\x00\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12\x04\x22\x80\x20",
	hsm.MLDSA87: "\x30\x34\x02\x01\x00\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x13\x04\x22\x80\x20",
	// SEQUENCE { 0, SEQUENCE { id-alg-ml-kem-768 }, OCTET STRING { [0] of 64 } }: the seed form of RFC 9935 §6, d ‖ z
	hsm.MLKEM768: "\x30\x54\x02\x01\x00\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x04\x02\x04\x42\x80\x40",
}

func marshalSeed(alg hsm.Algorithm, seed []byte) []byte {
	prefix := seedPrefix[alg]
	der := make([]byte, 0, len(prefix)+len(seed))
	return append(append(der, prefix...), seed...)
}

func parseSeed(alg hsm.Algorithm, der []byte) (seed []byte, ok bool) {
	prefix, known := seedPrefix[alg]
	rest, ok := bytes.CutPrefix(der, []byte(prefix))
	size := seedSize(alg)
	if !known || !ok || len(rest) < size || !isPadding(rest[size:]) {
		return nil, false
	}
	return rest[:size], true
}
