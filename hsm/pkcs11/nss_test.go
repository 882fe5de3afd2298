//go:build cgo && unix

package pkcs11_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// TestModuleRefused: NSS softokn takes every attribute and enforces few, and its CKM_AES_KEY_WRAP_PAD is another algorithm. The
// refusal names the module and everything that is wrong.
func TestModuleRefused(t *testing.T) {
	opt := nss(t)
	for range 2 { // the second time nothing is left of the first
		_, err := pkcs11.Create(opt, pin)
		if !errors.Is(err, pkcs11.ErrModule) {
			t.Fatalf("creating a token of NSS: %v", err)
		}
		for _, want := range []string{
			"NSS", "libsoftokn3.so",
			"an RFC 5649 blob by CKM_AES_KEY_WRAP_PAD: C_UnwrapKey: CKR_WRAPPED_KEY_INVALID (0x110)",
			"CKM_AES_KEY_WRAP_PAD of an AES-256 key gave 48 bytes",
			"does not enforce",
			"CKA_DERIVE: keys can be derived from wrap in 14 ways, such as CKM_AES_ECB_ENCRYPT_DATA",
			"CKA_DERIVE: keys can be derived from bind",
			"CKA_UNWRAP_TEMPLATE: a readable key can be unwrapped under wrap",
			"CKA_ALLOWED_MECHANISMS: wrap-export wraps by CKM_AES_KEY_WRAP",
			"CKA_EXTRACTABLE: an unwrapped key can be wrapped",
			"CKA_COPYABLE: an extractable copy of bind can be made",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the refusal does not say %q: %v", want, err)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("the refusal has several lines: %v", err)
		}
	}
}

// nss prepares an empty token of NSS softokn.
func nss(t *testing.T) pkcs11.Options {
	t.Helper()
	opt := pkcs11.Options{Module: modulePath(t, "libnss3", nssPaths), Label: "NSS Certificate DB"}
	settings := fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", t.TempDir())
	if err := pkcs11.SetReserved(opt.Module, settings); err != nil {
		t.Fatal(err)
	}
	if err := pkcs11.SetFirstPIN(opt, pin); err != nil {
		t.Fatal(err)
	}
	return opt
}

// TestOAEPOnADeviceThatHasIt: SoftHSM lacks OAEP with SHA-256, so the mechanism and its parameters meet a module that does not: NSS, which is
// no token for us and computes this all the same. Our own encryption and that of others opens, and nothing else.
func TestOAEPOnADeviceThatHasIt(t *testing.T) {
	opt := nss(t)
	for alg, bits := range map[hsm.Algorithm]int{hsm.RSA2048OAEP: 2048, hsm.RSA3072OAEP: 3072, hsm.RSA4096OAEP: 4096} {
		parsed, err := x509.ParsePKCS8PrivateKey(selftest.RSA(bits))
		if err != nil {
			t.Fatal(err)
		}
		key := parsed.(*rsa.PrivateKey)
		spki, err := hsm.MarshalPublicKey(alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		longest := make([]byte, bits/8-66)
		for _, plain := range [][]byte{[]byte("a data key"), {}, longest} {
			sealed, err := hsm.EncryptOAEP(alg, spki, plain)
			if err != nil {
				t.Fatal(err)
			}
			changed, sha1 := bytes.Clone(sealed), must(rsa.EncryptOAEP(sha1.New(), rand.Reader, &key.PublicKey, []byte("by SHA-1"), nil))
			changed[9] ^= 1
			labelled := must(rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, []byte("with a label"), []byte("label")))
			opened, err := pkcs11.DecryptOAEPWith(opt, pin, key, sealed, changed, sha1, labelled, sealed[1:])
			if err != nil {
				t.Fatal(err)
			}
			if opened[0] == nil || !bytes.Equal(opened[0], plain) {
				t.Errorf("%s: %d bytes come back as %x", alg, len(plain), opened[0])
			}
			for i, what := range []string{"a changed one", "one by SHA-1", "one with a label", "a short one"} {
				if opened[i+1] != nil {
					t.Errorf("%s: %s opens to %x", alg, what, opened[i+1])
				}
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
