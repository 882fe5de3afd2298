package hsm

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Verify checks a signature with the public half of a key (DER SubjectPublicKeyInfo). It needs no token: public keys serve in
// any state of the node. Every failure is ErrVerify, a malformed input or key too; a caller who wants to tell a user's mistake
// from a bad signature calls in.Validate first.
//
// RSA-PSS signatures have a salt of exactly the hash's length. ECDSA signatures are strict DER with r and s in [1, n-1]. secp256k1
// takes low s only: (r, n-s) would be a second valid signature of the same message, which ledgers treat as malleability. A
// recoverable signature also has to lead to this public key, by the one recovery id that it names.
func Verify(alg Algorithm, in SignInput, spki, signature []byte) error {
	if in.Validate(alg) != nil {
		return ErrVerify
	}
	public, err := ParsePublicKey(alg, spki)
	if err != nil {
		return ErrVerify
	}
	scheme := in.For(alg)
	ok := false
	switch alg {
	case ECDSAP256:
		ok = verifyECDSA(elliptic.P256(), public, in.Hash(scheme), signature)
	case ECDSAP384:
		ok = verifyECDSA(elliptic.P384(), public, in.Hash(scheme), signature)
	case ECDSAP521:
		ok = verifyECDSA(elliptic.P521(), public, in.Hash(scheme), signature)
	case ECDSASecp256k1:
		ok = verifySecp256k1(scheme, public, in.Hash(scheme), signature)
	case RSA2048, RSA3072, RSA4096:
		ok = verifyRSA(scheme, public, in.Hash(scheme), signature)
	case Ed25519:
		ok = ed25519.Verify(public, in.Message, signature)
	case MLDSA44, MLDSA65, MLDSA87:
		ok = verifyMLDSA(alg, public, in.Message, signature)
	}
	if !ok {
		return ErrVerify
	}
	return nil
}

func verifyECDSA(curve elliptic.Curve, point, digest, signature []byte) bool {
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	return err == nil && ecdsa.VerifyASN1(key, digest, signature)
}

func verifyRSA(scheme Scheme, public, digest, signature []byte) bool {
	key, err := x509.ParsePKCS1PublicKey(public)
	if err != nil {
		return false
	}
	switch scheme {
	case SchemeRSAPKCS1SHA256, SchemeRSAPKCS1SHA384, SchemeRSAPKCS1SHA512:
		return rsa.VerifyPKCS1v15(key, scheme.Hash(), digest, signature) == nil
	}
	return rsa.VerifyPSS(key, scheme.Hash(), digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

func verifySecp256k1(scheme Scheme, point, digest, signature []byte) bool {
	key, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return false
	}
	if scheme == SchemeECDSASHA256Recoverable {
		return verifyRecoverable(key, digest, signature)
	}
	sig, err := k1ecdsa.ParseDERSignature(signature) // refuses BER, and r or s outside [1, n-1]
	if err != nil {
		return false
	}
	s := sig.S()
	return !s.IsOverHalfOrder() && sig.Verify(digest, key)
}

// recoverableSize is r ‖ s ‖ v.
const recoverableSize = 32 + 32 + 1

// compactOffset is what the library adds to a recovery id, by Bitcoin's custom, and puts in front.
const compactOffset = 27

// verifyRecoverable: the key that r, s and v lead to verifies the signature by construction, so it is enough that it is this one.
func verifyRecoverable(key *secp256k1.PublicKey, digest, signature []byte) bool {
	if len(signature) != recoverableSize || signature[64] > 3 {
		return false
	}
	var s secp256k1.ModNScalar
	if s.SetByteSlice(signature[32:64]) || s.IsOverHalfOrder() {
		return false
	}
	compact := append([]byte{compactOffset + signature[64]}, signature[:64]...)
	found, _, err := k1ecdsa.RecoverCompact(compact, digest) // refuses r or s outside [1, n-1]
	return err == nil && found.IsEqual(key)
}

func verifyMLDSA(alg Algorithm, public, message, signature []byte) bool {
	switch alg {
	case MLDSA44:
		var key mldsa44.PublicKey
		return key.UnmarshalBinary(public) == nil && mldsa44.Verify(&key, message, nil, signature)
	case MLDSA65:
		var key mldsa65.PublicKey
		return key.UnmarshalBinary(public) == nil && mldsa65.Verify(&key, message, nil, signature)
	case MLDSA87:
		var key mldsa87.PublicKey
		return key.UnmarshalBinary(public) == nil && mldsa87.Verify(&key, message, nil, signature)
	}
	return false
}
