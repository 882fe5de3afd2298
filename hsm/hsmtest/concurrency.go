package hsmtest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// What holds when many use a token at once. Meant for the race detector.

func testRelease(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.usable() {
		k := r.key(t, alg, 0)
		first, err := r.port.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		second := r.open(t, k)
		first.Release()
		is(t, "a released copy", once(t, first, k), hsm.ErrClosed)
		if err := once(t, second, k); err != nil {
			t.Errorf("%s: the other copy: %v", alg, err)
		}
	}
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Errorf("sealing over released copies: %v", err)
	}
}

// rounds is how often a concurrent test repeats: less where one operation takes milliseconds.
func rounds(alg hsm.Algorithm) int {
	if rsaBits(alg) != 0 {
		return 3
	}
	return 20
}

// testConcurrentUse: one copy of each kind of key serves many goroutines, while others generate and open.
func testConcurrentUse(t *testing.T, open Factory) {
	r := unsealed(t, open)
	const workers = 4
	var wg sync.WaitGroup
	for _, alg := range r.kinds() {
		k := r.key(t, alg, 0)
		shared := r.open(t, k)
		for range workers {
			wg.Go(func() {
				for range rounds(alg) {
					if err := once(t, shared, k); err != nil {
						t.Errorf("%s: %v", alg, err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for range rounds(alg) {
				if err := lifetime(t, r, alg); err != nil {
					t.Errorf("%s: %v", alg, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// lifetime runs a key from generation (a published RSA key from its wrapping) to release.
func lifetime(t *testing.T, r *rig, alg hsm.Algorithm) error {
	var k hsm.WrappedKey
	var err error
	if rsaBits(alg) != 0 {
		k = r.key(t, alg, 0)
	} else if k, err = r.token.Generate(t.Context(), binding(alg), false); err != nil {
		return err
	}
	key, err := r.port.Open(t.Context(), k)
	if err != nil {
		return err
	}
	defer key.Release()
	return once(t, key, k)
}

// testDrain: Seal in the middle of use. Each operation gives a right result or ErrSealed, and none that began after Seal returned
// gives a result.
func testDrain(t *testing.T, open Factory) {
	r := unsealed(t, open)
	var wg, warm sync.WaitGroup
	var sealed atomic.Bool
	for _, alg := range r.kinds() {
		k := r.key(t, alg, 0)
		shared := r.open(t, k)
		for _, run := range []func() error{
			func() error { return once(t, shared, k) },
			func() error { return lifetime(t, r, alg) },
		} {
			warm.Add(1)
			wg.Go(func() {
				announce := sync.OnceFunc(warm.Done)
				defer announce()
				untilSealed(t, run, &sealed, announce)
			})
		}
	}
	warm.Wait()
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Errorf("sealing under use: %v", err)
	}
	sealed.Store(true)
	wg.Wait()
}

func untilSealed(t *testing.T, run func() error, sealed *atomic.Bool, announce func()) {
	for {
		late := sealed.Load()
		err := run()
		switch {
		case errors.Is(err, hsm.ErrSealed):
			return
		case err != nil:
			t.Errorf("while sealing: %v", err)
			return
		case late:
			t.Error("a result after Seal had returned")
			return
		}
		announce()
	}
}

// testReleaseUnderUse: an operation under way when its copy is released finishes right.
func testReleaseUnderUse(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, alg := range r.kinds() {
		k := r.key(t, alg, 0)
		for range rounds(alg) {
			key, err := r.port.Open(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if err := once(t, key, k); err != nil && !errors.Is(err, hsm.ErrClosed) {
						t.Errorf("%s: %v", alg, err)
					}
				})
			}
			key.Release()
			wg.Wait()
			is(t, "after Release", once(t, key, k), hsm.ErrClosed)
		}
	}
}
