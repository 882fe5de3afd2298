package usage_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conclave-vault/conclave/vault/usage"
)

// quiet waits for the disk only where a test lets it: the clock of a bubble moves Run.
func config(dir string) usage.Config {
	return usage.Config{Dir: dir, Node: "n1", Boot: "boot-1", Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
}

// running is a log with its Run.
type running struct {
	*usage.Log
	t    testing.TB
	end  context.CancelFunc
	done chan error
}

func open(t testing.TB, cfg usage.Config) *running {
	t.Helper()
	l, err := usage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	r := &running{Log: l, t: t, end: end, done: make(chan error, 1)}
	go func() { r.done <- l.Run(ctx) }()
	return r
}

// stop ends the log in good order.
func (r *running) stop() {
	r.t.Helper()
	r.end()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run: %v", err)
	}
}

func use(i int) usage.Entry {
	return usage.Entry{
		Time: time.Unix(1_800_000_000+int64(i), 0), Index: uint64(i), KeyID: fmt.Sprintf("key-%d", i%3), Version: 1, Operation: "sign", Role: "user", Name: "bob",
		Serial: "0a1b2c", RequestID: fmt.Sprintf("r%d", i), Bytes: 32, Outcome: usage.Done,
	}
}

func (r *running) append(from, to int) {
	r.t.Helper()
	for i := from; i < to; i++ {
		e := use(i)
		if _, err := r.Append(context.Background(), &e); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *running) settle(i int) {
	r.t.Helper()
	e := use(i)
	if err := r.Settle(context.Background(), &e); err != nil {
		r.t.Fatal(err)
	}
}

// uses walks through a log and returns its request ids in order.
func uses(t testing.TB, dir string) (ids []string, s usage.Summary) {
	t.Helper()
	s, err := usage.Walk(dir, func(e usage.Entry) error {
		if e.Kind == usage.KindUse {
			ids = append(ids, e.RequestID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, s
}

func wantUses(t testing.TB, dir string, n int) usage.Summary {
	t.Helper()
	ids, s := uses(t, dir)
	if len(ids) != n || s.Uses != uint64(n) {
		t.Fatalf("%d uses, %d are counted; want %d", len(ids), s.Uses, n)
	}
	for i, id := range ids {
		if id != fmt.Sprintf("r%d", i) {
			t.Fatalf("use %d is %s", i, id)
		}
	}
	return s
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRecordsComeBack, over segments and starts, each with the process that wrote it.
func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.SegmentBytes = 4096
	l := open(t, cfg)
	for i := range 100 {
		l.settle(i)
	}
	l.stop()
	cfg.Boot = "boot-2"
	l = open(t, cfg)
	l.append(100, 200)
	l.stop()
	s := wantUses(t, dir, 200)
	if s.Segments < 4 || s.Starts != 2 || s.Torn || s.EarlierPruned || s.First != 0 || s.Next != 200+2+uint64(s.Segments) {
		t.Errorf("%+v", s)
	}
	boots := map[string]int{}
	if _, err := usage.Walk(dir, func(e usage.Entry) error {
		if e.Kind == usage.KindUse {
			boots[e.Boot]++
		}
		return nil
	}); err != nil || boots["boot-1"] != 100 || boots["boot-2"] != 100 {
		t.Errorf("%v, %v", boots, err)
	}
}

// TestDurableBeforeItReturns: a copy of the disk at the moment of the return has the record, and it took an fsync.
func TestDurableBeforeItReturns(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	var synced atomic.Int32
	cfg.Sync = func(f *os.File) error { synced.Add(1); return f.Sync() }
	l := open(t, cfg)
	defer l.stop()
	for i := range 5 {
		before := synced.Load()
		l.settle(i)
		if synced.Load() == before {
			t.Error("no fsync")
		}
		wantUses(t, dir, i+1)
	}
}

// TestWhoWaitTogetherShareAnFsync: while the disk is busy all others gather.
func TestWhoWaitTogetherShareAnFsync(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	synced := 0
	begun, busy := make(chan struct{}), make(chan struct{})
	cfg.Sync = func(f *os.File) error {
		if synced++; synced == 1 {
			close(begun)
			<-busy
		}
		return f.Sync()
	}
	l := open(t, cfg)
	var all sync.WaitGroup
	all.Go(func() { l.settle(0) })
	<-begun
	var entered sync.WaitGroup
	for i := 1; i <= 64; i++ {
		e := use(i)
		if _, err := l.Append(context.Background(), &e); err != nil { // in the buffer before the disk is free
			t.Fatal(err)
		}
		entered.Add(1)
		all.Go(func() {
			entered.Done()
			if err := l.Settle(context.Background(), &e); err != nil {
				t.Error(err)
			}
		})
	}
	entered.Wait()
	close(busy)
	all.Wait()
	l.stop()
	if wantUses(t, dir, 65); synced != 2 {
		t.Errorf("%d fsyncs", synced)
	}
}

// TestBufferedSoonAfter: within FlushEvery without anybody waiting for it, and not before.
func TestBufferedSoonAfter(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, config(dir))
		time.Sleep(usage.FlushEvery + time.Nanosecond) // the record of the start is on the disk
		l.append(0, 10)
		synctest.Wait()
		if ids, _ := uses(t, dir); len(ids) != 0 {
			t.Errorf("%d records on the disk at once", len(ids))
		}
		time.Sleep(usage.FlushEvery)
		synctest.Wait()
		wantUses(t, dir, 10)
		l.stop()
	})
}

// TestAFullBufferWaits: nothing is dropped, and the caller hears that it waited.
func TestAFullBufferWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(dir)
		busy := make(chan struct{})
		cfg.Sync = func(f *os.File) error { <-busy; return f.Sync() }
		l := open(t, cfg)
		time.Sleep(usage.FlushEvery) // the record of the start is on its way
		synctest.Wait()
		const most = 100_000
		n, waited := 0, false
		go func() {
			for ; !waited && n < most; n++ {
				e := use(n)
				var err error
				if waited, err = l.Append(context.Background(), &e); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait() // it waits
		close(busy)
		synctest.Wait()
		if !waited || n == most {
			t.Errorf("%d records were taken without a wait", n)
		}
		l.stop()
		wantUses(t, dir, n)
	})
}

// TestACallerThatLeaves does not wait for a disk that hangs.
func TestACallerThatLeaves(t *testing.T) {
	cfg := config(t.TempDir())
	begun, busy := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cfg.Sync = func(f *os.File) error { once.Do(func() { close(begun); <-busy }); return f.Sync() }
	l := open(t, cfg)
	ctx, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { e := use(0); left <- l.Settle(ctx, &e) }()
	<-begun
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(busy)
	l.stop()
}

// TestAnErrorOfTheDiskIsFinal: who waits hears of it, nothing is recorded any more, and Run ends with it.
func TestAnErrorOfTheDiskIsFinal(t *testing.T) {
	cfg := config(t.TempDir())
	broken := errors.New("input/output error")
	cfg.Sync = func(*os.File) error { return broken }
	l := open(t, cfg)
	e := use(0)
	if err := l.Settle(context.Background(), &e); !errors.Is(err, broken) || !errors.Is(err, usage.ErrClosed) {
		t.Errorf("Settle: %v", err)
	}
	if err := <-l.done; !errors.Is(err, broken) {
		t.Errorf("Run: %v", err)
	}
	for i := range 3 {
		e := use(i)
		if _, err := l.Append(context.Background(), &e); !errors.Is(err, usage.ErrClosed) {
			t.Errorf("Append: %v", err)
		}
	}
}

// TestAClosedLogTakesNothing.
func TestAClosedLogTakesNothing(t *testing.T) {
	l := open(t, config(t.TempDir()))
	l.stop()
	e := use(0)
	if err := l.Settle(context.Background(), &e); !errors.Is(err, usage.ErrClosed) {
		t.Error(err)
	}
}

// TestATornEndIsCutOffAndSaid: wherever in the last record the crash was.
func TestATornEndIsCutOffAndSaid(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	l.settle(0)
	info, err := os.Stat(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := info.Size()
	l.settle(1)
	l.stop()
	content, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole + 1; cut < int64(len(content)); cut += 7 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000000000000000000.seg"), content[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, s := uses(t, dir); !s.Torn || s.Uses != 1 {
			t.Fatalf("cut at %d: %+v", cut, s)
		}
		l := open(t, config(dir))
		l.settle(1)
		l.stop()
		if s := wantUses(t, dir, 2); s.Torn || s.Starts != 2 {
			t.Fatalf("cut at %d: %+v", cut, s)
		}
		said := uint64(0)
		if _, err := usage.Walk(dir, func(e usage.Entry) error { said += e.Cut; return nil }); err != nil || said != uint64(cut-whole) {
			t.Errorf("cut at %d of %d: the start says %d, %v", cut, whole, said, err)
		}
	}
}

// TestAFullLog refuses what is durable, counts what is not, says so, and goes on when somebody makes room.
func TestAFullLog(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		cfg := config(dir)
		cfg.MaxBytes, cfg.Logger = usage.MinMaxBytes, slog.New(slog.NewTextHandler(&said, nil))
		ballast := filepath.Join(dir, "00000000000000000000.seg")
		l := open(t, cfg)
		l.settle(0)
		l.stop()
		// The first segment is as good as its size here: it is moved away before anybody reads it.
		moved := filepath.Join(t.TempDir(), "moved.seg")
		cfg.SegmentBytes = 1
		l = open(t, cfg)
		l.settle(1)
		l.settle(2)
		content, err := os.ReadFile(ballast)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(ballast, usage.MinMaxBytes); err != nil {
			t.Fatal(err)
		}
		l.stop()
		l = open(t, cfg)
		time.Sleep(usage.FlushEvery + time.Nanosecond)
		synctest.Wait()
		e := use(3)
		if err := l.Settle(context.Background(), &e); !errors.Is(err, usage.ErrFull) || !strings.Contains(err.Error(), "move the oldest files") {
			t.Errorf("durable: %v", err)
		}
		l.append(3, 8)
		if !strings.Contains(said.String(), "the usage log is full") {
			t.Errorf("said: %s", said.String())
		}
		if err := os.Rename(ballast, moved); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * usage.FlushEvery)
		synctest.Wait()
		l.settle(8)
		l.stop()
		if err := os.WriteFile(ballast, content, 0o600); err != nil { // back from where it was kept
			t.Fatal(err)
		}
		ids, s := uses(t, dir)
		if s.Missing != 5 || fmt.Sprint(ids) != "[r0 r1 r2 r8]" {
			t.Errorf("%v, %+v", ids, s)
		}
	})
}

// TestConfig: what makes no log is refused.
func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*usage.Config){
		"no folder": func(c *usage.Config) { c.Dir = "" }, "no node": func(c *usage.Config) { c.Node = "" }, "no clock": func(c *usage.Config) { c.Now = nil },
		"too small": func(c *usage.Config) { c.MaxBytes = usage.MinMaxBytes - 1 },
	} {
		cfg := config(t.TempDir())
		if change(&cfg); func() error { _, err := usage.Open(cfg); return err }() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestAppendAllocatesNothing.
func TestAppendAllocatesNothing(t *testing.T) {
	l, err := usage.Open(config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, e := context.Background(), use(0)
	if n := testing.AllocsPerRun(1000, func() { // they fit into the buffer
		if _, err := l.Append(ctx, &e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
