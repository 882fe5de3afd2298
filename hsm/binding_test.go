package hsm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/hsm"
)

func validBinding() hsm.Binding {
	return hsm.Binding{ClusterID: "c", KeyID: "k", Version: 1, Algorithm: hsm.AES256GCM, Generation: 1}
}

// TestBindingEncodingIsFixed: the bytes are what MACs in catalogs were made over, so they never change.
func TestBindingEncodingIsFixed(t *testing.T) {
	b := hsm.Binding{
		ClusterID: "c1", KeyID: "key", Version: 2, Algorithm: hsm.Ed25519, Generation: 3, PublicKey: []byte{0xaa, 0xbb}, Exportable: true,
	}
	want := "00000013" + hex.EncodeToString([]byte("conclave/v1/binding")) +
		"00000002" + "6331" + "00000003" + "6b6579" + "00000002" + "00000007" + hex.EncodeToString([]byte("ed25519")) +
		"00000003" + "00000002" + "aabb" + "01"
	if got := hex.EncodeToString(b.Encode()); got != want {
		t.Errorf("Encode = %s\nwant     %s", got, want)
	}
	if got, want := hex.EncodeToString(hsm.BindingMessage(b, []byte{1, 2})), want+"00000002"+"0102"; got != want {
		t.Errorf("BindingMessage = %s\nwant             %s", got, want)
	}
}

func drawBinding(t *rapid.T, label string) hsm.Binding {
	short := rapid.StringN(0, 3, 3)
	return hsm.Binding{
		ClusterID: short.Draw(t, label+" cluster"), KeyID: short.Draw(t, label+" key"),
		Version:    rapid.Uint32Range(0, 2).Draw(t, label+" version"),
		Algorithm:  hsm.Algorithm(short.Draw(t, label+" algorithm")),
		Generation: rapid.Uint32Range(0, 2).Draw(t, label+" generation"),
		PublicKey:  rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, label+" public key"),
		Exportable: rapid.Bool().Draw(t, label+" exportable"),
	}
}

func equal(a, b hsm.Binding) bool {
	samePublic := bytes.Equal(a.PublicKey, b.PublicKey)
	a.PublicKey, b.PublicKey = nil, nil
	return samePublic && a.ClusterID == b.ClusterID && a.KeyID == b.KeyID && a.Version == b.Version &&
		a.Algorithm == b.Algorithm && a.Generation == b.Generation && a.Exportable == b.Exportable
}

// TestBindingMessageIsInjective: two different pairs of binding and blob never give the same bytes.
func TestBindingMessageIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawBinding(t, "a"), drawBinding(t, "b")
		blobs := rapid.SliceOfN(rapid.Byte(), 0, 2)
		x, y := blobs.Draw(t, "blob a"), blobs.Draw(t, "blob b")
		same := equal(a, b) && bytes.Equal(x, y)
		if got := bytes.Equal(hsm.BindingMessage(a, x), hsm.BindingMessage(b, y)); got != same {
			t.Fatalf("equal messages: %v, equal inputs: %v", got, same)
		}
	})
}

func TestCheckBinding(t *testing.T) {
	key, blob := bytes.Repeat([]byte{1}, 32), make([]byte, 40)
	k := hsm.WrappedKey{Binding: validBinding(), Blob: blob, MAC: hsm.BindingMAC(key, validBinding(), blob)}
	if err := hsm.CheckBinding(key, k); err != nil {
		t.Error(err)
	}
	if err := hsm.CheckBinding(bytes.Repeat([]byte{2}, 32), k); !errors.Is(err, hsm.ErrWrappedKey) {
		t.Errorf("another bind key: %v", err)
	}
	k.MAC = nil
	if err := hsm.CheckBinding(key, k); !errors.Is(err, hsm.ErrWrappedKey) {
		t.Errorf("no MAC: %v", err)
	}
}

func TestBindingValidate(t *testing.T) {
	good, err := hsm.MarshalPublicKey(hsm.Ed25519, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*hsm.Binding)
		want   error
	}{
		"as it is":            {func(*hsm.Binding) {}, nil},
		"longest names":       {func(b *hsm.Binding) { b.ClusterID, b.KeyID = strings.Repeat("c", 128), strings.Repeat("k", 128) }, nil},
		"long cluster":        {func(b *hsm.Binding) { b.ClusterID = strings.Repeat("c", 129) }, hsm.ErrInput},
		"no cluster":          {func(b *hsm.Binding) { b.ClusterID = "" }, hsm.ErrInput},
		"long key id":         {func(b *hsm.Binding) { b.KeyID = strings.Repeat("k", 129) }, hsm.ErrInput},
		"no key id":           {func(b *hsm.Binding) { b.KeyID = "" }, hsm.ErrInput},
		"version 0":           {func(b *hsm.Binding) { b.Version = 0 }, hsm.ErrInput},
		"generation 0":        {func(b *hsm.Binding) { b.Generation = 0 }, hsm.ErrInput},
		"unknown algorithm":   {func(b *hsm.Binding) { b.Algorithm = "rsa-512" }, hsm.ErrUnsupported},
		"public key of AES":   {func(b *hsm.Binding) { b.PublicKey = good }, hsm.ErrInput},
		"public key":          {func(b *hsm.Binding) { b.Algorithm, b.PublicKey = hsm.Ed25519, good }, nil},
		"no public key":       {func(b *hsm.Binding) { b.Algorithm = hsm.Ed25519 }, hsm.ErrInput},
		"foreign public key":  {func(b *hsm.Binding) { b.Algorithm, b.PublicKey = hsm.ECDSAP256, good }, hsm.ErrInput},
		"trailing public key": {func(b *hsm.Binding) { b.Algorithm, b.PublicKey = hsm.Ed25519, append(good[:44:44], 0) }, hsm.ErrInput},
	} {
		b := validBinding()
		c.change(&b)
		if err := b.Validate(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWrappedKeyValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hsm.WrappedKey)
		want   error
	}{
		"as it is":          {func(*hsm.WrappedKey) {}, nil},
		"smallest blob":     {func(k *hsm.WrappedKey) { k.Blob = make([]byte, 16) }, nil},
		"largest blob":      {func(k *hsm.WrappedKey) { k.Blob = make([]byte, hsm.MaxBlob) }, nil},
		"too small":         {func(k *hsm.WrappedKey) { k.Blob = make([]byte, 8) }, hsm.ErrWrappedKey},
		"too large":         {func(k *hsm.WrappedKey) { k.Blob = make([]byte, hsm.MaxBlob+8) }, hsm.ErrWrappedKey},
		"odd":               {func(k *hsm.WrappedKey) { k.Blob = make([]byte, 41) }, hsm.ErrWrappedKey},
		"MAC":               {func(k *hsm.WrappedKey) { k.MAC = make([]byte, 31) }, hsm.ErrWrappedKey},
		"binding":           {func(k *hsm.WrappedKey) { k.Binding.KeyID = "" }, hsm.ErrWrappedKey},
		"unknown algorithm": {func(k *hsm.WrappedKey) { k.Binding.Algorithm = "rsa-512" }, hsm.ErrUnsupported},
	} {
		k := hsm.WrappedKey{Binding: validBinding(), Blob: make([]byte, 40), MAC: make([]byte, 32)}
		c.change(&k)
		if err := k.Validate(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
