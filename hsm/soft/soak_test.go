package soft_test

import (
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// mostGrowth is what one unwrap may leave on the heap, in bytes, on the average of tens of thousands: not even a pointer.
const mostGrowth = 4

// TestSoak keeps thousands of keys open, and opens and releases tens of thousands beside them: nothing stays, neither on the heap nor in the
// locked memory. CONCLAVE_LONG=1: 100,000 and a million.
func TestSoak(t *testing.T) {
	cached, unwraps := hsmtest.Sizes()
	token, _ := create(t, cheap())
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		alg     hsm.Algorithm
		unwraps int
		use     func(keyuse.Key) error
	}{
		{hsm.AES256GCM, unwraps, func(k keyuse.Key) error { return second(k.Encrypt(t.Context(), nil, nil)) }},
		{hsm.HMACSHA256, unwraps / 10, func(k keyuse.Key) error { return second(k.MAC(t.Context(), nil)) }}, // in locked memory
	} {
		alg, unwraps, use := c.alg, c.unwraps, c.use
		k, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: alg}, false)
		if err != nil {
			t.Fatal(err)
		}
		slots := token.Leaked()
		held := hsmtest.Hold(t, token, k, cached)
		hsmtest.Rounds(t, token, k, unwraps/20) // tables have grown
		before := hsmtest.GoHeap()
		hsmtest.Rounds(t, token, k, unwraps)
		growth := (hsmtest.GoHeap() - before) / float64(unwraps)
		evict := held.Release(t, use)
		t.Logf("%s: %d keys held, %.0f bytes of heap each; opening takes %s, eviction %s; %d unwraps grow the heap by %.2f bytes each",
			alg, cached, held.Heap, held.Open, evict, unwraps, growth)
		if growth > mostGrowth {
			t.Errorf("%s: an unwrap grows the heap by %.1f bytes", alg, growth)
		}
		if n := token.Leaked(); n != slots {
			t.Errorf("%s: %d slots of locked memory are taken, %d before", alg, n, slots)
		}
	}
}

// second drops a result.
func second[T any](_ T, err error) error { return err }
