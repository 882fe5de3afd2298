//go:build unix

package hsmtest

import (
	"syscall"
	"testing"
	"time"
)

// What a token costs: operations per second of processor time beside the bare library's, or a direct loop's over the same device, in the same
// run, and their ratio.

// cpu is the processor time that the process has used so far, the garbage collector's included.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// batchTime is long beside the clock's resolution and short beside a scheduler's period.
const batchTime = 2 * time.Millisecond

// Compare runs the two in turns, in short batches, so that whatever else the machine does meets both.
func Compare(b *testing.B, token, bare func() error) {
	b.Helper()
	run := func(f func() error, n int) time.Duration {
		start := cpu(b)
		for range n {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return cpu(b) - start
	}
	batch := 1
	for run(bare, batch) < batchTime {
		batch *= 2
	}
	var ours, theirs time.Duration
	rounds := 0
	for b.Loop() {
		theirs += run(bare, batch)
		ours += run(token, batch)
		rounds++
	}
	operations := float64(rounds * batch)
	b.ReportMetric(0, "ns/op") // of two batches: says nothing
	b.ReportMetric(operations/ours.Seconds(), "token/cpu-s")
	b.ReportMetric(operations/theirs.Seconds(), "bare/cpu-s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
}
