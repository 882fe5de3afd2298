package hsmtest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// What is accepted as a wrapped key.

// testTampering: a change of any field of the binding, of the blob or of the MAC is refused.
func testTampering(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k, other := r.generate(t, hsm.ECDSAP256), r.generate(t, hsm.ECDSAP256)
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	for name, change := range map[string]func(*hsm.WrappedKey){
		"cluster":       func(k *hsm.WrappedKey) { k.Binding.ClusterID += "x" },
		"key id":        func(k *hsm.WrappedKey) { k.Binding.KeyID = "01940a3b-0000-7000-8000-000000000002" },
		"version":       func(k *hsm.WrappedKey) { k.Binding.Version = 2 },
		"algorithm":     func(k *hsm.WrappedKey) { k.Binding.Algorithm, k.Binding.PublicKey = hsm.AES256GCM, nil },
		"curve":         func(k *hsm.WrappedKey) { k.Binding.Algorithm = hsm.ECDSAP384 },
		"use":           func(k *hsm.WrappedKey) { k.Binding.Algorithm = hsm.ECDHP256 },
		"public key":    func(k *hsm.WrappedKey) { k.Binding.PublicKey = other.Binding.PublicKey },
		"no public key": func(k *hsm.WrappedKey) { k.Binding.PublicKey = nil },
		"exportable":    func(k *hsm.WrappedKey) { k.Binding.Exportable = true },
		"blob, first":   func(k *hsm.WrappedKey) { k.Blob = flip(k.Blob, 0) },
		"blob, last":    func(k *hsm.WrappedKey) { k.Blob = flip(k.Blob, len(k.Blob)-1) },
		"blob, cut":     func(k *hsm.WrappedKey) { k.Blob = k.Blob[:len(k.Blob)-8] },
		"blob, empty":   func(k *hsm.WrappedKey) { k.Blob = nil },
		"blob, huge":    func(k *hsm.WrappedKey) { k.Blob = make([]byte, hsm.MaxBlob+8) },
		"MAC":           func(k *hsm.WrappedKey) { k.MAC = flip(k.MAC, 31) },
		"MAC, cut":      func(k *hsm.WrappedKey) { k.MAC = k.MAC[:16] },
		"MAC, empty":    func(k *hsm.WrappedKey) { k.MAC = nil },
		"blob of other": func(k *hsm.WrappedKey) { k.Blob = other.Blob },
		"MAC of other":  func(k *hsm.WrappedKey) { k.MAC = other.MAC },
		"empty cluster": func(k *hsm.WrappedKey) { k.Binding.ClusterID = "" },
		"zero version":  func(k *hsm.WrappedKey) { k.Binding.Version = 0 },
		"no key id":     func(k *hsm.WrappedKey) { k.Binding.KeyID = "" },
		"half a key id": func(k *hsm.WrappedKey) {
			k.Binding.ClusterID += k.Binding.KeyID[:1]
			k.Binding.KeyID = k.Binding.KeyID[1:]
		},
		"not a multiple": func(k *hsm.WrappedKey) { k.Blob = append(bytes.Clone(k.Blob), 0) },
	} {
		bad := k
		change(&bad)
		r.refuse(t, name, bad, hsm.ErrWrappedKey)
	}
	bad := k
	bad.Binding.Generation = 2
	r.refuse(t, "generation", bad, hsm.ErrGeneration)
	bad = k
	bad.Binding.Algorithm = "rot13"
	r.refuse(t, "an unknown algorithm", bad, hsm.ErrUnsupported)
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("the untouched key: %v", err)
	}
}

// testSwaps: even with a right MAC, a blob is not taken for another type, curve or key.
func testSwaps(t *testing.T, open Factory) {
	r := unsealed(t, open)
	keys := make(map[hsm.Algorithm]hsm.WrappedKey)
	for _, alg := range r.usable() {
		keys[alg] = r.key(t, alg, 0)
		if alg.Family() == hsm.FamilyDecrypt {
			keys[alg] = r.key(t, alg, 1) // not the one that signs
		}
	}
	for from, source := range keys {
		for to, target := range keys {
			if from == to {
				continue
			}
			// Raw secrets are any bytes of their length, and cannot be told from others: only the MAC does that.
			raw := !to.Asymmetric() && len(target.Blob) == len(source.Blob)
			target.Blob = source.Blob
			r.refuse(t, string(from)+" as "+string(to), target, hsm.ErrWrappedKey)
			if !raw {
				r.refuse(t, string(from)+" as "+string(to)+", bound", r.rebind(target), hsm.ErrWrappedKey)
			}
		}
	}
	elsewhere := keys[hsm.AES256GCM]
	elsewhere.Binding.ClusterID = "elsewhere"
	r.refuse(t, "a key of another cluster, bound", r.rebind(elsewhere), hsm.ErrWrappedKey)
	for _, alg := range r.usable() {
		if !alg.Asymmetric() {
			continue
		}
		k, other := r.key(t, alg, 0), r.key(t, alg, 1)
		k.Binding.PublicKey = other.Binding.PublicKey
		r.refuse(t, "a public key that is not its own, bound, "+string(alg), r.rebind(k), hsm.ErrWrappedKey)
	}
}

// secretSizes are the lengths of secret keys in bytes.
var secretSizes = map[hsm.Algorithm]int{hsm.AES128GCM: 16, hsm.AES256GCM: 32, hsm.HMACSHA256: 32, hsm.HMACSHA384: 48, hsm.HMACSHA512: 64}

// testForeignMaterial: bytes that are no key of the algorithm are refused though everything around them is right.
func testForeignMaterial(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		if !alg.Asymmetric() {
			// Lengths that show in the length of the blob: RFC 5649 rounds up to eight.
			for _, n := range []int{1, 8, 16, 17, 24, 32, 33, 40, 48, 64, 72, 128} {
				if n != secretSizes[alg] {
					r.refuse(t, fmt.Sprintf("%d bytes as %s", n, alg), r.wrap(t, binding(alg), make([]byte, n)), hsm.ErrWrappedKey)
				}
			}
			continue
		}
		b := binding(alg)
		b.PublicKey = r.key(t, alg, 0).Binding.PublicKey
		for name, material := range map[string][]byte{
			"a raw secret": bytes.Repeat([]byte{1}, 32), "a long raw secret": bytes.Repeat([]byte{1}, 66), "garbage": bytes.Repeat([]byte{0x30}, 72),
			"an empty sequence": {0x30, 0}, "a public key": b.PublicKey,
		} {
			r.refuse(t, name+" as "+string(alg), r.wrap(t, b, material), hsm.ErrWrappedKey)
		}
	}
}

// testPaddedMaterial: keys made elsewhere open; up to seven zero bytes behind a PKCS#8 are a device's filling, more or others
// are not (see DeviceParsesPKCS8).
func testPaddedMaterial(t *testing.T, open Factory, strict bool) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		if !alg.Asymmetric() {
			continue
		}
		known := known(t, alg)
		b := binding(alg)
		b.PublicKey = known.spki
		for zeros := range 8 {
			k := r.wrap(t, b, append(bytes.Clone(known.der), make([]byte, zeros)...))
			key := r.open(t, k)
			if zeros%7 != 0 && rsaBits(alg) != 0 {
				continue // opening has compared the key; using it takes milliseconds
			}
			if err := once(t, key, k); err != nil {
				t.Errorf("%s with %d zeros behind: %v", alg, zeros, err)
			}
		}
		for _, behind := range [][]byte{make([]byte, 8), {0, 1}} {
			k := r.wrap(t, b, append(bytes.Clone(known.der), behind...))
			if key, err := r.port.Open(t.Context(), k); err == nil && !strict {
				if err := once(t, key, k); err != nil {
					t.Errorf("%s with %x behind opens as another key: %v", alg, behind, err)
				}
				key.Release()
				continue
			}
			r.refuse(t, fmt.Sprintf("%s with %x behind", alg, behind), k, hsm.ErrWrappedKey)
		}
		r.refuse(t, string(alg)+" cut", r.wrap(t, b, known.der[:len(known.der)-1]), hsm.ErrWrappedKey)
	}
}

func spki(t *testing.T, alg hsm.Algorithm, public []byte) []byte {
	t.Helper()
	der, err := hsm.MarshalPublicKey(alg, public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
