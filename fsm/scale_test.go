package fsm_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/btree"

	"github.com/conclave-vault/conclave/fsm"
)

// What a key of each algorithm brings, in bytes: RFC 5649 over a raw secret or a PKCS#8 key, and the SubjectPublicKeyInfo.
var scaleAlgorithms = []struct {
	name         string
	blob, public int
}{
	{"aes-256-gcm", 40, 0}, {"ecdsa-p256", 152, 91}, {"rsa-3072", 1800, 422},
}

// scaleBatch is the size of the batches that are published at once.
const scaleBatch = 64

// figures are what was measured of one catalog.
type figures struct {
	bytesPerKey             float64
	creates, cpuCreates     float64 // a second: by the clock, and of the applying thread's processor time
	bare                    float64 // by processor time
	snapshot, restore, cold work
	snapshotMiB             float64
	get, page               work // of one call
	digest1, digest2        time.Duration
	p99, p99Busy            time.Duration
	p99Snapshot, p99Restore time.Duration
}

// work is what something took: by the clock, of its thread's processor time, and of the processor time of all threads, which has the
// garbage collector's in it.
type work struct{ wall, thread, all time.Duration }

func (w work) String() string {
	return fmt.Sprintf("%s (cpu %s)", rounded(w.wall), rounded(w.thread))
}

// rounded to three digits or so.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); unit < time.Second; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(10 * time.Millisecond)
}

// BenchmarkScale prints what catalogs of 10 000, 100 000 and a million keys cost, side by side. Without CONCLAVE_LONG=1 only the
// first, and of the others only what one algorithm needs.
func BenchmarkScale(b *testing.B) {
	sizes := []int{10_000}
	if os.Getenv("CONCLAVE_LONG") == "1" {
		sizes = append(sizes, 100_000, 1_000_000)
	}
	var columns []string
	var all []figures
	for _, a := range scaleAlgorithms {
		for _, n := range sizes {
			if a.name != "aes-256-gcm" && n > 100_000 {
				continue // its heap is told by a tenth of it
			}
			b.Run(fmt.Sprintf("%s/%d", a.name, n), func(b *testing.B) {
				if b.N > 1 {
					return // measured: one run is the sum of many
				}
				f := measure(b, a.name, a.blob, a.public, n)
				b.ReportMetric(f.bytesPerKey, "B/key")
				b.ReportMetric(f.creates, "creates/s")
				columns, all = append(columns, fmt.Sprintf("%s %d", a.name, n)), append(all, f)
			})
		}
	}
	fmt.Println(table(columns, all)) // b.Log of a benchmark with benchmarks in it is not shown
}

func table(columns []string, all []figures) string {
	var out strings.Builder
	row := func(name string, cell func(figures) string) {
		fmt.Fprintf(&out, "%-34s", name)
		for _, f := range all {
			fmt.Fprintf(&out, "%28s", cell(f))
		}
		fmt.Fprintln(&out)
	}
	fmt.Fprintf(&out, "%-34s", "")
	for _, c := range columns {
		fmt.Fprintf(&out, "%28s", c)
	}
	fmt.Fprintln(&out)
	row("live heap per key after GC", func(f figures) string { return fmt.Sprintf("%.0f B", f.bytesPerKey) })
	row("creates, batches of 64", func(f figures) string { return fmt.Sprintf("%.0f /s", f.creates) })
	row("  by processor time", func(f figures) string { return fmt.Sprintf("%.0f /s", f.cpuCreates) })
	row("bare insertions, likewise", func(f figures) string { return fmt.Sprintf("%.0f /s (%.1f x)", f.bare, f.bare/f.cpuCreates) })
	row("get", func(f figures) string { return f.get.String() })
	row("list page of 100", func(f figures) string { return f.page.String() })
	row("snapshot", func(f figures) string { return f.snapshot.String() })
	row("  its size", func(f figures) string { return fmt.Sprintf("%.0f MiB", f.snapshotMiB) })
	row("restore beside the old state", func(f figures) string { return f.restore.String() })
	row("cold start from a snapshot", func(f figures) string { return f.cold.String() })
	row("  cpu with the collector's", func(f figures) string { return rounded(f.cold.all).String() })
	during := func(name string, took func(figures) time.Duration) {
		row(name, func(f figures) string { return fmt.Sprintf("%s (%.1f x)", rounded(took(f)), ratio(took(f), f.p99)) })
	}
	row("p99 of a read", func(f figures) string { return rounded(f.p99).String() })
	during("  while a thread only computes", func(f figures) time.Duration { return f.p99Busy })
	during("  while a snapshot is taken", func(f figures) time.Duration { return f.p99Snapshot })
	during("  while one is restored", func(f figures) time.Duration { return f.p99Restore })
	row("first digest", func(f figures) string { return f.digest1.Round(time.Millisecond).String() })
	row("digest after 64 changes", func(f figures) string { return f.digest2.Round(time.Microsecond).String() })
	return out.String()
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func scaleName(i int) fsm.KeyName {
	return fsm.KeyName(fmt.Sprintf("payments/region-%02d/key-%08d", i%20, i))
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func measure(b *testing.B, algorithm string, blob, public, n int) figures {
	var f figures
	s := cluster(b, true).raised()
	s.must(fsm.DescribeDevice{Node: "n1", Device: fsm.Device{HSM: "soft token", Algorithms: []string{algorithm}}})
	s.must(fsm.DescribeDevice{Node: "n2", Device: fsm.Device{HSM: "soft token", Algorithms: []string{algorithm}}})
	s.must(fsm.DescribeDevice{Node: "n3", Device: fsm.Device{HSM: "soft token", Algorithms: []string{algorithm}}})
	before := heap()
	spent, cpu := s.fill(b, algorithm, blob, public, 0, n)
	f.creates, f.cpuCreates = float64(n)/spent.Seconds(), float64(n)/max(cpu, 1).Seconds()
	s.log = nil
	s.clock = s.clock.Add(2 * fsm.RequestHorizon) // what is remembered of requests is no part of a key
	s.must(fsm.SealCluster{Reason: "benchmark"})
	s.log = nil
	f.bytesPerKey = (heap() - before) / float64(n)
	f.bare = float64(n) / bareInsertions(n).Seconds()

	state := s.m.State()
	f.get = perCall(scaleNames(200_000, n), func(name fsm.KeyName) { state.KeyRecord(name) })
	f.page = perCall(scaleNames(200, n), func(name fsm.KeyName) { state.Keys("", name, 100) })
	f.p99 = latency(state, n, func() { time.Sleep(300 * time.Millisecond) })
	f.p99Busy = latency(state, n, func() { compute(300 * time.Millisecond) })

	path := filepath.Join(b.TempDir(), "snapshot")
	f.p99Snapshot = latency(state, n, func() { f.snapshot = worked(func() { f.snapshotMiB = writeFile(b, state, path) }) })
	f.p99Restore = latency(state, n, func() { f.restore = worked(func() { readFile(b, fsm.New(), path) }) })
	want := s.m.State()
	f.digest1 = timed(func() { want.Digest() })
	for i := range scaleBatch {
		s.must(fsm.ChangeKey{Name: scaleName(i * 7919 % n), Action: fsm.ActionSuspend, Reason: "benchmark"})
	}
	f.digest2 = timed(func() { s.m.State().Digest() })
	s.m = nil
	heap()
	cold := fsm.New()
	f.cold = worked(func() { readFile(b, cold, path); cold.State().KeyRecord(scaleName(n / 2)) })
	if got := cold.State(); got.Digest() != want.Digest() {
		b.Error("the restored state is another")
	}
	return f
}

// fill creates keys in batches and returns the time that the state machine took, and its processor time.
func (s *stage) fill(b *testing.B, algorithm string, blob, public, from, to int) (spent, cpu time.Duration) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := material(1)
	m.Blob, m.PublicKey = make([]byte, blob), make([]byte, public)
	for i := from; i < to; {
		batch := make([][]byte, 0, scaleBatch)
		for ; len(batch) < scaleBatch && i < to; i++ {
			batch = append(batch, encode(b, fsm.Entry{
				Command: fsm.CreateKey{ID: fsm.KeyID(s.requestID()), Name: scaleName(i), Algorithm: algorithm, Material: m},
				Actor:   fsm.Actor(fmt.Sprintf("spiffe://demo/administrator/a%d", i/5000)), RequestID: s.requestID(),
			}.Stamped(s.clock)))
		}
		start, used := time.Now(), threadTime()
		for _, data := range batch {
			s.index++
			if r, _, err := s.m.Apply(s.index, data); err != nil || r.Code != fsm.CodeOK {
				b.Fatal(r, err)
			}
		}
		s.m.Publish()
		spent, cpu = spent+time.Since(start), cpu+threadTime()-used
		s.clock = s.clock.Add(20 * time.Millisecond) // 3200 a second of log time
	}
	return spent, cpu
}

// bareInsertions is what a catalog cannot be faster than: one copy-on-write B-tree with the same batches.
func bareInsertions(n int) time.Duration {
	names := make([]fsm.KeyName, n)
	for i := range names {
		names[i] = scaleName(i)
	}
	var tree, published btree.Map[fsm.KeyName, *fsm.Key]
	k := new(fsm.Key)
	took := worked(func() {
		for i, name := range names {
			tree.Set(name, k)
			if i%scaleBatch == scaleBatch-1 {
				published = *tree.Copy()
			}
		}
		_ = published.Len()
	})
	return max(took.thread, 1)
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// worked stays on one thread, so that its processor time can be told.
func worked(do func()) (w work) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, all := threadTime(), processTime()
	w.wall = timed(do)
	w.thread, w.all = threadTime()-thread, processTime()-all
	return w
}

func perCall(names []fsm.KeyName, call func(fsm.KeyName)) work {
	w := worked(func() {
		for _, name := range names {
			call(name)
		}
	})
	n := time.Duration(len(names))
	return work{w.wall / n, w.thread / n, w.all / n}
}

// scaleNames are names of a catalog of n keys, far from each other.
func scaleNames(count, n int) []fsm.KeyName {
	names := make([]fsm.KeyName, count)
	for i := range names {
		names[i] = scaleName(i * 7919 % n)
	}
	return names
}

// compute keeps a thread busy and touches no memory: what reads lose beside it they lose to the scheduler.
func compute(d time.Duration) {
	start, x := time.Now(), uint64(1)
	for time.Since(start) < d {
		for range 1000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
	runtime.KeepAlive(x)
}

// latency is the 99th percentile of single reads, one every 20 µs or so, while something else goes on.
func latency(s *fsm.State, n int, during func()) time.Duration {
	names := make([]fsm.KeyName, 4096)
	for i := range names {
		names[i] = scaleName(rand.IntN(n))
	}
	var done atomic.Bool
	result := make(chan time.Duration)
	go func() {
		took := make([]time.Duration, 0, 1<<20)
		for i := 0; !done.Load() && len(took) < cap(took); i++ {
			start := time.Now()
			s.KeyRecord(names[i%len(names)])
			took = append(took, time.Since(start))
			for time.Since(start) < 20*time.Microsecond {
				runtime.Gosched()
			}
		}
		slices.Sort(took)
		result <- took[len(took)*99/100]
	}()
	during()
	done.Store(true)
	return <-result
}

func writeFile(b *testing.B, s *fsm.State, path string) (mib float64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := s.WriteSnapshot(f); err != nil {
		b.Fatal(err)
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		b.Fatal(err)
	}
	return float64(at) / (1 << 20)
}

func readFile(b *testing.B, m *fsm.Machine, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := m.Restore(bufio.NewReader(f)); err != nil {
		b.Fatal(err)
	}
}
