package hsm

import (
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// EncryptOAEP encrypts for the holder of a decryption key, with its public half (DER SubjectPublicKeyInfo), by RSAES-OAEP (RFC 8017)
// with SHA-256, MGF1 with SHA-256 and no label. It needs no token. The plaintext has at most 66 bytes less than the modulus (190, 318
// or 446): it is a key, not a document. ErrInput, ErrUnsupported.
func EncryptOAEP(alg Algorithm, spki, plaintext []byte) ([]byte, error) {
	if alg.Family() != FamilyDecrypt {
		return nil, fmt.Errorf("%w: encrypting for a key of %q", ErrUnsupported, alg)
	}
	public, err := ParsePublicKey(alg, spki)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS1PublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: no %s public key", ErrInput, alg)
	}
	if most := key.Size() - 2*sha256.Size - 2; len(plaintext) > most {
		return nil, fmt.Errorf("%w: %d bytes for %s, at most %d are; encrypt a data key", ErrInput, len(plaintext), alg, most)
	}
	out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, plaintext, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypting for %s: %w", alg, err)
	}
	return out, nil
}

// Encapsulate makes a shared key of 32 bytes for the holder of a decapsulation key, with its public half (DER SubjectPublicKeyInfo),
// and the ciphertext that leads the holder to it (FIPS 203; 1088 bytes for ml-kem-768). It needs no token. ErrInput, ErrUnsupported.
func Encapsulate(alg Algorithm, spki []byte) (sharedKey, ciphertext []byte, err error) {
	if alg != MLKEM768 {
		return nil, nil, fmt.Errorf("%w: encapsulating for a key of %q", ErrUnsupported, alg)
	}
	public, err := ParsePublicKey(alg, spki)
	if err != nil {
		return nil, nil, err
	}
	key, err := mlkem.NewEncapsulationKey768(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no %s public key", ErrInput, alg)
	}
	sharedKey, ciphertext = key.Encapsulate()
	return sharedKey, ciphertext, nil
}
