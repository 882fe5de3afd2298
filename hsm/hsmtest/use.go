package hsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// What can be done with keys, and what cannot.

// testGenerate: the result is complete, differs from every other one, is what the port promises, and works. It is where every
// algorithm is generated: RSA too, except the larger decryption keys, which are made like signature keys of their size, in seconds.
func testGenerate(t *testing.T, open Factory) {
	r := unsealed(t, open)
	seen := make(map[string]hsm.Algorithm)
	for _, alg := range r.usable() {
		if alg == hsm.RSA3072OAEP || alg == hsm.RSA4096OAEP {
			continue
		}
		keys := []hsm.WrappedKey{r.generate(t, alg)}
		if rsaBits(alg) == 0 {
			keys = append(keys, r.generate(t, alg))
		}
		for _, k := range keys {
			generated(t, r, alg, k)
			for _, b := range [][]byte{k.Blob, k.Binding.PublicKey} {
				if before, ok := seen[string(b)]; ok && len(b) != 0 {
					t.Errorf("%s: the same as a key of %s", alg, before)
				}
				seen[string(b)] = alg
			}
		}
	}
}

func generated(t *testing.T, r *rig, alg hsm.Algorithm, k hsm.WrappedKey) {
	t.Helper()
	if err := k.Validate(); err != nil {
		t.Errorf("%s: %v", alg, err)
	}
	want := binding(alg)
	want.Generation, want.PublicKey = 1, k.Binding.PublicKey
	if diff := cmp.Diff(want, k.Binding); diff != "" {
		t.Errorf("%s: binding (-want +got):\n%s", alg, diff)
	}
	if err := hsm.CheckBinding(r.master.Bind, k); err != nil {
		t.Errorf("%s: %v", alg, err)
	}
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("%s: %v", alg, err)
	}
}

func testGenerateRefusals(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for name, c := range map[string]struct {
		change func(*hsm.Binding)
		want   error
	}{
		"an unknown algorithm": {func(b *hsm.Binding) { b.Algorithm = "rot13" }, hsm.ErrUnsupported},
		"no cluster":           {func(b *hsm.Binding) { b.ClusterID = "" }, hsm.ErrInput},
		"another cluster":      {func(b *hsm.Binding) { b.ClusterID = "elsewhere" }, hsm.ErrInput},
		"no key id":            {func(b *hsm.Binding) { b.KeyID = "" }, hsm.ErrInput},
		"version 0":            {func(b *hsm.Binding) { b.Version = 0 }, hsm.ErrInput},
	} {
		b := binding(hsm.AES256GCM)
		c.change(&b)
		_, err := r.token.Generate(t.Context(), b, false)
		is(t, name, err, c.want)
	}
	for _, row := range r.token.Capabilities() {
		if !row.Usable() {
			_, err := r.token.Generate(t.Context(), binding(row.Algorithm), false)
			is(t, "an algorithm that the token lacks", err, hsm.ErrUnsupported)
		}
	}
}

// testUse: every algorithm to a result that verifies, and not with anything changed.
func testUse(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		k := r.key(t, alg, 0)
		key := r.open(t, k)
		for range 2 {
			if err := once(t, key, k); err != nil {
				t.Errorf("%s: %v", alg, err)
			}
		}
		if err := once(t, r.open(t, k), k); err != nil {
			t.Errorf("%s, a second copy: %v", alg, err)
		}
	}
	for _, alg := range r.signing() {
		signVariants(t, r, alg)
	}
	for _, alg := range r.of(hsm.FamilyMAC) {
		macVariants(t, r, alg)
	}
}

// digest hashes as a caller would before signing by a scheme.
func digest(s hsm.Scheme, message []byte) []byte {
	h := s.Hash().New()
	h.Write(message)
	return h.Sum(nil)
}

func signVariants(t *testing.T, r *rig, alg hsm.Algorithm) {
	t.Helper()
	k, other := r.key(t, alg, 0), r.key(t, alg, 1)
	key := r.open(t, k)
	message := bytes.Repeat([]byte("long "), 2000)
	inputs := []hsm.SignInput{{Message: message}, {Message: nil}}
	for _, scheme := range alg.Schemes() {
		inputs = append(inputs, hsm.SignInput{Scheme: scheme, Message: message})
		if scheme.Hash() != 0 {
			inputs = append(inputs, hsm.SignInput{Scheme: scheme, Prehashed: true, Digest: digest(scheme, message)})
		}
	}
	for i, in := range inputs {
		signature, err := key.Sign(t.Context(), in)
		if err != nil {
			t.Errorf("%s, input %d: %v", alg, i, err)
			continue
		}
		if err := hsm.Verify(alg, in, k.Binding.PublicKey, signature); err != nil {
			t.Errorf("%s, input %d: %v", alg, i, err)
		}
		is(t, "another key", hsm.Verify(alg, in, other.Binding.PublicKey, signature), hsm.ErrVerify)
		changed := hsm.SignInput{Scheme: in.Scheme, Message: []byte("x")}
		is(t, "another message", hsm.Verify(alg, changed, k.Binding.PublicKey, signature), hsm.ErrVerify)
		for _, scheme := range alg.Schemes() {
			if scheme != in.For(alg) {
				is(t, "another scheme", hsm.Verify(alg, hsm.SignInput{Scheme: scheme, Message: message}, k.Binding.PublicKey, signature), hsm.ErrVerify)
			}
		}
	}
}

// testRecoverable: the recovery id is right, the only one that is taken, and the signature is the one of the other scheme.
func testRecoverable(t *testing.T, open Factory) {
	r := unsealed(t, open)
	if !r.can(hsm.ECDSASecp256k1) {
		return
	}
	in := hsm.SignInput{Scheme: hsm.SchemeECDSASHA256Recoverable, Message: []byte("m")}
	ids := make(map[byte]bool)
	for range 16 { // of keys: half of them have an odd nonce point
		k := r.generate(t, hsm.ECDSASecp256k1)
		signature, err := r.open(t, k).Sign(t.Context(), in)
		if err != nil || len(signature) != 65 {
			t.Fatalf("%x, %v", signature, err)
		}
		ids[signature[64]] = true
		for v := range byte(8) {
			other := append(bytes.Clone(signature[:64]), v)
			want := hsm.ErrVerify
			if v == signature[64] {
				want = nil
			}
			is(t, "recovery id", hsm.Verify(hsm.ECDSASecp256k1, in, k.Binding.PublicKey, other), want)
		}
	}
	if len(ids) < 2 {
		t.Errorf("all of 16 keys sign with the recovery id in %v", ids)
	}
}

func macVariants(t *testing.T, r *rig, alg hsm.Algorithm) {
	t.Helper()
	size := map[hsm.Algorithm]int{hsm.HMACSHA256: 32, hsm.HMACSHA384: 48, hsm.HMACSHA512: 64}[alg]
	key := r.open(t, r.generate(t, alg))
	mac, err := key.MAC(t.Context(), []byte("m"))
	if err != nil || len(mac) != size {
		t.Fatalf("%s: MAC = %x, %v", alg, mac, err)
	}
	flipped := bytes.Clone(mac)
	flipped[size-1] ^= 1
	is(t, "another message", key.VerifyMAC(t.Context(), []byte("n"), mac), hsm.ErrVerify)
	is(t, "a flipped bit", key.VerifyMAC(t.Context(), []byte("m"), flipped), hsm.ErrVerify)
	is(t, "a cut MAC", key.VerifyMAC(t.Context(), []byte("m"), mac[:size-1]), hsm.ErrVerify)
	is(t, "a longer MAC", key.VerifyMAC(t.Context(), []byte("m"), append(bytes.Clone(mac), 0)), hsm.ErrVerify)
	is(t, "no MAC", key.VerifyMAC(t.Context(), []byte("m"), nil), hsm.ErrVerify)
}

// testExportable: the two wrap keys are not interchangeable.
func testExportable(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k, err := r.token.Generate(t.Context(), binding(hsm.AES256GCM), true)
	if err != nil || !k.Binding.Exportable {
		t.Fatalf("%+v, %v", k.Binding, err)
	}
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("an exportable key: %v", err)
	}
	k.Binding.Exportable = false
	r.refuse(t, "a blob under the other wrap key", r.rebind(k), hsm.ErrWrappedKey)
}

// testUnsupported: every operation that does not fit the family.
func testUnsupported(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		for name, o := range operations(t.Context(), r.open(t, r.key(t, alg, 0))) {
			if !slices.Contains(o.families, alg.Family()) {
				is(t, name+" with "+string(alg), o.run(), hsm.ErrUnsupported)
			}
		}
	}
}

// operation is a method of keyuse.Key, and what it fits.
type operation struct {
	families []hsm.Family
	run      func() error
}

func operations(ctx context.Context, key keyuse.Key) map[string]operation {
	only := func(f ...hsm.Family) []hsm.Family { return f }
	return map[string]operation{
		"sign":    {only(hsm.FamilySign), func() error { _, err := key.Sign(ctx, hsm.SignInput{Message: []byte("m")}); return err }},
		"encrypt": {only(hsm.FamilyCipher), func() error { _, err := key.Encrypt(ctx, []byte("m"), nil); return err }},
		"decrypt": {only(hsm.FamilyCipher, hsm.FamilyDecrypt), func() error {
			_, err := key.Decrypt(ctx, make([]byte, 40), nil)
			return err
		}},
		"mac":         {only(hsm.FamilyMAC), func() error { _, err := key.MAC(ctx, []byte("m")); return err }},
		"verify-mac":  {only(hsm.FamilyMAC), func() error { return key.VerifyMAC(ctx, []byte("m"), make([]byte, 32)) }},
		"agree":       {only(hsm.FamilyAgree), func() error { _, err := key.Agree(ctx, []byte("p")); return err }},
		"decapsulate": {only(hsm.FamilyDecapsulate), func() error { _, err := key.Decapsulate(ctx, []byte("c")); return err }},
	}
}

// testLimits: the largest input works, one byte more is refused.
func testLimits(t *testing.T, open Factory) {
	r := unsealed(t, open)
	most, more := make([]byte, hsm.MaxMessage), make([]byte, hsm.MaxMessage+1)
	for _, alg := range r.signing() {
		key := r.open(t, r.key(t, alg, 0))
		if _, err := key.Sign(t.Context(), hsm.SignInput{Message: most}); err != nil {
			t.Errorf("%s over the largest message: %v", alg, err)
		}
		for name, c := range map[string]struct {
			in   hsm.SignInput
			want error
		}{
			"too large":         {hsm.SignInput{Message: more}, hsm.ErrInput},
			"both":              {hsm.SignInput{Message: most[:1], Digest: most[:32]}, hsm.ErrInput},
			"an unknown scheme": {hsm.SignInput{Scheme: "rot13", Message: most[:1]}, hsm.ErrUnsupported},
		} {
			_, err := key.Sign(t.Context(), c.in)
			is(t, name+" for "+string(alg), err, c.want)
		}
		digestLimits(t, alg, key)
	}
	for _, alg := range r.of(hsm.FamilyMAC) {
		mac := r.open(t, r.generate(t, alg))
		if _, err := mac.MAC(t.Context(), most); err != nil {
			t.Errorf("%s of the largest message: %v", alg, err)
		}
		_, err := mac.MAC(t.Context(), more)
		is(t, "MAC of more", err, hsm.ErrInput)
		is(t, "VerifyMAC of more", mac.VerifyMAC(t.Context(), more, make([]byte, 32)), hsm.ErrVerify)
	}
	for _, alg := range r.of(hsm.FamilyCipher) {
		cipherLimits(t, r, alg, most, more)
	}
}

// digestLimits: a digest has the length of the scheme's hash, and schemes that hash nothing take none.
func digestLimits(t *testing.T, alg hsm.Algorithm, key keyuse.Key) {
	t.Helper()
	for _, scheme := range alg.Schemes() {
		for _, n := range []int{0, 20, 28, 31, 32, 33, 47, 48, 49, 63, 64, 65, 128} {
			if scheme.Hash() != 0 && n == scheme.Hash().Size() {
				continue
			}
			_, err := key.Sign(t.Context(), hsm.SignInput{Scheme: scheme, Prehashed: true, Digest: make([]byte, n)})
			is(t, fmt.Sprintf("a digest of %d bytes for %s by %s", n, alg, scheme), err, hsm.ErrInput)
		}
	}
}

func cipherLimits(t *testing.T, r *rig, alg hsm.Algorithm, most, more []byte) {
	t.Helper()
	key := r.open(t, r.generate(t, alg))
	sealed, err := key.Encrypt(t.Context(), most, most[:hsm.MaxAAD])
	if err != nil || len(sealed) != hsm.MaxMessage+28 {
		t.Fatalf("%s: the largest plaintext: %d bytes, %v", alg, len(sealed), err)
	}
	if plain, err := key.Decrypt(t.Context(), sealed, most[:hsm.MaxAAD]); err != nil || !bytes.Equal(plain, most) {
		t.Errorf("%s: the largest ciphertext: %v", alg, err)
	}
	_, err = key.Encrypt(t.Context(), more, nil)
	is(t, "Encrypt of more", err, hsm.ErrInput)
	_, err = key.Encrypt(t.Context(), nil, most[:hsm.MaxAAD+1])
	is(t, "Encrypt with more associated data", err, hsm.ErrInput)
	_, err = key.Decrypt(t.Context(), append(sealed, 0), nil)
	is(t, "Decrypt of more", err, hsm.ErrVerify)
}

// testCiphertexts: nonces differ; anything changed, cut or moved to another context or key does not verify.
func testCiphertexts(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.of(hsm.FamilyCipher) {
		ciphertexts(t, r.open(t, r.generate(t, alg)), r.open(t, r.generate(t, alg)))
	}
}

func ciphertexts(t *testing.T, key, other keyuse.Key) {
	t.Helper()
	plain, aad := []byte("thirty-two bytes of a plain text"), []byte("a=b")
	nonces := make(map[string]bool)
	var sealed []byte
	for range 32 {
		var err error
		if sealed, err = key.Encrypt(t.Context(), plain, aad); err != nil {
			t.Fatal(err)
		}
		nonces[string(sealed[:12])] = true
	}
	if len(nonces) != 32 {
		t.Errorf("%d nonces in 32 encryptions", len(nonces))
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x80
		_, err := key.Decrypt(t.Context(), bad, aad)
		is(t, "a changed byte", err, hsm.ErrVerify)
	}
	for name, c := range map[string]struct {
		key             keyuse.Key
		ciphertext, aad []byte
	}{
		"another context": {key, sealed, []byte("a=c")}, "no context": {key, sealed, nil}, "another key": {other, sealed, aad},
		"cut": {key, sealed[:len(sealed)-1], aad}, "no tag": {key, sealed[:27], aad}, "a nonce": {key, sealed[:12], aad}, "empty": {key, nil, aad},
	} {
		_, err := c.key.Decrypt(t.Context(), c.ciphertext, c.aad)
		is(t, name, err, hsm.ErrVerify)
	}
	empty, err := key.Encrypt(t.Context(), nil, nil)
	if err != nil || len(empty) != 28 {
		t.Fatalf("no plaintext: %d bytes, %v", len(empty), err)
	}
	if got, err := key.Decrypt(t.Context(), empty, nil); err != nil || len(got) != 0 {
		t.Errorf("no plaintext came back as %x, %v", got, err)
	}
}

func testCanceled(t *testing.T, open Factory) {
	r := unsealed(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := r.generate(t, hsm.AES256GCM)
	_, err := r.token.Generate(ctx, binding(hsm.AES256GCM), false)
	is(t, "Generate", err, context.Canceled)
	_, err = r.port.Open(ctx, k)
	is(t, "Open", err, context.Canceled)
	_, err = r.token.RestoreMaster(ctx)
	is(t, "RestoreMaster", err, context.Canceled)
	for _, alg := range r.usable() {
		for name, o := range operations(ctx, r.open(t, r.key(t, alg, 0))) {
			if slices.Contains(o.families, alg.Family()) {
				is(t, name, o.run(), context.Canceled)
			}
		}
	}
	is(t, "ImportMaster", r.token.ImportMaster(ctx, r.master, nil), context.Canceled)
	if err := once(t, r.open(t, k), k); err != nil && !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("after canceled calls: %v", err)
	}
}
