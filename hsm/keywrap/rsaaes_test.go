package keywrap_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"sync"
	"testing"

	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// pair is a key for tests, the smallest that Go makes without being told to.
var pair = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) })

func TestWrapRSA(t *testing.T) {
	key, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 8, 32, 121, 2376} {
		secret := bytes.Repeat([]byte{5}, n)
		wrapped, err := keywrap.WrapRSA(&key.PublicKey, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := keywrap.UnwrapRSA(key, wrapped); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d bytes come back as %x, %v", n, got, err)
		}
		for i := range wrapped {
			if i%37 != 0 && i != len(wrapped)-1 {
				continue
			}
			damaged := bytes.Clone(wrapped)
			damaged[i] ^= 0x10
			if got, err := keywrap.UnwrapRSA(key, damaged); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
				t.Errorf("%d bytes, byte %d damaged: %x, %v", n, i, got, err)
			}
		}
	}
	if _, err := keywrap.WrapRSA(&key.PublicKey, nil); !errors.Is(err, keywrap.ErrInput) {
		t.Errorf("nothing is wrapped: %v", err)
	}
}

// FuzzUnwrapRSA: no bytes bring it down, and none that nobody wrapped open.
func FuzzUnwrapRSA(f *testing.F) {
	key, err := pair()
	if err != nil {
		f.Fatal(err)
	}
	good, err := keywrap.WrapRSA(&key.PublicKey, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, make([]byte, key.Size()), make([]byte, key.Size()+16), good[:len(good)-8], good[1:]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := keywrap.UnwrapRSA(key, data); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
			t.Errorf("%x opens as %x, %v", data, got, err)
		}
	})
}
