//go:build unix

package soft_test

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
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// must ends the program: a benchmark has nothing to compare with without its key.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func BenchmarkRatio(b *testing.B) {
	for _, c := range []struct {
		name string
		alg  hsm.Algorithm
		make maker
	}{
		{"encrypt 32 B", hsm.AES128GCM, ratioEncrypt(32)}, {"encrypt 32 B", hsm.AES256GCM, ratioEncrypt(32)},
		{"encrypt 1 KiB", hsm.AES256GCM, ratioEncrypt(1024)}, {"decrypt 32 B", hsm.AES256GCM, ratioDecrypt(32)},
		{"mac 32 B", hsm.HMACSHA256, ratioMAC(sha256.New, 32)}, {"mac 32 B", hsm.HMACSHA384, ratioMAC(sha512.New384, 48)},
		{"mac 32 B", hsm.HMACSHA512, ratioMAC(sha512.New, 64)},
		{"sign", hsm.ECDSAP256, ratioECDSA(elliptic.P256())}, {"sign", hsm.ECDSAP384, ratioECDSA(elliptic.P384())},
		{"sign", hsm.ECDSAP521, ratioECDSA(elliptic.P521())}, {"sign", hsm.ECDSASecp256k1, ratioSecp256k1}, {"sign", hsm.Ed25519, ratioEd25519},
		{"sign PSS", hsm.RSA2048, ratioRSA(hsm.SchemeRSAPSSSHA256)}, {"sign PSS", hsm.RSA3072, ratioRSA(hsm.SchemeRSAPSSSHA256)},
		{"sign PSS", hsm.RSA4096, ratioRSA(hsm.SchemeRSAPSSSHA256)}, {"sign PKCS1", hsm.RSA2048, ratioRSA(hsm.SchemeRSAPKCS1SHA256)},
		{"decrypt", hsm.RSA2048OAEP, ratioOAEP}, {"decrypt", hsm.RSA3072OAEP, ratioOAEP}, {"decrypt", hsm.RSA4096OAEP, ratioOAEP},
		{"agree", hsm.ECDHP256, ratioAgree(ecdh.P256())}, {"agree", hsm.ECDHX25519, ratioAgree(ecdh.X25519())},
		{"sign", hsm.MLDSA44, ratioMLDSA}, {"sign", hsm.MLDSA65, ratioMLDSA}, {"sign", hsm.MLDSA87, ratioMLDSA},
		{"decapsulate", hsm.MLKEM768, ratioDecapsulate},
	} {
		b.Run(string(c.alg)+"/"+strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			key, k := benchKey(b, c.alg)
			token, bare := c.make(b, key, k)
			hsmtest.Compare(b, token, bare)
		})
	}
}

// benchMessage is what is signed.
var benchMessage = []byte("thirty-two bytes of a message...")

type maker = func(*testing.B, keyuse.Key, hsm.WrappedKey) (token, bare func() error)

func benchAEAD(k hsm.WrappedKey) cipher.AEAD {
	block := must(aes.NewCipher(make([]byte, len(k.Blob)-8))) // key wrap adds eight bytes
	return must(cipher.NewGCMWithRandomNonce(block))
}

func ratioEncrypt(size int) maker {
	return func(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
		plain, aad, aead := make([]byte, size), make([]byte, 32), benchAEAD(k)
		return func() error { return second(key.Encrypt(b.Context(), plain, aad)) },
			func() error { aead.Seal(nil, nil, plain, aad); return nil }
	}
}

func ratioDecrypt(size int) maker {
	return func(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
		plain, aad, aead := make([]byte, size), make([]byte, 32), benchAEAD(k)
		ours, theirs := must(key.Encrypt(b.Context(), plain, aad)), aead.Seal(nil, nil, plain, aad)
		return func() error { return second(key.Decrypt(b.Context(), ours, aad)) },
			func() error { return second(aead.Open(nil, nil, theirs, aad)) }
	}
}

func ratioMAC(newHash func() hash.Hash, size int) maker {
	return func(b *testing.B, key keyuse.Key, _ hsm.WrappedKey) (token, bare func() error) {
		message, secret := make([]byte, 32), make([]byte, size)
		return func() error { return second(key.MAC(b.Context(), message)) }, func() error {
			h := hmac.New(newHash, secret)
			h.Write(message)
			h.Sum(nil)
			return nil
		}
	}
}

// sign is the token's side of every signature.
func sign(b *testing.B, key keyuse.Key, scheme hsm.Scheme) func() error {
	in := hsm.SignInput{Scheme: scheme, Message: benchMessage}
	return func() error { return second(key.Sign(b.Context(), in)) }
}

func ratioECDSA(curve elliptic.Curve) maker {
	return func(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
		private := must(ecdsa.GenerateKey(curve, rand.Reader))
		scheme := k.Binding.Algorithm.Schemes()[0]
		return sign(b, key, ""), func() error {
			return second(ecdsa.SignASN1(rand.Reader, private, hsm.SignInput{Message: benchMessage}.Hash(scheme)))
		}
	}
}

func ratioSecp256k1(b *testing.B, key keyuse.Key, _ hsm.WrappedKey) (token, bare func() error) {
	private := must(secp256k1.GeneratePrivateKey())
	return sign(b, key, ""), func() error {
		digest := sha256.Sum256(benchMessage)
		k1ecdsa.Sign(private, digest[:]).Serialize()
		return nil
	}
}

func ratioEd25519(b *testing.B, key keyuse.Key, _ hsm.WrappedKey) (token, bare func() error) {
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	return sign(b, key, ""), func() error { ed25519.Sign(private, benchMessage); return nil }
}

func ratioRSA(scheme hsm.Scheme) maker {
	return func(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
		_, private := publishedRSA(b, rsaBits[k.Binding.Algorithm])
		return sign(b, key, scheme), func() error {
			digest := sha256.Sum256(benchMessage)
			if scheme == hsm.SchemeRSAPKCS1SHA256 {
				return second(rsa.SignPKCS1v15(rand.Reader, private, scheme.Hash(), digest[:]))
			}
			return second(rsa.SignPSS(rand.Reader, private, scheme.Hash(), digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
	}
}

func ratioOAEP(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
	_, private := publishedRSA(b, rsaBits[k.Binding.Algorithm])
	sealed := must(hsm.EncryptOAEP(k.Binding.Algorithm, k.Binding.PublicKey, benchMessage))
	return func() error { return second(key.Decrypt(b.Context(), sealed, nil)) },
		func() error { return second(rsa.DecryptOAEP(sha256.New(), nil, private, sealed, nil)) }
}

// ratioAgree: the bare side parses the peer's point too, which arrives anew each time.
func ratioAgree(curve ecdh.Curve) maker {
	return func(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
		private, peer := must(curve.GenerateKey(rand.Reader)), must(curve.GenerateKey(rand.Reader)).PublicKey().Bytes()
		spki := must(hsm.MarshalPublicKey(k.Binding.Algorithm, peer))
		return func() error { return second(key.Agree(b.Context(), spki)) }, func() error {
			public, err := curve.NewPublicKey(peer)
			if err != nil {
				return err
			}
			return second(private.ECDH(public))
		}
	}
}

// ratioMLDSA: how often a signature is tried again varies with its randomness, so the ratio is noisy.
func ratioMLDSA(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
	var seed [32]byte
	switch k.Binding.Algorithm {
	case hsm.MLDSA44:
		_, private := mldsa44.NewKeyFromSeed(&seed)
		return sign(b, key, ""), func() error {
			return mldsa44.SignTo(private, benchMessage, nil, true, make([]byte, mldsa44.SignatureSize))
		}
	case hsm.MLDSA65:
		_, private := mldsa65.NewKeyFromSeed(&seed)
		return sign(b, key, ""), func() error {
			return mldsa65.SignTo(private, benchMessage, nil, true, make([]byte, mldsa65.SignatureSize))
		}
	}
	_, private := mldsa87.NewKeyFromSeed(&seed)
	return sign(b, key, ""), func() error {
		return mldsa87.SignTo(private, benchMessage, nil, true, make([]byte, mldsa87.SignatureSize))
	}
}

func ratioDecapsulate(b *testing.B, key keyuse.Key, k hsm.WrappedKey) (token, bare func() error) {
	_, ours, err := hsm.Encapsulate(k.Binding.Algorithm, k.Binding.PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	private := must(mlkem.GenerateKey768())
	_, theirs := private.EncapsulationKey().Encapsulate()
	return func() error { return second(key.Decapsulate(b.Context(), ours)) }, func() error { return second(private.Decapsulate(theirs)) }
}
