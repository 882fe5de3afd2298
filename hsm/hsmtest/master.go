package hsmtest

import (
	"context"
	"reflect"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// The life of a master session.

func testSealed(t *testing.T, open Factory) {
	token, port := open(t)
	r := &rig{token: token, port: port, master: master(t, 1)}
	_, err := token.Master()
	is(t, "Master", err, hsm.ErrSealed)
	_, err = token.Generate(t.Context(), binding(hsm.AES256GCM), false)
	is(t, "Generate", err, hsm.ErrSealed)
	r.refuse(t, "Open", r.wrap(t, binding(hsm.AES256GCM), make([]byte, 32)), hsm.ErrSealed)
	_, err = token.RestoreMaster(t.Context())
	is(t, "RestoreMaster", err, hsm.ErrNoMaster)
	for _, forget := range []bool{false, true} {
		if err := token.Seal(t.Context(), forget); err != nil {
			t.Errorf("sealing a sealed token (forget %v): %v", forget, err)
		}
	}
}

func testMaster(t *testing.T, open Factory) {
	r := unsealed(t, open)
	want, err := r.master.Check()
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.token.Master()
	if err != nil || !reflect.DeepEqual(got, hsm.MasterInfo{ClusterID: clusterID, Generation: 1, Check: want}) {
		t.Errorf("Master = %+v, %v", got, err)
	}
	k := r.generate(t, hsm.AES256GCM)
	r.master.Wipe() // the token must hold copies of its own
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("after the caller wiped its master: %v", err)
	}
}

// testMastersRefused: what is refused changes nothing.
func testMastersRefused(t *testing.T, open Factory) {
	r := unsealed(t, open)
	short, unnamed, unnumbered := master(t, 1), master(t, 1), master(t, 1)
	short.Wrap = short.Wrap[:16]
	unnamed.ClusterID = ""
	unnumbered.Generation = 0
	is(t, "no master", r.token.ImportMaster(t.Context(), nil, nil), hsm.ErrInput)
	for name, m := range map[string]*hsm.Master{"a short key": short, "no cluster": unnamed, "no generation": unnumbered} {
		is(t, name, r.token.ImportMaster(t.Context(), m, nil), hsm.ErrInput)
	}
	p := &hsm.Persistence{ClusterID: clusterID, Generation: 2}
	is(t, "the persistence of another generation", r.token.ImportMaster(t.Context(), r.master, p), hsm.ErrInput)
	if info, err := r.token.Master(); err != nil || info.Generation != 1 {
		t.Errorf("after refusals the master is %+v, %v", info, err)
	}
}

// testGenerations: a blob of another generation is refused as such, and opens again under its own.
func testGenerations(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k := r.generate(t, hsm.AES256GCM)
	if err := r.token.ImportMaster(t.Context(), master(t, 2), nil); err != nil {
		t.Fatal(err)
	}
	r.refuse(t, "a key of generation 1 under 2", k, hsm.ErrGeneration)
	if err := r.token.ImportMaster(t.Context(), r.master, nil); err != nil {
		t.Fatal(err)
	}
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("under its own generation again: %v", err)
	}
}

// testSealEndsCopies: Seal kills every working copy, for good; identity and exchange go on.
func testSealEndsCopies(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		k := r.key(t, alg, 0)
		key := r.open(t, k)
		if err := r.token.Seal(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		is(t, "a copy after Seal", once(t, key, k), hsm.ErrSealed)
		if err := r.token.ImportMaster(t.Context(), r.master, nil); err != nil {
			t.Fatal(err)
		}
		is(t, "a copy of an earlier session", once(t, key, k), hsm.ErrSealed)
		if err := once(t, r.open(t, k), k); err != nil {
			t.Errorf("%s after sealing and unsealing: %v", alg, err)
		}
	}
}

// testImportAgain: a second import replaces the first, the same master too.
func testImportAgain(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k := r.generate(t, hsm.HMACSHA256)
	key := r.open(t, k)
	if err := r.token.ImportMaster(t.Context(), r.master, nil); err != nil {
		t.Fatal(err)
	}
	is(t, "a copy of the first session", once(t, key, k), hsm.ErrSealed)
	if err := once(t, r.open(t, k), k); err != nil {
		t.Errorf("under the second session: %v", err)
	}
}

func testPersistence(t *testing.T, open Factory) {
	r := unsealed(t, open)
	want := hsm.Persistence{ClusterID: clusterID, Generation: 1, UnsealedAt: 1 << 40}
	if err := r.token.ImportMaster(t.Context(), r.master, &want); err != nil {
		t.Fatal(err)
	}
	k := r.generate(t, hsm.AES256GCM)
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	_, err := r.token.Master()
	is(t, "Master while sealed", err, hsm.ErrSealed)
	for range 2 { // a second time while the first is open
		if got, err := r.token.RestoreMaster(t.Context()); err != nil || got != want {
			t.Fatalf("RestoreMaster = %+v, %v; want %+v", got, err, want)
		}
		if err := once(t, r.open(t, k), k); err != nil {
			t.Errorf("under the restored master: %v", err)
		}
	}
}

// testForgetting: Seal with forget and an import without persistence leave nothing to restore.
func testForgetting(t *testing.T, open Factory) {
	r := unsealed(t, open)
	keep := func() {
		t.Helper()
		p := &hsm.Persistence{ClusterID: clusterID, Generation: 1, UnsealedAt: 7}
		if err := r.token.ImportMaster(t.Context(), r.master, p); err != nil {
			t.Fatal(err)
		}
	}
	keep()
	if err := r.token.Seal(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	_, err := r.token.RestoreMaster(t.Context())
	is(t, "after Seal with forget", err, hsm.ErrNoMaster)
	keep()
	if err := r.token.ImportMaster(t.Context(), master(t, 2), nil); err != nil {
		t.Fatal(err)
	}
	_, err = r.token.RestoreMaster(t.Context())
	is(t, "after an import that is not kept", err, hsm.ErrNoMaster)
	if info, err := r.token.Master(); err != nil || info.Generation != 2 {
		t.Errorf("a restore that found nothing changed the master: %+v, %v", info, err)
	}
}

// testSealCanceled: whatever a canceled Seal returns, the token does not serve any more.
func testSealCanceled(t *testing.T, open Factory) {
	r := unsealed(t, open)
	k := r.generate(t, hsm.AES256GCM)
	key := r.open(t, k)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = r.token.Seal(ctx, false)
	is(t, "after a canceled Seal", once(t, key, k), hsm.ErrSealed)
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Errorf("sealing again: %v", err)
	}
}
