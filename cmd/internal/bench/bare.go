package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/conclave-vault/conclave/hsm"
)

// bare is the operation that a token's is measured beside: the same primitive of the library, with a key that lies open. Every algorithm has
// one; nil for one that is not known.
func bare(a hsm.Algorithm, message, aad []byte) (func() error, error) {
	switch a {
	case hsm.AES128GCM:
		return bareGCM(16, message, aad)
	case hsm.AES256GCM:
		return bareGCM(32, message, aad)
	case hsm.HMACSHA256:
		return bareMAC(sha256.New, 32, message), nil
	case hsm.HMACSHA384:
		return bareMAC(sha512.New384, 48, message), nil
	case hsm.HMACSHA512:
		return bareMAC(sha512.New, 64, message), nil
	case hsm.ECDHP256:
		return bareAgree(ecdh.P256())
	case hsm.ECDHX25519:
		return bareAgree(ecdh.X25519())
	case hsm.MLKEM768:
		return bareDecapsulate()
	case hsm.RSA2048OAEP, hsm.RSA3072OAEP, hsm.RSA4096OAEP:
		return bareOAEP(rsaBits[a], message)
	}
	return bareSign(a, message)
}

// bareSign hashes as the token does by the algorithm's first scheme.
func bareSign(a hsm.Algorithm, message []byte) (func() error, error) {
	switch a {
	case hsm.ECDSAP256:
		return bareECDSA(a, elliptic.P256(), message)
	case hsm.ECDSAP384:
		return bareECDSA(a, elliptic.P384(), message)
	case hsm.ECDSAP521:
		return bareECDSA(a, elliptic.P521(), message)
	case hsm.ECDSASecp256k1:
		key, err := secp256k1.GeneratePrivateKey()
		return func() error {
			digest := sha256.Sum256(message)
			k1ecdsa.Sign(key, digest[:]).Serialize()
			return nil
		}, err
	case hsm.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return func() error { ed25519.Sign(key, message); return nil }, err
	case hsm.RSA2048, hsm.RSA3072, hsm.RSA4096:
		return barePSS(rsaBits[a], message)
	case hsm.MLDSA44:
		_, key, err := mldsa44.GenerateKey(rand.Reader)
		return func() error { return mldsa44.SignTo(key, message, nil, true, make([]byte, mldsa44.SignatureSize)) }, err
	case hsm.MLDSA65:
		_, key, err := mldsa65.GenerateKey(rand.Reader)
		return func() error { return mldsa65.SignTo(key, message, nil, true, make([]byte, mldsa65.SignatureSize)) }, err
	case hsm.MLDSA87:
		_, key, err := mldsa87.GenerateKey(rand.Reader)
		return func() error { return mldsa87.SignTo(key, message, nil, true, make([]byte, mldsa87.SignatureSize)) }, err
	}
	return nil, nil
}

func bareGCM(size int, message, aad []byte) (func() error, error) {
	block, err1 := aes.NewCipher(make([]byte, size))
	aead, err2 := cipher.NewGCMWithRandomNonce(block)
	return func() error { aead.Seal(nil, nil, message, aad); return nil }, errors.Join(err1, err2)
}

func bareMAC(newHash func() hash.Hash, size int, message []byte) func() error {
	key := make([]byte, size)
	return func() error {
		h := hmac.New(newHash, key)
		h.Write(message)
		h.Sum(nil)
		return nil
	}
}

func bareECDSA(a hsm.Algorithm, curve elliptic.Curve, message []byte) (func() error, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	in, scheme := hsm.SignInput{Message: message}, a.Schemes()[0]
	return func() error { _, err := ecdsa.SignASN1(rand.Reader, key, in.Hash(scheme)); return err }, err
}

// bareAgree parses the peer's point too, which arrives anew each time.
func bareAgree(curve ecdh.Curve) (func() error, error) {
	key, err1 := curve.GenerateKey(rand.Reader)
	other, err2 := curve.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	peer := other.PublicKey().Bytes()
	return func() error {
		public, err := curve.NewPublicKey(peer)
		if err == nil {
			_, err = key.ECDH(public)
		}
		return err
	}, nil
}

func bareDecapsulate() (func() error, error) {
	key, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, err
	}
	_, ciphertext := key.EncapsulationKey().Encapsulate()
	return func() error { _, err := key.Decapsulate(ciphertext); return err }, nil
}
