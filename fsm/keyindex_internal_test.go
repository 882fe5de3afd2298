package fsm

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func keyNumber(i int) KeyName { return KeyName(fmt.Sprintf("payments/key-%06d", i)) }

// TestKeyIndex: the working index and copies of it, written in any order, each against a map of its own; also where many tags are equal, or all.
// A copy finds what was there when it was made, as it has changed it since.
func TestKeyIndex(t *testing.T) {
	for _, mask := range []uint64{^uint64(0), 0x1f, 0xf << 30, 0} {
		t.Run(fmt.Sprintf("%#x", mask), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				x := newKeyIndex()
				full := x.places.tag
				x.places.tag = func(name KeyName) uint64 { return full(name) & mask }
				indexes, models := []*keyIndex{x}, []map[KeyName]*Key{{}}
				for range rapid.IntRange(1, 300).Draw(t, "steps") {
					i := rapid.IntRange(0, len(indexes)-1).Draw(t, "of")
					if len(indexes) < 8 && rapid.IntRange(0, 9).Draw(t, "what") == 0 {
						indexes, models = append(indexes, indexes[i].copy()), append(models, maps.Clone(models[i]))
						continue
					}
					k := &Key{Name: keyNumber(rapid.IntRange(0, 99).Draw(t, "name"))}
					indexes[i].set(k)
					if i == 0 || models[i][k.Name] != nil {
						models[i][k.Name] = k
					}
				}
				for i, x := range indexes {
					for n := range 100 {
						if got := x.get(keyNumber(n)); got != models[i][keyNumber(n)] {
							t.Fatalf("index %d: %s is %p, want %p", i, keyNumber(n), got, models[i][keyNumber(n)])
						}
					}
				}
			})
		})
	}
}

// TestKeyIndexGrowsBesideReaders: copies, as published states have them, are read while keys are added and changed.
func TestKeyIndexGrowsBesideReaders(t *testing.T) {
	const batches, size = 50, 400
	x := newKeyIndex()
	var readers sync.WaitGroup
	keys := make([]*Key, 0, batches*size)
	for range batches {
		for range size {
			keys = append(keys, &Key{Name: keyNumber(len(keys))})
			x.set(keys[len(keys)-1])
		}
		published, want, next := x.copy(), keys[:len(keys):len(keys)], keyNumber(len(keys))
		readers.Go(func() {
			for i, k := range want {
				if got := published.get(k.Name); got != k {
					t.Errorf("the index after %d keys: number %d is %p, want %p", len(want), i, got, k)
					return
				}
			}
			if k := published.get(next); k != nil {
				t.Errorf("the index after %d keys has %s too", len(want), k.Name)
			}
		})
		x.set(&Key{Name: keys[0].Name}) // which no copy sees
		x.set(keys[0])
	}
	readers.Wait()
}
