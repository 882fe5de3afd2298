package journal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/vault/journal"
)

// wantTree expects the stored tree to be that of the records [0, size).
func wantTree(t *testing.T, j *journal.Journal, size uint64) {
	t.Helper()
	if j.TreeSize() != size {
		t.Fatalf("the tree has %d leaves, want %d", j.TreeSize(), size)
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i := range size {
		h, err := tlog.StoredHashes(int64(i), leaf(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, h...)
	}
	want, err := tlog.TreeHash(int64(size), reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tlog.TreeHash(int64(size), j.Hashes()); err != nil || got != want {
		t.Fatalf("root of %d leaves: %v, want %v: %v", size, got, want, err)
	}
}

func treeFile(dir string) string { return filepath.Join(dir, "tree.hashes") }

// TestTreeFollowsTheRecords: through restarts, gaps, and whatever became of its file.
func TestTreeFollowsTheRecords(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for to := range uint64(40) {
		fill(t, j, to, to+1)
	}
	wantTree(t, j, 40)
	if err := j.AppendAll(40, [][]byte{leaf(40), leaf(41), leaf(42)}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, j, 43)
	fill(t, j, 50, 60)
	wantTree(t, j, 43) // no further than the gap
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	wantTree(t, again, 43)
	if err := again.Fill(43, [][]byte{leaf(43), leaf(44), leaf(45), leaf(46), leaf(47), leaf(48), leaf(49)}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, again, 60)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(treeFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{
		"missing": nil, "cut": whole[:len(whole)/2], "only a header": whole[:64], "cut in the header": whole[:20], "another header": append([]byte("x"), whole[1:]...),
		"more than the header says": append(bytes.Clone(whole), make([]byte, 320)...),
	} {
		if content == nil {
			err = os.Remove(treeFile(dir))
		} else {
			err = os.WriteFile(treeFile(dir), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		if wantTree(t, j, 60); t.Failed() {
			t.Fatal(what)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTreeOfLostRecordsIsCut: a tree longer than the records would prove what nobody can show.
func TestTreeOfLostRecordsIsCut(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 20)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := segments(t, dir)[0]
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-5); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	wantTree(t, again, 19)
	fill(t, again, 19, 25)
	wantTree(t, again, 25)
}

func checkAll(t *testing.T, j *journal.Journal) (uint64, error) {
	t.Helper()
	for at := uint64(0); ; {
		next, err := j.Check(at, 7)
		if err != nil || next == at {
			return next, err
		}
		at = next
	}
}

// TestCheckFindsWhichIsWrong: a record that does not match its hash, one rewritten with its hash, and a changed tree.
func TestCheckFindsWhichIsWrong(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 30)
	if at, err := checkAll(t, j); err != nil || at != 30 {
		t.Fatalf("at %d: %v", at, err)
	}
	path := segments(t, dir)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(good, leaf(12))
	bad := bytes.Clone(good)
	bad[at] ^= 1
	write(t, path, bad)
	var d *journal.Damage
	if _, err := checkAll(t, j); !errors.As(err, &d) || d.Number != 12 {
		t.Errorf("a changed record: %v", err)
	}
	hash := tlog.RecordHash(bad[at : at+len(leaf(12))])
	copy(bad[at+len(leaf(12)):], hash[:])
	write(t, path, bad)
	if leaf, err := checkAll(t, j); !errors.Is(err, journal.ErrTree) || leaf != 12 {
		t.Errorf("a record rewritten with its hash: leaf %d, %v", leaf, err)
	}
	write(t, path, good)
	tree, err := os.ReadFile(treeFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	tree[64+32*tlog.StoredHashIndex(1, 10)] ^= 1 // completed by leaf 21
	write(t, treeFile(dir), tree)
	if leaf, err := checkAll(t, j); !errors.Is(err, journal.ErrTree) || leaf != 21 {
		t.Errorf("a changed inner hash: leaf %d, %v", leaf, err)
	}
	if err := j.Rebuild(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, j, 30)
	if at, err := checkAll(t, j); err != nil || at != 30 {
		t.Errorf("after the rebuild, at %d: %v", at, err)
	}
}

// write changes a file where it lies, as somebody would who edits it under a running node.
func write(t *testing.T, path string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func leaves(from, to uint64) [][]byte {
	var all [][]byte
	for i := from; i < to; i++ {
		all = append(all, leaf(i))
	}
	return all
}

// TestReplaceKeepsTheEvidence for every way a segment can be spoilt, and goes on appending behind it.
func TestReplaceKeepsTheEvidence(t *testing.T) {
	for what, spoil := range map[string]func(path string, content []byte) error{
		"a record's byte":  func(p string, b []byte) error { b[bytes.Index(b, leaf(5))] ^= 1; return os.WriteFile(p, b, 0o600) },
		"a record's frame": func(p string, b []byte) error { b[bytes.Index(b, leaf(5))-9] ^= 1; return os.WriteFile(p, b, 0o600) },
		"the header":       func(p string, b []byte) error { b[3] ^= 1; return os.WriteFile(p, b, 0o600) },
		"cut":              func(p string, b []byte) error { return os.Truncate(p, int64(bytes.Index(b, leaf(5)))) },
		"gone":             func(p string, _ []byte) error { return os.Remove(p) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir)
			fill(t, j, 0, 10)
			path := segments(t, dir)[0]
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path, content); err != nil {
				t.Fatal(err)
			}
			first, end, there := j.Extent(5)
			if first != 0 || end != 10 || !there {
				t.Fatalf("extent [%d, %d) %t", first, end, there)
			}
			if _, err := j.Replace(5, 3, leaves(3, 10)); err == nil {
				t.Error("another segment than the damaged one is replaced")
			}
			evidence, err := j.Replace(5, first, leaves(0, 10))
			if err != nil {
				t.Fatal(err)
			}
			if what == "gone" {
				if evidence != "" {
					t.Errorf("evidence of nothing: %s", evidence)
				}
			} else if now, err := os.ReadFile(evidence); err != nil || len(now) == 0 || bytes.Equal(now, contents(t, dir)) {
				t.Errorf("the evidence in %s: %d bytes, %v", evidence, len(now), err)
			}
			fill(t, j, 10, 14)
			readAll(t, j, 0, 14)
			wantTree(t, j, 14)
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir)
			readAll(t, again, 0, 14)
			wantTree(t, again, 14)
		})
	}
}

// TestReplaceTakesOverWhatCameMeanwhile: appends go on while other nodes are asked.
func TestReplaceTakesOverWhatCameMeanwhile(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 10)
	_, end, _ := j.Extent(2)
	fill(t, j, 10, 13)
	if _, err := j.Replace(2, 0, leaves(0, end)); err != nil {
		t.Fatal(err)
	}
	readAll(t, j, 0, 13)
	wantTree(t, j, 13)
}

// TestASegmentWithoutAHeader is set aside whole: nothing in it can be found, so its leaves are a gap.
func TestASegmentWithoutAHeader(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j, 0, 10)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := segments(t, dir)[0]
	content := contents(t, dir)
	content[3] ^= 1
	write(t, path, content)
	again := open(t, dir)
	fill(t, again, 10, 12)
	first, end, there := again.Extent(0)
	if first != 0 || end != 0 || !there {
		t.Fatalf("extent [%d, %d) %t", first, end, there)
	}
	if _, err := again.Replace(0, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, there := again.Extent(0); there {
		t.Error("it is still there")
	}
	if from, to := again.Gap(12); from != 0 || to != 10 {
		t.Fatalf("gap [%d, %d)", from, to)
	}
	if err := again.Fill(0, leaves(0, 10)); err != nil {
		t.Fatal(err)
	}
	readAll(t, again, 0, 12)
	wantTree(t, again, 12)
}
