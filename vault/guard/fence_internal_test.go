package guard

import (
	"sync"
	"testing"
)

// TestFencesAreTakenDownTogether: by the state that comes and by whoever puts one up for a state that is there already.
func TestFencesAreTakenDownTogether(t *testing.T) {
	var f fences
	for index := range uint64(2000) {
		if err := f.raise("key", index); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		start := make(chan struct{})
		for range 2 {
			both.Go(func() {
				<-start
				f.lower(index)
			})
		}
		close(start)
		both.Wait()
		if f.block("key") {
			t.Fatal("it stays up")
		}
	}
}
