//go:build cgo && unix

package pkcs11_test

import (
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// backends opens a key of alg, made by the device, in both backends.
func backends(b *testing.B, alg hsm.Algorithm) map[string]keyuse.Key {
	b.Helper()
	device, _ := create(b)
	embedded, err := soft.Create(filepath.Join(b.TempDir(), "token"), pin, cheapPIN)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := embedded.Close(); err != nil {
			b.Error(err)
		}
	})
	importInto(b, device, 1, nil)
	importInto(b, embedded, 1, nil)
	k := generate(b, device, alg)
	return map[string]keyuse.Key{"softhsm": openKey(b, device, k), "soft": openKey(b, embedded, k)}
}

func compare(b *testing.B, alg hsm.Algorithm, operation func(*testing.B, keyuse.Key) error) {
	for name, key := range backends(b, alg) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := operation(b, key); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := operation(b, key); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkSignP256(b *testing.B) {
	in := hsm.SignInput{Message: make([]byte, 32)}
	compare(b, hsm.ECDSAP256, func(b *testing.B, key keyuse.Key) error { _, err := key.Sign(b.Context(), in); return err })
}

func BenchmarkSignRSA3072(b *testing.B) {
	in := hsm.SignInput{Message: make([]byte, 32)}
	compare(b, hsm.RSA3072, func(b *testing.B, key keyuse.Key) error { _, err := key.Sign(b.Context(), in); return err })
}

func BenchmarkEncrypt32B(b *testing.B) {
	plain, aad := make([]byte, 32), make([]byte, 32)
	compare(b, hsm.AES256GCM, func(b *testing.B, key keyuse.Key) error { _, err := key.Encrypt(b.Context(), plain, aad); return err })
}

func BenchmarkMAC32B(b *testing.B) {
	message := make([]byte, 32)
	compare(b, hsm.HMACSHA256, func(b *testing.B, key keyuse.Key) error { _, err := key.MAC(b.Context(), message); return err })
}

// BenchmarkOpenKey is unwrapping, with every check.
func BenchmarkOpenKey(b *testing.B) {
	token, _ := create(b)
	importInto(b, token, 1, nil)
	for _, row := range token.Capabilities() {
		if !row.Usable() {
			continue
		}
		k := generate(b, token, row.Algorithm)
		b.Run(string(row.Algorithm), func(b *testing.B) {
			for b.Loop() {
				key, err := token.Open(b.Context(), k)
				if err != nil {
					b.Fatal(err)
				}
				key.Release()
			}
		})
	}
}

// BenchmarkStart opens a token with the test of the module; RSA is tried in the first only.
func BenchmarkStart(b *testing.B) {
	token, opt := create(b)
	if err := token.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		token, err := pkcs11.Open(opt, pin)
		if err != nil {
			b.Fatal(err)
		}
		if err := token.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
