package hsmtest

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// Factory opens a new, sealed token that keeps no master, and the port to use its keys. It closes the token in t.Cleanup.
type Factory func(t *testing.T) (hsm.Token, keyuse.Port)

// Trait is what a backend is by its nature, and that changes what can be asked of it.
type Trait uint8

// DeviceParsesPKCS8: private keys are parsed inside a device that shows the host nothing of what it unwrapped. Bytes behind the
// DER are then the device's to refuse or to ignore (SoftHSM and OpenSSL ignore them); what opens must be the bound key all the
// same.
const DeviceParsesPKCS8 Trait = 1

// Wrapped: a token that passes every operation to another one, which was asked for the published vectors itself.
const Wrapped Trait = 2

// Run runs the suite. An algorithm that the token reports as not usable must be refused; all others must work.
func Run(t *testing.T, open func(t *testing.T) (hsm.Token, keyuse.Port), traits ...Trait) {
	strict, wrapped := !slices.Contains(traits, DeviceParsesPKCS8), slices.Contains(traits, Wrapped)
	for _, c := range []struct {
		name string
		test func(*testing.T, Factory)
	}{
		{"info", testInfo},
		{"capabilities", testCapabilities},
		{"random", testRandom},
		{"identity", testIdentity},
		{"exchange", testExchange},
		{"sealed", testSealed},
		{"master", testMaster},
		{"masters refused", testMastersRefused},
		{"generate", testGenerate},
		{"generate refusals", testGenerateRefusals},
		{"use", testUse},
		{"exportable", testExportable},
		{"unsupported", testUnsupported},
		{"limits", testLimits},
		{"ciphertexts", testCiphertexts},
		{"recoverable", testRecoverable},
		{"decryption", testDecryption},
		{"agreement", testAgreement},
		{"decapsulation", testDecapsulation},
		{"tampering", testTampering},
		{"swaps", testSwaps},
		{"foreign material", testForeignMaterial},
		{"padded material", func(t *testing.T, open Factory) { testPaddedMaterial(t, open, strict) }},
		{"generations", testGenerations},
		{"release", testRelease},
		{"seal ends copies", testSealEndsCopies},
		{"import again", testImportAgain},
		{"persistence", testPersistence},
		{"forgetting", testForgetting},
		{"canceled", testCanceled},
		{"seal canceled", testSealCanceled},
		{"concurrent use", testConcurrentUse},
		{"drain", testDrain},
		{"release under use", testReleaseUnderUse},
		{"rewrap", testRewrap},
		{"rewrap refusals", testRewrapRefusals},
		{"redaction", testRedaction},
		{"vectors", testVectors},
	} {
		if wrapped && c.name == "vectors" {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// RunMaterial runs what a backend owes beyond Run if it sees the material that it unwraps: canonical encodings and good keys only. A
// device parses by itself, and nobody outside sees what it tolerates.
func RunMaterial(t *testing.T, open func(t *testing.T) (hsm.Token, keyuse.Port)) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"secrets", cutSecrets},
		{"scalars", weakScalars},
		{"seeds", otherSeedForms},
		{"RSA keys", weakRSA},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, unsealed(t, open)) })
	}
}

// clusterID is that of every key in the suite.
const clusterID = "8f9c2f3e-6a51-4e0c-9a57-0d9b1f1d2c11"

// rig is a token with an open master whose clear keys the suite knows.
type rig struct {
	token  hsm.Token
	port   keyuse.Port
	master *hsm.Master
}

// master derives a generation that is the same for every call.
func master(t *testing.T, generation uint32) *hsm.Master {
	t.Helper()
	m, err := hsm.DeriveMaster(bytes.Repeat([]byte{0x5a, byte(generation)}, 24), clusterID, generation)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// unsealed opens a token and imports generation 1.
func unsealed(t *testing.T, open Factory) *rig {
	t.Helper()
	r := &rig{master: master(t, 1)}
	r.token, r.port = open(t)
	if err := r.token.ImportMaster(t.Context(), r.master, nil); err != nil {
		t.Fatalf("importing a master: %v", err)
	}
	return r
}

// usable lists the algorithms that the token can use.
func (r *rig) usable() []hsm.Algorithm {
	var all []hsm.Algorithm
	for _, c := range r.token.Capabilities() {
		if c.Usable() {
			all = append(all, c.Algorithm)
		}
	}
	return all
}

// larger are the algorithms that differ from another one in their parameters only.
var larger = []hsm.Algorithm{
	hsm.AES256GCM, hsm.HMACSHA384, hsm.HMACSHA512, hsm.ECDSAP384, hsm.ECDSAP521, hsm.RSA3072, hsm.RSA4096, hsm.RSA3072OAEP, hsm.RSA4096OAEP,
	hsm.MLDSA65, hsm.MLDSA87,
}

// kinds lists the usable algorithms without the larger ones: for tests of what is the same for all parameters, many times over.
func (r *rig) kinds() []hsm.Algorithm {
	return slices.DeleteFunc(r.usable(), func(a hsm.Algorithm) bool { return slices.Contains(larger, a) })
}

// of lists the usable algorithms of a family.
func (r *rig) of(family hsm.Family) []hsm.Algorithm {
	return slices.DeleteFunc(r.usable(), func(a hsm.Algorithm) bool { return a.Family() != family })
}

// signing lists the usable algorithms that sign.
func (r *rig) signing() []hsm.Algorithm { return r.of(hsm.FamilySign) }

func (r *rig) can(alg hsm.Algorithm) bool { return slices.Contains(r.usable(), alg) }

func binding(alg hsm.Algorithm) hsm.Binding {
	return hsm.Binding{ClusterID: clusterID, KeyID: "01940a3b-0000-7000-8000-000000000001", Version: 1, Algorithm: alg}
}

func (r *rig) generate(t *testing.T, alg hsm.Algorithm) hsm.WrappedKey {
	t.Helper()
	k, err := r.token.Generate(t.Context(), binding(alg), false)
	if err != nil {
		t.Fatalf("generating %s: %v", alg, err)
	}
	return k
}

// key gives a key of alg without caring where it was made: RSA keys are published ones, because generating takes seconds. n tells
// two apart.
func (r *rig) key(t *testing.T, alg hsm.Algorithm, n int) hsm.WrappedKey {
	t.Helper()
	if rsaBits(alg) == 0 {
		return r.generate(t, alg)
	}
	return r.wrapKnown(t, alg, knownRSA(t, alg, n))
}

func (r *rig) wrapKnown(t *testing.T, alg hsm.Algorithm, k knownKey) hsm.WrappedKey {
	t.Helper()
	b := binding(alg)
	b.PublicKey = k.spki
	return r.wrap(t, b, k.der)
}

// open opens k and releases the copy when the test ends.
func (r *rig) open(t *testing.T, k hsm.WrappedKey) keyuse.Key {
	t.Helper()
	key, err := r.port.Open(t.Context(), k)
	if err != nil {
		t.Fatalf("opening %s: %v", k.Binding.Algorithm, err)
	}
	t.Cleanup(key.Release)
	return key
}

// wrap makes a wrapped key of known material without the token.
func (r *rig) wrap(t *testing.T, b hsm.Binding, material []byte) hsm.WrappedKey {
	t.Helper()
	b.Generation = r.master.Generation
	kek := r.master.Wrap
	if b.Exportable {
		kek = r.master.WrapExport
	}
	blob, err := keywrap.Wrap(kek, material)
	if err != nil {
		t.Fatal(err)
	}
	return hsm.WrappedKey{Binding: b, Blob: blob, MAC: hsm.BindingMAC(r.master.Bind, b, blob)}
}

// rebind makes the MAC of k right again after a change: what an attacker with the bind key could do.
func (r *rig) rebind(k hsm.WrappedKey) hsm.WrappedKey {
	k.MAC = hsm.BindingMAC(r.master.Bind, k.Binding, k.Blob)
	return k
}

// refuse fails unless opening k gives the error want.
func (r *rig) refuse(t *testing.T, what string, k hsm.WrappedKey, want error) {
	t.Helper()
	key, err := r.port.Open(t.Context(), k)
	if err == nil {
		key.Release()
	}
	if !errors.Is(err, want) || key != nil {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// once uses key once, as its algorithm permits, and checks the result.
func once(t *testing.T, key keyuse.Key, k hsm.WrappedKey) error {
	t.Helper()
	alg, message := k.Binding.Algorithm, []byte("attack at dawn")
	switch alg.Family() {
	case hsm.FamilySign:
		in := hsm.SignInput{Message: message}
		signature, err := key.Sign(t.Context(), in)
		if err != nil {
			return err
		}
		return hsm.Verify(alg, in, k.Binding.PublicKey, signature)
	case hsm.FamilyMAC:
		mac, err := key.MAC(t.Context(), message)
		if err != nil {
			return err
		}
		return key.VerifyMAC(t.Context(), message, mac)
	case hsm.FamilyCipher:
		sealed, err := key.Encrypt(t.Context(), message, []byte("context"))
		if err != nil {
			return err
		}
		got, err := key.Decrypt(t.Context(), sealed, []byte("context"))
		return equals(t, "decrypted", got, message, err)
	case hsm.FamilyDecrypt:
		sealed, err := hsm.EncryptOAEP(alg, k.Binding.PublicKey, message)
		if err != nil {
			return err
		}
		got, err := key.Decrypt(t.Context(), sealed, nil)
		return equals(t, "decrypted", got, message, err)
	case hsm.FamilyAgree:
		peer := newPeer(t, alg)
		got, err := key.Agree(t.Context(), peer.spki)
		return equals(t, "agreed on", got, peer.secret(t, k), err)
	case hsm.FamilyDecapsulate:
		want, ciphertext, err := hsm.Encapsulate(alg, k.Binding.PublicKey)
		if err != nil {
			return err
		}
		got, err := key.Decapsulate(t.Context(), ciphertext)
		return equals(t, "decapsulated", got, want, err)
	}
	return fmt.Errorf("%s is of family %d, which the suite does not know", alg, alg.Family())
}

// equals reports a wrong result, and passes err on.
func equals(t *testing.T, what string, got, want []byte, err error) error {
	t.Helper()
	if err == nil && !bytes.Equal(got, want) {
		t.Errorf("%s %x, want %x", what, got, want)
	}
	return err
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
