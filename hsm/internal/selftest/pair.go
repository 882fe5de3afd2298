package selftest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
)

// Pair is a key pair of a signature, decryption or agreement algorithm: PKCS#8 and SubjectPublicKeyInfo, both DER. RSA keys are the published
// ones, the others are fresh, and secp256k1's is the scalar 1. hsm.ErrUnsupported for algorithms without such a pair.
func Pair(alg hsm.Algorithm) (der, spki []byte, err error) {
	var key any
	switch alg {
	case hsm.ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case hsm.ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case hsm.ECDSAP521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case hsm.ECDHP256:
		key, err = ecdh.P256().GenerateKey(rand.Reader)
	case hsm.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case hsm.ECDSASecp256k1:
		spki, err = hsm.MarshalPublicKey(alg, []byte(generator))
		return []byte(scalarOne), spki, err
	case hsm.RSA2048, hsm.RSA2048OAEP:
		key, err = x509.ParsePKCS8PrivateKey(rsa2048)
	case hsm.RSA3072, hsm.RSA3072OAEP:
		key, err = x509.ParsePKCS8PrivateKey(rsa3072)
	case hsm.RSA4096, hsm.RSA4096OAEP:
		key, err = x509.ParsePKCS8PrivateKey(rsa4096)
	default:
		return nil, nil, fmt.Errorf("%w: a pair of %q for a self-test", hsm.ErrUnsupported, alg)
	}
	if err != nil {
		return nil, nil, err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err == nil {
		spki, err = spkiOf(alg, key)
	}
	return der, spki, err
}

// spkiOf encodes the public half as this system does.
func spkiOf(alg hsm.Algorithm, key any) ([]byte, error) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		point, err := key.PublicKey.Bytes()
		if err != nil {
			return nil, err
		}
		return hsm.MarshalPublicKey(alg, point)
	case *ecdh.PrivateKey:
		return hsm.MarshalPublicKey(alg, key.PublicKey().Bytes())
	case ed25519.PrivateKey:
		return hsm.MarshalPublicKey(alg, key[ed25519.SeedSize:])
	case *rsa.PrivateKey:
		return hsm.MarshalPublicKey(alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	}
	return nil, fmt.Errorf("%w: a %T", hsm.ErrUnsupported, key)
}

// The secp256k1 key of the scalar 1, which crypto/x509 does not know: PKCS#8 without a public key, as devices make it, and the curve's
// generator (SEC 2 §2.4.1).
const (
	scalarOne = "\x30\x3e\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a\x04\x27\x30\x25\x02\x01\x01\x04\x20" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	generator = "\x04" +
		"\x79\xbe\x66\x7e\xf9\xdc\xbb\xac\x55\xa0\x62\x95\xce\x87\x0b\x07\x02\x9b\xfc\xdb\x2d\xce\x28\xd9\x59\xf2\x81\x5b\x16\xf8\x17\x98" +
		"\x48\x3a\xda\x77\x26\xa3\xc4\x65\x5d\xa4\xfb\xfc\x0e\x11\x08\xa8\xfd\x17\xb4\x48\xa6\x85\x54\x19\x9c\x47\xd0\x8f\xfb\x10\xd4\xb8"
)
