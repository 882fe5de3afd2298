package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/vault/journal"
)

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func leaf(i uint64) []byte { return fmt.Appendf(nil, "event %d", i) }

func fill(t *testing.T, j *journal.Journal, from, to uint64) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := j.Append(i, leaf(i)); err != nil {
			t.Fatalf("leaf %d: %v", i, err)
		}
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
}

// readAll reads every record and checks it against what fill wrote.
func readAll(t *testing.T, j *journal.Journal, from, to uint64) {
	t.Helper()
	for at := from; at < to; {
		recs, err := j.Read(at, 100, 1<<20)
		if err != nil || len(recs) == 0 {
			t.Fatalf("reading at %d: %d records, %v", at, len(recs), err)
		}
		for _, r := range recs {
			if r.Leaf != at || !bytes.Equal(r.Data, leaf(at)) || !r.Verifies() {
				t.Fatalf("leaf %d came back as %d %q", at, r.Leaf, r.Data)
			}
			at++
		}
	}
}

func damageAt(t *testing.T, j *journal.Journal, from uint64) *journal.Damage {
	t.Helper()
	_, err := j.Read(from, 1, 1<<20)
	var d *journal.Damage
	if !errors.As(err, &d) {
		t.Fatalf("reading at %d: %v, want damage", from, err)
	}
	return d
}

func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 1000)
	readAll(t, j, 0, 1000)
	if recs, err := j.Read(1000, 10, 1<<20); err != nil || len(recs) != 0 {
		t.Fatalf("behind the end: %d records, %v", len(recs), err)
	}
	again := open(t, dir)
	if again.Next() != 1000 {
		t.Fatalf("next is %d after reopening", again.Next())
	}
	readAll(t, again, 0, 1000)
}

func TestReplayWritesNothing(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 50)
	before := contents(t, dir)
	fill(t, j, 0, 50)
	if after := contents(t, dir); !bytes.Equal(before, after) {
		t.Fatal("a replay changed the files")
	}
}

func contents(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	for _, p := range segments(t, dir) {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("segments: %v %v", paths, err)
	}
	return paths
}

func TestADifferentReplayIsDamageAndChangesNothing(t *testing.T) {
	j := open(t, t.TempDir())
	fill(t, j, 0, 10)
	var d *journal.Damage
	if err := j.Append(4, []byte("another event")); !errors.As(err, &d) || d.Number != 4 {
		t.Fatalf("got %v", err)
	}
	readAll(t, j, 0, 10)
}

func TestTornTailIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	fill(t, open(t, dir), 0, 20)
	path := segments(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	record := (len(whole) - 27) / 20 // all but the header of the segment, evenly: near enough to cut inside the last record
	for cut := 1; cut < record; cut += 7 {
		if err := os.WriteFile(path, whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		if j.Next() != 19 {
			t.Fatalf("cut by %d: next is %d", cut, j.Next())
		}
		fill(t, j, 10, 25) // the log comes again
		readAll(t, j, 0, 25)
		for _, p := range segments(t, dir)[1:] {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestZeroedTailIsTorn(t *testing.T) {
	dir := t.TempDir()
	fill(t, open(t, dir), 0, 5)
	f, err := os.OpenFile(segments(t, dir)[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	j := open(t, dir)
	fill(t, j, 0, 8)
	readAll(t, j, 0, 8)
}

// TestEveryChangedByteIsSeen flips each byte of a journal. Whichever it is, reading all of it must meet a record that does not
// verify or damage, before and after the log was replayed over it.
func TestEveryChangedByteIsSeen(t *testing.T) {
	dir := t.TempDir()
	fill(t, open(t, dir), 0, 6)
	path := segments(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 0x20
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		if !seen(t, j, 6) {
			t.Fatalf("byte %d of %d: not seen", i, len(whole))
		}
		for l := uint64(0); l < 8; l++ {
			var d *journal.Damage
			if err := j.Append(l, leaf(l)); err != nil && !errors.As(err, &d) {
				t.Fatalf("byte %d, leaf %d: %v", i, l, err)
			}
		}
		if !seen(t, j, 8) {
			t.Fatalf("byte %d: a replay hid it", i)
		}
		if j.Next() != 8 {
			t.Fatalf("byte %d: the journal does not go on: next is %d", i, j.Next())
		}
		for _, p := range segments(t, dir) {
			if p != path {
				os.Remove(p)
			}
		}
	}
}

func seen(t *testing.T, j *journal.Journal, to uint64) bool {
	t.Helper()
	for at := uint64(0); at < to; {
		recs, err := j.Read(at, 100, 1<<20)
		var d *journal.Damage
		if errors.As(err, &d) {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return true // records are missing: the state's tree size shows it
		}
		for _, r := range recs {
			if !r.Verifies() || !bytes.Equal(r.Data, leaf(r.Leaf)) {
				return true
			}
			at++
		}
	}
	return false
}

func TestGapIsFilled(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 10)
	fill(t, j, 500, 510) // a snapshot skipped 490 events
	if from, to := j.Gap(510); from != 10 || to != 500 {
		t.Fatalf("gap %d to %d", from, to)
	}
	if d := damageAt(t, j, 10); d.Number != 10 {
		t.Fatalf("damage at %d", d.Number)
	}
	var missing [][]byte
	for i := uint64(10); i < 500; i++ {
		missing = append(missing, leaf(i))
	}
	if err := j.Fill(10, missing); err != nil {
		t.Fatal(err)
	}
	if from, to := j.Gap(510); from != to {
		t.Fatalf("still a gap %d to %d", from, to)
	}
	readAll(t, j, 0, 510)
	readAll(t, open(t, dir), 0, 510)
}

func TestLimits(t *testing.T) {
	j := open(t, t.TempDir())
	if err := j.Append(0, make([]byte, journal.MaxRecord+1)); !errors.Is(err, journal.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := j.Append(0, make([]byte, journal.MaxRecord)); err != nil {
		t.Fatal(err)
	}
}

func TestClosed(t *testing.T) {
	j := open(t, t.TempDir())
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, readErr := j.Read(0, 1, 1)
	for _, err := range []error{j.Append(0, nil), j.Sync(), readErr} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

func TestHashIsTheLeafHash(t *testing.T) {
	j := open(t, t.TempDir())
	fill(t, j, 0, 1)
	recs, err := j.Read(0, 1, 1)
	if err != nil || recs[0].Hash != tlog.RecordHash(leaf(0)) {
		t.Fatalf("%v %v", recs, err)
	}
}

func FuzzOpenNeverPanics(f *testing.F) {
	dir := f.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	for i := uint64(0); i < 3; i++ {
		if err := j.Append(i, leaf(i)); err != nil {
			f.Fatal(err)
		}
	}
	j.Close()
	seed, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", 0)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-5])
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", 0)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(dir)
		if err != nil {
			return
		}
		defer j.Close()
		next := j.Next()
		for at := uint64(0); at < next; at++ {
			if _, err := j.Read(at, 1, 1); err != nil {
				var d *journal.Damage
				if !errors.As(err, &d) {
					t.Fatal(err)
				}
			}
		}
	})
}
