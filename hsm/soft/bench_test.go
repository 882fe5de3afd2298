package soft_test

import (
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/soft"
)

func benchToken(b *testing.B) *soft.Token {
	b.Helper()
	token, _ := create(b, cheap())
	if err := token.ImportMaster(b.Context(), testMaster(b, 1), nil); err != nil {
		b.Fatal(err)
	}
	return token
}

var rsaBits = map[hsm.Algorithm]int{
	hsm.RSA2048: 2048, hsm.RSA3072: 3072, hsm.RSA4096: 4096, hsm.RSA2048OAEP: 2048, hsm.RSA3072OAEP: 3072, hsm.RSA4096OAEP: 4096,
}

func publishedRSA(t testing.TB, bits int) ([]byte, *rsa.PrivateKey) {
	t.Helper()
	der := selftest.RSA(bits)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return der, key.(*rsa.PrivateKey)
}

// benchWrapped is a new key; for RSA the published one of the self-test, which takes no time to find.
func benchWrapped(b *testing.B, token *soft.Token, alg hsm.Algorithm) hsm.WrappedKey {
	b.Helper()
	if bits := rsaBits[alg]; bits != 0 {
		der, key := publishedRSA(b, bits)
		spki, err := hsm.MarshalPublicKey(alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
		if err != nil {
			b.Fatal(err)
		}
		return bindKnown(b, testMaster(b, 1), hsm.Binding{Algorithm: alg, PublicKey: spki}, der)
	}
	k, err := token.Generate(b.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: alg}, false)
	if err != nil {
		b.Fatal(err)
	}
	return k
}

func benchKey(b *testing.B, alg hsm.Algorithm) (keyuse.Key, hsm.WrappedKey) {
	b.Helper()
	token := benchToken(b)
	k := benchWrapped(b, token, alg)
	key, err := token.Open(b.Context(), k)
	if err != nil {
		b.Fatal(err)
	}
	return key, k
}

func loop(b *testing.B, name string, f func() error) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEncryptParallel shows what one lock per token costs when all cores use one key.
func BenchmarkEncryptParallel(b *testing.B) {
	plain := make([]byte, 32)
	key, _ := benchKey(b, hsm.AES256GCM)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := key.Encrypt(b.Context(), plain, nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkOpen is unwrapping: why working copies are cached.
func BenchmarkOpen(b *testing.B) {
	token := benchToken(b)
	for _, alg := range hsm.Algorithms() {
		k := benchWrapped(b, token, alg)
		loop(b, string(alg), func() error {
			key, err := token.Open(b.Context(), k)
			if err == nil {
				key.Release()
			}
			return err
		})
	}
}
