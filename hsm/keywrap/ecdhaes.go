package keywrap

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// pointSize is an uncompressed P-256 point: 04 ‖ x ‖ y (SEC 1 §2.3.3).
const pointSize = 65

// sharedInfo is ECC-CMS-SharedInfo (RFC 5753 §7.2) in DER: the algorithm that the derived key is for, id-aes256-wrap-pad (RFC 5649 §6) without
// parameters, and the key's length in bits. It is a constant, as it must be for devices, which draw the ephemeral key only inside the mechanism.
var sharedInfo = []byte{
	0x30, 0x15,
	0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x30, // SEQUENCE { OID 2.16.840.1.101.3.4.1.48 }
	0xa2, 0x06, 0x04, 0x04, 0x00, 0x00, 0x01, 0x00, // [2] EXPLICIT OCTET STRING: 256
}

// WrapECDH wraps plaintext (1 to MaxPlaintext bytes) to a P-256 public key: the uncompressed point of an ephemeral key, followed by the plaintext
// wrapped (Wrap) under SHA-256(Z ‖ 00000001 ‖ SharedInfo), Z being the x coordinate of the shared point. It is CKM_ECDH_AES_KEY_WRAP of PKCS#11
// v3.0 with CKD_SHA256_KDF and a key of 256 bits, the sibling of WrapRSA's form. ErrInput for what Wrap does not take, or another curve.
func WrapECDH(public *ecdh.PublicKey, plaintext []byte) ([]byte, error) {
	if public.Curve() != ecdh.P256() {
		return nil, fmt.Errorf("%w: a public key on another curve than P-256", ErrInput)
	}
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("drawing an ephemeral key: %w", err)
	}
	kek, err := agreedKey(ephemeral, public)
	if err != nil {
		return nil, fmt.Errorf("%w: ECDH: %w", ErrInput, err)
	}
	defer clear(kek)
	inner, err := Wrap(kek, plaintext)
	if err != nil {
		return nil, err
	}
	return append(ephemeral.PublicKey().Bytes(), inner...), nil
}

// UnwrapECDH is the inverse. Every failure is ErrUnwrap: a point that is not on the curve, or in another form, is no other thing than a damaged
// blob to whoever sends it. The caller wipes what it gets.
func UnwrapECDH(private *ecdh.PrivateKey, wrapped []byte) ([]byte, error) {
	if private.Curve() != ecdh.P256() || len(wrapped) <= pointSize {
		return nil, ErrUnwrap
	}
	ephemeral, err := ecdh.P256().NewPublicKey(wrapped[:pointSize]) // uncompressed, reduced, on the curve, not infinity
	if err != nil {
		return nil, ErrUnwrap
	}
	kek, err := agreedKey(private, ephemeral)
	if err != nil {
		return nil, ErrUnwrap
	}
	defer clear(kek)
	plaintext, err := Unwrap(kek, wrapped[pointSize:])
	if err != nil {
		return nil, ErrUnwrap
	}
	return plaintext, nil
}

// agreedKey is the AES-256 key between the two layers.
func agreedKey(private *ecdh.PrivateKey, public *ecdh.PublicKey) ([]byte, error) {
	z, err := private.ECDH(public)
	if err != nil {
		return nil, err
	}
	defer clear(z)
	return x963KDF(z, sharedInfo, ephemeralSize), nil
}

// x963KDF is the key derivation function of ANSI X9.63 with SHA-256 (SEC 1 §3.6.1; SP 800-56A §5.8.2 with the counter behind Z). The counter
// cannot overflow: length is a key's.
func x963KDF(z, info []byte, length int) []byte {
	out := make([]byte, 0, (length+sha256.Size-1)/sha256.Size*sha256.Size)
	for counter := uint32(1); len(out) < length; counter++ {
		h := sha256.New()
		h.Write(z)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		h.Write(info)
		out = h.Sum(out)
	}
	return out[:length]
}
