package segment_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/vault/segment"
)

const magic = "conclave test 1\n"

// file makes a file of these bytes.
func file(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), segment.Name(7, 0))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sample is a file of n records from number 7 on.
func sample(n int) []byte {
	b := segment.Header(magic, 7)
	for i := range n {
		b = segment.Append(b, segment.Record{Number: 7 + uint64(i), Data: bytes.Repeat([]byte{byte(i)}, i), Hash: segment.Hash{byte(i)}})
	}
	return b
}

// TestRecordsComeBack, from anywhere on, in pieces.
func TestRecordsComeBack(t *testing.T) {
	f, err := segment.Open(file(t, sample(600)), magic)
	if err != nil || f.First != 7 || f.End() != 607 || f.Torn || f.Damage != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	for at := f.First; at < f.End(); at += 37 {
		recs, err := f.Read(at, 2, 1<<20)
		if err != nil || len(recs) == 0 || recs[0].Number != at || len(recs[0].Data) != int(at-7) || recs[0].Hash[0] != byte(at-7) {
			t.Fatalf("record %d: %+v, %v", at, recs, err)
		}
	}
}

// TestCreate never takes over a file that is there.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	first, err := segment.Create(dir, magic, 7)
	if err != nil {
		t.Fatal(err)
	}
	second, err := segment.Create(dir, magic, 7)
	if err != nil || first.Path == second.Path {
		t.Fatalf("%v, %v, %v", first, second, err)
	}
	if paths, err := segment.List(dir); err != nil || len(paths) != 2 || paths[1] != second.Path {
		t.Errorf("%q, %v", paths, err)
	}
}

// TestAFileThatChanged after it was opened is damage, and so is one that is gone.
func TestAFileThatChanged(t *testing.T) {
	path := file(t, sample(10))
	f, err := segment.Open(path, magic)
	if err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func() error{
		"cut": func() error { return os.Truncate(path, 100) }, "another header": func() error { return os.WriteFile(path, sample(10)[1:], 0o600) },
		"gone": func() error { return os.Remove(path) },
	} {
		if err := os.WriteFile(path, sample(10), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		var d *segment.Damage
		if _, err := f.Read(16, 1, 1<<20); !errors.As(err, &d) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzOpen: whatever a file holds, what it is said to hold can be read, and is what is in it.
func FuzzOpen(f *testing.F) {
	whole := sample(3)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), make([]byte, 40)...))
	f.Add([]byte{})
	f.Add(append(bytes.Clone(whole), 1, 2, 3))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := segment.Open(file(t, content), magic)
		if err != nil {
			t.Fatal(err)
		}
		if s.Count == 0 {
			return
		}
		recs, err := s.Read(s.First, int(s.Count), 1<<30)
		if err != nil || len(recs) != int(s.Count) {
			t.Fatalf("%d records of %d, %v", len(recs), s.Count, err)
		}
		b := segment.Header(magic, 7)
		for _, r := range recs {
			b = segment.Append(b, r)
		}
		if int64(len(b)) != s.Size || !bytes.HasPrefix(content, b) {
			t.Errorf("%d bytes hold whole records, of them came %d", s.Size, len(b))
		}
	})
}
