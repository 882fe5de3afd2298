//go:build cgo && unix

package pkcs11_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// TestDerivationsAreWellFormed: an attack with a wrong parameter would fail on every device and show nothing. So each of them succeeds where
// it is permitted, on a module that has the mechanism.
func TestDerivationsAreWellFormed(t *testing.T) {
	all := []string{
		"CKM_AES_ECB_ENCRYPT_DATA", "CKM_AES_CBC_ENCRYPT_DATA", "CKM_CONCATENATE_BASE_AND_DATA", "CKM_CONCATENATE_DATA_AND_BASE",
		"CKM_XOR_BASE_AND_DATA", "CKM_EXTRACT_KEY_FROM_KEY", "CKM_SHA1_KEY_DERIVATION", "CKM_SHA256_KEY_DERIVATION", "CKM_SHA384_KEY_DERIVATION",
		"CKM_SHA512_KEY_DERIVATION", "CKM_HKDF_DERIVE", "CKM_SP800_108_COUNTER_KDF with HMAC", "CKM_SP800_108_COUNTER_KDF with CMAC",
		"CKM_CONCATENATE_BASE_AND_KEY",
	}
	for _, c := range []struct {
		name         string
		opt          pkcs11.Options
		aes, generic []string
	}{{"NSS", nss(t), all, all}, {"SoftHSM", initialized(t), all[:2], nil}} {
		ways, err := pkcs11.DerivationsOf(c.opt, pin)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ways["aes"], c.aes) || !slices.Equal(ways["generic"], c.generic) {
			t.Errorf("%s derives from an AES key by %v, from a generic secret by %v", c.name, ways["aes"], ways["generic"])
		}
	}
}

// TestModuleThatDerivesIsRefused: SoftHSM behind a module that makes keys which may be derived from, whatever was asked for.
func TestModuleThatDerivesIsRefused(t *testing.T) {
	d := newDevice(t)
	opt := d.opt
	opt.Label += " b"
	if err := pkcs11.Initialize(opt, soPIN, pin); err != nil {
		t.Fatal(err)
	}
	d.derives = 1
	_, err := pkcs11.Create(opt, pin)
	for _, name := range []string{"wrap", "wrap-export"} {
		want := "CKA_DERIVE: keys can be derived from " + name + " in 2 ways, such as CKM_AES_ECB_ENCRYPT_DATA"
		if !errors.Is(err, pkcs11.ErrModule) || !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q: %v", want, err)
		}
	}
	// A device that comes back as one that does is not given the masters again.
	d.fail(cSign, p11.CKR_DEVICE_REMOVED, 0, 1)
	is(t, "identity", identitySigns(d.Token), hsm.ErrLost)
	d.clock.tick(t, try1)
	eventually(t, "the token gives up", func() bool { return d.log.count(logFinal) == 1 })
}
