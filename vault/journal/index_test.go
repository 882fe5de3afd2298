package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/conclave-vault/conclave/vault/journal"
)

// long makes records of a size that fills segments soon, with a subject out of ten.
func long(i uint64) []byte {
	return append(fmt.Appendf(nil, "s%d|", i%10), bytes.Repeat([]byte{byte(i)}, 50_000)...)
}

func bySubject(j *journal.Journal) *journal.Journal {
	j.IndexBy(func(data []byte) (string, bool) {
		subject, _, ok := bytes.Cut(data, []byte("|"))
		return string(subject), ok
	})
	return j
}

func wantSubject(t *testing.T, j *journal.Journal, subject int, from, to uint64, limit int) {
	t.Helper()
	var want []uint64
	for i := from; i < to && len(want) < limit; i++ {
		if i%10 == uint64(subject) {
			want = append(want, i)
		}
	}
	got, err := j.Lookup(fmt.Sprintf("s%d", subject), from, limit)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("subject %d from %d: %v, want %v: %v", subject, from, got, want, err)
	}
}

// TestLookupFindsASubject across full segments, in the growing one, after restarts, and when an index is damaged or missing.
func TestLookupFindsASubject(t *testing.T) {
	dir := t.TempDir()
	j := bySubject(open(t, dir))
	for i := range uint64(500) {
		if err := j.Append(i, long(i)); err != nil {
			t.Fatal(err)
		}
		if i%37 == 0 {
			wantSubject(t, j, 3, 0, i+1, 1000)
		}
	}
	wantSubject(t, j, 7, 0, 500, 1000)
	wantSubject(t, j, 7, 231, 500, 5)
	wantSubject(t, j, 7, 490, 500, 5)
	if got, err := j.Lookup("nobody", 0, 10); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if len(segments(t, dir)) < 3 {
		t.Fatalf("only %d segments", len(segments(t, dir)))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	indexes, err := filepath.Glob(filepath.Join(dir, "*.idx"))
	if err != nil || len(indexes) < 2 {
		t.Fatalf("%v, %v", indexes, err)
	}
	content, err := os.ReadFile(indexes[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func() error{
		func() error { return nil },
		func() error { return os.Remove(indexes[0]) },
		func() error { return os.WriteFile(indexes[0], content[:len(content)-1], 0o600) },
		func() error { c := bytes.Clone(content); c[60] ^= 1; return os.WriteFile(indexes[0], c, 0o600) },
		func() error {
			c, err := os.ReadFile(indexes[1])
			return firstError(err, os.WriteFile(indexes[0], c, 0o600))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		again := bySubject(open(t, dir))
		wantSubject(t, again, 4, 0, 500, 1000)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if now, err := os.ReadFile(indexes[0]); err != nil || !bytes.Equal(now, content) {
			t.Errorf("the index is not as it was: %v", err)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestLookupAfterAGap: leaves that come late stand in another segment and are found in order.
func TestLookupAfterAGap(t *testing.T) {
	j := bySubject(open(t, t.TempDir()))
	for _, span := range [][2]uint64{{0, 30}, {60, 90}, {30, 60}} {
		for i := span[0]; i < span[1]; i++ {
			if err := j.Append(i, fmt.Appendf(nil, "s%d|", i%10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantSubject(t, j, 6, 0, 90, 100)
	wantSubject(t, j, 6, 20, 90, 4)
}

// TestLookupAfterAReplacement: the index of a replaced segment goes with it.
func TestLookupAfterAReplacement(t *testing.T) {
	dir := t.TempDir()
	j := bySubject(open(t, dir))
	for i := range uint64(400) {
		if err := j.Append(i, long(i)); err != nil {
			t.Fatal(err)
		}
	}
	path := segments(t, dir)[0]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(content)
	bad[bytes.Index(bad, long(20)[:40])+1] = '9' // it calls itself another subject's
	write(t, path, bad)
	if got, err := j.Lookup("s0", 0, 3); err != nil || slices.Contains(got, 20) {
		t.Errorf("a damaged record is in the index: %v, %v", got, err)
	}
	first, end, _ := j.Extent(20)
	var data [][]byte
	for i := first; i < end; i++ {
		data = append(data, long(i))
	}
	if _, err := j.Replace(20, first, data); err != nil {
		t.Fatal(err)
	}
	for s := range 10 {
		wantSubject(t, j, s, 0, 400, 1000)
	}
}
