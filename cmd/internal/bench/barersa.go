package bench

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
)

var rsaBits = map[hsm.Algorithm]int{
	hsm.RSA2048: 2048, hsm.RSA3072: 3072, hsm.RSA4096: 4096,
	hsm.RSA2048OAEP: 2048, hsm.RSA3072OAEP: 3072, hsm.RSA4096OAEP: 4096,
}

// rsaKeys are made once in a process for each size: the search for primes takes up to seconds.
var rsaKeys = map[int]func() (*rsa.PrivateKey, error){2048: rsaKey(2048), 3072: rsaKey(3072), 4096: rsaKey(4096)}

func rsaKey(bits int) func() (*rsa.PrivateKey, error) {
	return sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) })
}

func barePSS(bits int, message []byte) (func() error, error) {
	key, err := rsaKeys[bits]()
	opt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return func() error {
		digest := sha256.Sum256(message)
		_, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], opt)
		return err
	}, err
}

func bareOAEP(bits int, message []byte) (func() error, error) {
	key, err := rsaKeys[bits]()
	if err != nil {
		return nil, err
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, message, nil)
	return func() error { _, err := rsa.DecryptOAEP(sha256.New(), nil, key, sealed, nil); return err }, err
}
