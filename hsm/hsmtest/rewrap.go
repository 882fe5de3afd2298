package hsmtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

func (r *rig) rewrapper(t *testing.T) hsm.Rewrapper {
	t.Helper()
	w, ok := r.token.(hsm.Rewrapper)
	if !ok {
		t.Fatal("the token is no hsm.Rewrapper: its cluster could never be rekeyed")
	}
	return w
}

func (r *rig) begin(t *testing.T, from, to *hsm.Master) hsm.Rewrapping {
	t.Helper()
	w, err := r.rewrapper(t).BeginRewrap(t.Context(), from, to)
	if err != nil {
		t.Fatalf("beginning to rewrap: %v", err)
	}
	t.Cleanup(w.End)
	return w
}

// keyFor is a generated key, or a published one of RSA: what a rekey has to do with both is the same.
func (r *rig) keyFor(t *testing.T, alg hsm.Algorithm, exportable bool) hsm.WrappedKey {
	t.Helper()
	if rsaBits(alg) != 0 {
		known := knownRSA(t, alg, 0)
		b := binding(alg)
		b.PublicKey, b.Exportable = known.spki, exportable
		return r.wrap(t, b, known.der)
	}
	k, err := r.token.Generate(t.Context(), binding(alg), exportable)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testRewrap moves keys of every algorithm to the next generation: the same key by its public half and by its use, wrapped under
// the new keys, refused under the old master and by the old generation.
func testRewrap(t *testing.T, open Factory) {
	r := unsealed(t, open)
	next := master(t, 2)
	type moved struct {
		old, new hsm.WrappedKey
		message  []byte // made by the key before
	}
	var all []moved
	rewrapping := r.begin(t, r.master, next)
	for _, alg := range r.usable() {
		for _, exportable := range []bool{false, true} {
			k := r.keyFor(t, alg, exportable)
			m, err := moved{old: k, message: r.mark(t, k)}, error(nil)
			if m.new, err = rewrapping.Rewrap(t.Context(), k); err != nil {
				t.Fatalf("rewrapping %s, exportable %v: %v", alg, exportable, err)
			}
			want := k.Binding
			want.Generation = 2
			if !bytes.Equal(m.new.Binding.Encode(), want.Encode()) || hsm.CheckBinding(next.Bind, m.new) != nil || bytes.Equal(m.new.Blob, k.Blob) {
				t.Errorf("%s: %+v became %+v", alg, k.Binding, m.new.Binding)
			}
			r.sameMaterial(t, next, m.old, m.new)
			r.refuse(t, "a key of the next generation", m.new, hsm.ErrGeneration)
			if _, err := rewrapping.Rewrap(t.Context(), m.new); !errors.Is(err, hsm.ErrGeneration) {
				t.Errorf("rewrapping a key twice: %v", err)
			}
			all = append(all, m)
		}
	}
	rewrapping.End()
	rewrapping.End()
	_, err := rewrapping.Rewrap(t.Context(), all[0].old)
	is(t, "rewrapping after End", err, hsm.ErrClosed)
	for _, m := range all { // the master of before is as it was
		if err := once(t, r.open(t, m.old), m.old); err != nil {
			t.Errorf("the old %s: %v", m.old.Binding.Algorithm, err)
		}
	}
	if err := r.token.ImportMaster(t.Context(), next, nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		key := r.open(t, m.new)
		if err := once(t, key, m.new); err != nil {
			t.Errorf("the new %s: %v", m.new.Binding.Algorithm, err)
		}
		r.recognise(t, m.new, m.message)
		r.refuse(t, "a key of the last generation", m.old, hsm.ErrGeneration)
	}
}

// mark makes what only this secret key can recognise later; nil for pairs, whose public half does that.
func (r *rig) mark(t *testing.T, k hsm.WrappedKey) (mark []byte) {
	t.Helper()
	key, err := r.open(t, k), error(nil)
	switch k.Binding.Algorithm.Family() {
	case hsm.FamilyMAC:
		mark, err = key.MAC(t.Context(), []byte("mark"))
	case hsm.FamilyCipher:
		mark, err = key.Encrypt(t.Context(), []byte("mark"), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

func (r *rig) recognise(t *testing.T, k hsm.WrappedKey, mark []byte) {
	t.Helper()
	key, err := r.open(t, k), error(nil)
	switch k.Binding.Algorithm.Family() {
	case hsm.FamilyMAC:
		err = key.VerifyMAC(t.Context(), []byte("mark"), mark)
	case hsm.FamilyCipher:
		_, err = key.Decrypt(t.Context(), mark, nil)
	}
	if err != nil {
		t.Errorf("%s does not know what it made before it was rewrapped: %v", k.Binding.Algorithm, err)
	}
}

// sameMaterial compares the secrets where they are raw: PKCS#8 may be encoded anew.
func (r *rig) sameMaterial(t *testing.T, next *hsm.Master, before, after hsm.WrappedKey) {
	t.Helper()
	kek := func(m *hsm.Master) []byte {
		if before.Binding.Exportable {
			return m.WrapExport
		}
		return m.Wrap
	}
	a, err1 := keywrap.Unwrap(kek(r.master), before.Blob)
	b, err2 := keywrap.Unwrap(kek(next), after.Blob)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("%s: %v", before.Binding.Algorithm, err)
	}
	if !before.Binding.Algorithm.Asymmetric() && !bytes.Equal(a, b) {
		t.Errorf("%s became another key", before.Binding.Algorithm)
	}
}

// testRewrapRefusals: no way in without an open master of the two, nothing that Open would refuse, and no way on after a seal.
func testRewrapRefusals(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k := r.generate(t, hsm.AES256GCM)
	foreign := master(t, 2)
	foreign.ClusterID = "another"
	for name, m := range map[string][2]*hsm.Master{
		"no masters": {nil, nil}, "one master": {r.master, nil}, "backwards": {master(t, 2), r.master}, "to itself": {r.master, master(t, 1)},
		"another cluster": {r.master, foreign}, "generations that are not open": {master(t, 2), master(t, 3)},
		"half a master": {r.master, {ClusterID: clusterID, Generation: 2, Wrap: r.master.Wrap}},
	} {
		_, err := r.rewrapper(t).BeginRewrap(t.Context(), m[0], m[1])
		is(t, name, err, hsm.ErrInput)
	}
	w := r.begin(t, r.master, master(t, 2))
	changed := k
	changed.Blob = bytes.Clone(k.Blob)
	changed.Blob[9] ^= 1
	exported := k
	exported.Binding.Exportable = true
	truncated := k
	truncated.Blob = k.Blob[:16]
	for name, bad := range map[string]hsm.WrappedKey{
		"a changed blob": changed, "a rebound changed blob": r.rebind(changed), "a key turned exportable": exported,
		"a key rebound as exportable": r.rebind(exported), "a truncated blob": truncated, "a rebound truncated blob": r.rebind(truncated), "nothing": {},
	} {
		if _, err := w.Rewrap(t.Context(), bad); err == nil || name != "nothing" && !errors.Is(err, hsm.ErrWrappedKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	signing := r.generate(t, r.signing()[0])
	other := r.generate(t, r.signing()[0])
	signing.Binding.PublicKey = other.Binding.PublicKey
	_, err := w.Rewrap(t.Context(), r.rebind(signing))
	is(t, "a private key under another's public key", err, hsm.ErrWrappedKey)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.Rewrap(ctx, k)
	is(t, "canceled", err, context.Canceled)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := w.Rewrap(t.Context(), k); err != nil {
					is(t, "rewrapping under a seal", err, hsm.ErrSealed)
					return
				}
			}
		})
	}
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Error(err)
	}
	wg.Wait()
	_, err = w.Rewrap(t.Context(), k)
	is(t, "after the seal", err, hsm.ErrSealed)
	_, err = r.rewrapper(t).BeginRewrap(t.Context(), r.master, master(t, 2))
	is(t, "beginning while sealed", err, hsm.ErrSealed)
}
