//go:build cgo && linux

package pkcs11_test

import (
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// mostGrowth is what one unwrap may cost beyond the module's own, in bytes of the C heap: what is left over of one attribute or
// handle of ours would be more.
const mostGrowth = 8

// TestSoak keeps thousands of keys open, and unwraps and destroys tens of thousands beside them: no object stays, and the heap
// grows by what SoftHSM does not give back and no more. CONCLAVE_LONG=1: 100,000 and a million.
func TestSoak(t *testing.T) {
	cached, unwraps := hsmtest.Sizes()
	d := newDevice(t)
	token := d.Token
	k := generate(t, token, hsm.AES256GCM)
	bare := func(n int) {
		if err := token.BareUnwraps(k.Blob, n); err != nil {
			t.Fatal(err)
		}
	}
	heap := func() float64 {
		if err := token.LookAtDevice(); err != nil {
			t.Fatal(err)
		}
		return float64(atomic.LoadUint64(&d.heap))
	}
	hsmtest.Rounds(t, token, k, unwraps/20) // sessions are opened, tables have grown
	empty := heap()
	held := hsmtest.Hold(t, token, k, cached)
	before := heap()
	bare(unwraps)
	middle := heap()
	hsmtest.Rounds(t, token, k, unwraps)
	after := heap()
	byModule, byUs := (middle-before)/float64(unwraps), (after-middle)/float64(unwraps)
	t.Logf("%d keys held, %d unwraps: the heap grows by %.1f bytes each by the module alone, %.1f with ours", cached, unwraps, byModule, byUs)
	if byModule < 1 || byUs-byModule > mostGrowth {
		t.Errorf("an unwrap grows the heap by %.1f bytes, the module alone by %.1f", byUs, byModule)
	}
	evict := held.Release(t, func(key keyuse.Key) error {
		_, err := key.Encrypt(t.Context(), []byte("p"), nil)
		return err
	})
	t.Logf("a held key takes %.0f bytes of the module's heap and %.0f of Go's; opening takes %s, eviction %s",
		(before-empty)/float64(cached), held.Heap, held.Open, evict)
	wantObjects(t, token, "after the soak", nodeObjects, masterObjects)
}
