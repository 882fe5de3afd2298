package usage_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/vault/usage"
)

// written is a log of several segments.
func written(t testing.TB) (dir string, cfg usage.Config) {
	dir = t.TempDir()
	cfg = config(dir)
	cfg.SegmentBytes = 2048
	l := open(t, cfg)
	for i := range 60 {
		l.settle(i)
	}
	l.stop()
	return dir, cfg
}

// TestDamageIsNamed: every byte of every file but the last one's end.
func TestDamageIsNamed(t *testing.T) {
	dir, cfg := written(t)
	for _, path := range segments(t, dir) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(good); at += 41 {
			bad := append([]byte(nil), good...)
			bad[at] ^= 4
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			var d *usage.Damage
			if _, err := usage.Walk(dir, nil); !errors.As(err, &d) || d.Path != path {
				t.Fatalf("byte %d of %s: %v", at, filepath.Base(path), err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	last := segments(t, dir)[len(segments(t, dir))-1]
	content, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	content[200] ^= 1
	if err := os.WriteFile(last, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := usage.Open(cfg); err == nil || !strings.Contains(err.Error(), "conclave usage verify") {
		t.Errorf("a damaged end is opened: %v", err)
	}
}

// TestWhatIsTakenOutIsMissed: a segment in the middle, the end of one in the middle, a segment of another log.
func TestWhatIsTakenOutIsMissed(t *testing.T) {
	damaged := func(name string, harm func(paths []string) error) {
		dir, _ := written(t)
		if err := harm(segments(t, dir)); err != nil {
			t.Fatal(err)
		}
		var d *usage.Damage
		if _, err := usage.Walk(dir, nil); !errors.As(err, &d) {
			t.Errorf("%s: %v", name, err)
		}
	}
	damaged("a segment", func(p []string) error { return os.Remove(p[1]) })
	damaged("the end of a segment", func(p []string) error { return os.Truncate(p[1], 1000) })
	damaged("a segment of another log", func(p []string) error {
		other, _ := written(t)
		if err := os.Remove(p[1]); err != nil {
			return err
		}
		return os.Rename(segments(t, other)[1], p[1])
	})
	dir, _ := written(t)
	if err := os.Remove(segments(t, dir)[0]); err != nil { // that is what archiving does
		t.Fatal(err)
	}
	if s, err := usage.Walk(dir, nil); err != nil || !s.EarlierPruned {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestRead: pages go on where they ended, filters hold, and nothing that is not durable is shown.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.SegmentBytes = 4096
	l := open(t, cfg)
	for i := range 100 {
		l.settle(i)
	}
	read := func(q usage.Query) (ids []string) {
		t.Helper()
		for range 1000 {
			p, err := l.Read(q)
			if err != nil || len(p.Entries) > q.Limit {
				t.Fatalf("%d entries, %v", len(p.Entries), err)
			}
			for _, e := range p.Entries {
				ids = append(ids, e.RequestID)
			}
			if q.From = p.Next; p.Done {
				return ids
			}
		}
		t.Fatal("no end")
		return nil
	}
	if ids := read(usage.Query{Limit: 7}); len(ids) != 100 || ids[0] != "r0" || ids[99] != "r99" {
		t.Errorf("%v", ids)
	}
	if ids := read(usage.Query{Limit: 1000, KeyID: "key-2"}); len(ids) != 33 || ids[0] != "r2" {
		t.Errorf("%v", ids)
	}
	if ids := read(usage.Query{Limit: 3, Since: use(90).Time}); len(ids) != 10 || ids[0] != "r90" {
		t.Errorf("%v", ids)
	}
	if p, err := l.Read(usage.Query{From: 1 << 40, Limit: 1}); err != nil || !p.Done || len(p.Entries) != 0 {
		t.Errorf("behind the end: %+v, %v", p, err)
	}
	if err := os.Remove(segments(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	if ids := read(usage.Query{Limit: 7}); len(ids) >= 100 || ids[len(ids)-1] != "r99" {
		t.Errorf("after the first segment went: %v", ids)
	}
	l.stop()
}

// FuzzWalk: whatever is in the files, a walk ends with a summary or with damage, and what it does not call damaged Open takes.
func FuzzWalk(f *testing.F) {
	dir, _ := written(f)
	content, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content, uint16(0), byte(0))
	f.Add(content, uint16(300), byte(1))
	f.Add(content[:500], uint16(0), byte(0))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte) {
		dir := t.TempDir()
		content = append([]byte(nil), content...)
		if int(at) < len(content) {
			content[at] ^= flip
		}
		if err := os.WriteFile(filepath.Join(dir, "00000000000000000000.seg"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		var d *usage.Damage
		s, err := usage.Walk(dir, nil)
		if err != nil && !errors.As(err, &d) {
			t.Fatal(err)
		}
		l, openErr := usage.Open(config(dir))
		if (err == nil) != (openErr == nil) {
			t.Fatalf("walked through %+v, %v; opened: %v", s, err, openErr)
		}
		if openErr == nil {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
