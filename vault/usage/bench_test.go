package usage_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/vault/usage"
)

// BenchmarkAppend is what a buffered record costs the caller: path alone, and sustained with the disk that has to take them all.
func BenchmarkAppend(b *testing.B) {
	b.Run("path", func(b *testing.B) {
		cfg := config(b.TempDir())
		ctx, e := context.Background(), use(0)
		b.ReportAllocs()
		for done := 0; done < b.N; {
			b.StopTimer()
			l, err := usage.Open(cfg) // whose buffer is empty
			if err != nil {
				b.Fatal(err)
			}
			n := min(b.N-done, 3000)
			b.StartTimer()
			for range n {
				if _, err := l.Append(ctx, &e); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			done += n
		}
	})
	b.Run("sustained", func(b *testing.B) {
		l := open(b, config(b.TempDir()))
		ctx, e := context.Background(), use(0)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Append(ctx, &e); err != nil {
				b.Fatal(err)
			}
		}
		l.stop()
	})
}

// BenchmarkSettle is how many durable records a disk takes, with so many callers at a time.
func BenchmarkSettle(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := open(b, config(b.TempDir()))
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			b.ResetTimer()
			for range callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						e := use(0)
						if err := l.Settle(context.Background(), &e); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			l.stop()
		})
	}
}
