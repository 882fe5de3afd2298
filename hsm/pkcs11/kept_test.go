//go:build cgo && unix

package pkcs11_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

func persistence(generation uint32) *hsm.Persistence {
	return &hsm.Persistence{ClusterID: "c1", Generation: generation, UnsealedAt: 1000 + uint64(generation)}
}

func reopen(t *testing.T, token *pkcs11.Token, opt pkcs11.Options) *pkcs11.Token {
	t.Helper()
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := pkcs11.Open(opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, again)
	return again
}

// TestRestart: a kept master outlives the token's owner, and node keys stay the same.
func TestRestart(t *testing.T) {
	token, opt := create(t)
	importInto(t, token, 3, persistence(3))
	k := generate(t, token, hsm.ECDSAP256)
	want, err := token.Master()
	if err != nil {
		t.Fatal(err)
	}
	again := reopen(t, token, opt)
	if _, err := again.Master(); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("a kept master is open without being restored: %v", err)
	}
	_, err = again.Open(t.Context(), k)
	is(t, "a key of a kept master that was not restored", err, hsm.ErrSealed)
	if p, err := again.RestoreMaster(t.Context()); err != nil || p != *persistence(3) {
		t.Fatalf("RestoreMaster = %+v, %v", p, err)
	}
	if got, err := again.Master(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Master = %+v, %v; want %+v", got, err, want)
	}
	key := openKey(t, again, k)
	in := hsm.SignInput{Message: []byte("m")}
	signature, err := key.Sign(t.Context(), in)
	if err = errors.Join(err, hsm.Verify(hsm.ECDSAP256, in, k.Binding.PublicKey, signature)); err != nil {
		t.Error(err)
	}
	if token.Info().Serial != again.Info().Serial || !token.Exchange().PublicKey().Equal(again.Exchange().PublicKey()) {
		t.Error("another token came back")
	}
	if err := again.Seal(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	wantObjects(t, again, "after Seal with forget", nodeObjects)
}

var errCrash = errors.New("the power went")

// crashAt lets n changes of what the token keeps happen and none after, as a crash does. It returns how many happened.
func crashAt(token *pkcs11.Token, n int) (happened *int) {
	happened = new(int)
	token.OnStep(func(string) error {
		if *happened >= n {
			return errCrash
		}
		*happened++
		return nil
	})
	return happened
}

// TestCrashes: wherever a change of the kept master is cut off, the next start finds the old one, the new one or, where that
// was the aim, none; never a mix, and nothing beside it.
func TestCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(*testing.T, *pkcs11.Token) error
		want []uint32 // generations; 0: none
	}{
		"another master kept": {func(t *testing.T, token *pkcs11.Token) error {
			return token.ImportMaster(t.Context(), testMaster(t, 2), persistence(2))
		}, []uint32{1, 2}},
		"a master not kept": {func(t *testing.T, token *pkcs11.Token) error {
			return token.ImportMaster(t.Context(), testMaster(t, 2), nil)
		}, []uint32{1, 0}},
		"forgetting": {func(t *testing.T, token *pkcs11.Token) error { return token.Seal(t.Context(), true) }, []uint32{1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			token, opt := create(t)
			seen := make(map[uint32]bool)
			for n := 0; ; n++ {
				importInto(t, token, 1, persistence(1))
				happened := crashAt(token, n)
				err := c.run(t, token)
				if err == nil {
					if *happened != n || n < 4 {
						t.Errorf("it ended after %d steps", *happened)
					}
					break
				}
				is(t, "a crash", err, errCrash)
				if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
					t.Errorf("after a failure the token is not sealed: %v", err)
				}
				token = reopen(t, token, opt)
				seen[findKept(t, token, c.want)] = true
			}
			if len(seen) != 2 {
				t.Errorf("the crashes led to %v, both of %v were expected", seen, c.want)
			}
		})
	}
}

// findKept restores, and checks that it is one of the generations in want, whole, and alone.
func findKept(t *testing.T, token *pkcs11.Token, want []uint32) uint32 {
	t.Helper()
	p, err := token.RestoreMaster(t.Context())
	if errors.Is(err, hsm.ErrNoMaster) {
		p, err = hsm.Persistence{}, nil
		wantObjects(t, token, "without a master", nodeObjects)
	} else {
		wantObjects(t, token, "with a kept master", nodeObjects, keptObjects)
		openKey(t, token, generate(t, token, hsm.AES256GCM))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, generation := range want {
		if p.Generation == generation {
			return generation
		}
	}
	t.Fatalf("generation %d came back, want one of %v", p.Generation, want)
	return 0
}

// TestForgettingTwo: two records can be there after a crash; forgetting takes the older first, so that it never counts again.
func TestForgettingTwo(t *testing.T) {
	for n := range 2 {
		token, opt := create(t)
		importInto(t, token, 1, persistence(1))
		crashAt(token, 4) // three masters and the record
		is(t, "an import cut off after its record", token.ImportMaster(t.Context(), testMaster(t, 2), persistence(2)), errCrash)
		crashAt(token, n)
		is(t, "forgetting cut off", token.Seal(t.Context(), true), errCrash)
		token = reopen(t, token, opt)
		if got := findKept(t, token, []uint32{2}); got != 2 {
			t.Errorf("after %d steps of forgetting: %d", n, got)
		}
	}
}

// TestRecordsThatLie: what somebody with the PIN writes is not believed; an import cleans it up.
func TestRecordsThatLie(t *testing.T) {
	token, opt := create(t)
	importInto(t, token, 1, persistence(1))
	good, err := token.Record()
	if err != nil {
		t.Fatal(err)
	}
	const sequenceAt, unsealedAt = 10, 10 + 8 + 16 + 2 + 2 + 4
	later := bytes.Clone(good)
	binary.BigEndian.PutUint64(later[unsealedAt:], 1<<40)
	unknown := bytes.Clone(good)
	unknown[sequenceAt+8] ^= 1
	for i, lie := range []struct {
		name  string
		value []byte
	}{{"a later unsealing", later}, {"masters that are not there", unknown}} {
		// Above all before it, those included that an import wrote over the lie before: the record that counts is the last one.
		binary.BigEndian.PutUint64(lie.value[sequenceAt:], uint64(i+1)<<40)
		if err := token.PlantRecord(lie.value); err != nil {
			t.Fatal(err)
		}
		_, err := token.RestoreMaster(t.Context())
		is(t, lie.name, err, hsm.ErrTokenDamaged)
		importInto(t, token, 1, persistence(1))
		wantObjects(t, token, "after an import over "+lie.name, nodeObjects, keptObjects)
	}
	if err := token.Seal(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := token.PlantRecord([]byte("no record")); err != nil {
		t.Fatal(err)
	}
	token = reopen(t, token, opt)
	_, err = token.RestoreMaster(t.Context())
	is(t, "garbage", err, hsm.ErrTokenDamaged)
	importInto(t, token, 1, nil)
	wantObjects(t, token, "after an import over garbage", nodeObjects, masterObjects)
}

// TestSwappedMaster: a kept key that is not the one of the record is found out before it serves.
func TestSwappedMaster(t *testing.T) {
	token, _ := create(t)
	for _, label := range []string{"conclave-wrap", "conclave-wrap-export", "conclave-bind"} {
		importInto(t, token, 1, persistence(1))
		if err := token.SwapMaster(label); err != nil {
			t.Fatal(err)
		}
		_, err := token.RestoreMaster(t.Context())
		is(t, label+" swapped", err, hsm.ErrTokenDamaged)
		if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("with %s swapped: %v", label, err)
		}
	}
}

// FuzzDecodeRecord: total, and canonical: what decodes encodes to the same bytes.
func FuzzDecodeRecord(f *testing.F) {
	const size = 8 + 2 + 8 + 16 + 2 + 2 + 4 + 8 + 3 + 3 + 8 + 2*(40+28) + 32
	good := make([]byte, size)
	copy(good, "CNCLVKPT\x00\x01")
	good[17], good[35], good[41] = 1, 2, 1 // sequence, length of the cluster id, generation
	if _, err := pkcs11.DecodeRecord(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:size-1])
	f.Add(append(bytes.Clone(good), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := pkcs11.DecodeRecord(b)
		switch {
		case err == nil && !bytes.Equal(again, b):
			t.Errorf("%x encodes as %x", b, again)
		case err != nil && !errors.Is(err, hsm.ErrTokenDamaged):
			t.Errorf("%x: %v", b, err)
		}
	})
}
