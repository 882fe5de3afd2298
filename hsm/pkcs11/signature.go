//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"errors"
	"fmt"

	k1 "github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// errSignature: a device made something that is no signature. It must not leave the node.
var errSignature = errors.New("hsm/pkcs11: the device made a malformed signature")

// encoder makes the signature of a scheme from r and s, as long as a coordinate each. digest and public are for schemes that name the key.
type encoder func(scheme hsm.Scheme, r, s, digest, public []byte) ([]byte, error)

// signECDSA signs a digest by CKM_ECDSA, which gives r ‖ s. Its length is checked here, because devices cut a longer input silently.
func signECDSA(
	f functions, w p11.SessionHandle, key p11.ObjectHandle, id hsm.Algorithm, in hsm.SignInput, public []byte, size int, encode encoder,
) ([]byte, error) {
	scheme := in.For(id)
	digest := in.Hash(scheme)
	if scheme.Hash() == 0 || len(digest) != scheme.Hash().Size() {
		return nil, fmt.Errorf("a digest of %d bytes for scheme %s reached the device", len(digest), scheme)
	}
	raw, err := f.sign(w, p11.CKM_ECDSA, nil, key, digest, 2*size)
	if err != nil {
		return nil, err
	}
	if len(raw) != 2*size {
		return nil, errSignature
	}
	return encode(scheme, raw[:size], raw[size:], digest, public)
}

// derSignature encodes SEQUENCE { r, s } (RFC 3279 §2.2.3).
func derSignature(_ hsm.Scheme, r, s, _, _ []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, x := range [][]byte{r, s} {
			addInteger(b, x)
		}
	})
	return b.Bytes()
}

func addInteger(b *cryptobyte.Builder, x []byte) {
	x = bytes.TrimLeft(x, "\x00")
	if len(x) == 0 {
		b.SetError(errSignature)
		return
	}
	b.AddASN1(casn1.INTEGER, func(b *cryptobyte.Builder) {
		if x[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(x)
	})
}

// secp256k1Signature encodes with low s, whatever the device chose: ledgers take no other. The recovery id is found by trying, because
// a device does not tell: with two candidates in all but one of 2^127 cases.
func secp256k1Signature(scheme hsm.Scheme, r, s, digest, public []byte) ([]byte, error) {
	var rr, ss k1.ModNScalar
	if rr.SetByteSlice(r) || ss.SetByteSlice(s) || rr.IsZero() || ss.IsZero() {
		return nil, errSignature
	}
	if scheme != hsm.SchemeECDSASHA256Recoverable {
		// Serialize writes the lower of s and n-s.
		return k1ecdsa.NewSignature(&rr, &ss).Serialize(), nil
	}
	if ss.IsOverHalfOrder() {
		ss.Negate()
	}
	low := ss.Bytes()
	out := append(append(bytes.Clone(r), low[:]...), 0)
	compact := append([]byte{0}, out[:64]...) // header ‖ r ‖ s
	for v := range byte(4) {
		compact[0] = compactHeader + v
		if key, _, err := k1ecdsa.RecoverCompact(compact, digest); err == nil && bytes.Equal(key.SerializeUncompressed(), public) {
			out[64] = v
			return out, nil
		}
	}
	return nil, errSignature
}

// compactHeader is the first byte of Bitcoin's compact signatures, for an uncompressed key, less the recovery id.
const compactHeader = 27
