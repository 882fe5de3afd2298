package hsmtest

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// Sizes are of tests that keep many keys open. With CONCLAVE_LONG they are those of a large node that ran for months.
func Sizes() (cached, unwraps int) {
	if os.Getenv("CONCLAVE_LONG") != "" {
		return 100_000, 1_000_000
	}
	return 5_000, 50_000
}

// Held are working copies that are kept open.
type Held struct {
	keys []keyuse.Key
	Open time.Duration // of one
	Heap float64       // bytes of Go's heap of one
}

// Hold opens so many copies of a key.
func Hold(t testing.TB, port keyuse.Port, k hsm.WrappedKey, n int) *Held {
	t.Helper()
	h := &Held{keys: make([]keyuse.Key, n)}
	before, start := GoHeap(), time.Now()
	for i := range h.keys {
		key, err := port.Open(t.Context(), k)
		if err != nil {
			t.Fatalf("opening key %d: %v", i, err)
		}
		h.keys[i] = key
	}
	h.Open = time.Since(start) / time.Duration(n)
	h.Heap = (GoHeap() - before) / float64(n)
	return h
}

// Release uses each copy a last time and gives it back, and tells what an eviction takes.
func (h *Held) Release(t testing.TB, use func(keyuse.Key) error) (each time.Duration) {
	t.Helper()
	for i, key := range h.keys {
		if err := use(key); err != nil {
			t.Fatalf("held key %d: %v", i, err)
		}
	}
	start := time.Now()
	for _, key := range h.keys {
		key.Release()
	}
	each = time.Since(start) / time.Duration(len(h.keys))
	h.keys = nil
	return each
}

// Rounds opens a key and gives it back, n times.
func Rounds(t testing.TB, port keyuse.Port, k hsm.WrappedKey, n int) {
	t.Helper()
	for range n {
		key, err := port.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		key.Release()
	}
}

// GoHeap is what is reachable on Go's heap, in bytes.
func GoHeap() float64 {
	for range 2 { // what has a finalizer takes a second collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
