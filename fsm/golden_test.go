package fsm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// The golden folders, one a feature level or more, hold a log that a release wrote, and the snapshot and digest it came to. They are added
// to, never made anew: a test here that fails says that a node of this release would differ from those that wrote them.

func goldens(t *testing.T, run func(t *testing.T, read func(name string) []byte)) {
	t.Helper()
	dirs, err := filepath.Glob("testdata/golden/v*")
	if err != nil || len(dirs) < fsm.FeatureLevel {
		t.Fatalf("%v, %v", dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			run(t, func(name string) []byte {
				return golden(t, filepath.Join(filepath.Base(dir), name))
			})
		})
	}
}

// golden reads one file.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenLog(t *testing.T) {
	goldens(t, func(t *testing.T, read func(string) []byte) {
		m := fsm.New()
		for i, line := range strings.Fields(string(read("log.hex"))) {
			data, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			if r, _, err := m.Apply(uint64(i+1), data); err != nil || r.Code != fsm.CodeOK {
				t.Fatalf("line %d: %+v, %v", i+1, r, err)
			}
		}
		wantDigest(t, "the log", read, m.Publish())
	})
}

func TestGoldenSnapshot(t *testing.T) {
	goldens(t, func(t *testing.T, read func(string) []byte) {
		m := fsm.New()
		if err := m.Restore(bytes.NewReader(read("snapshot.bin"))); err != nil {
			t.Fatal(err)
		}
		wantDigest(t, "the snapshot", read, m.State())
	})
}

func wantDigest(t *testing.T, what string, read func(string) []byte, s *fsm.State) {
	t.Helper()
	want := strings.TrimSpace(string(read("digest.hex")))
	if got := fmt.Sprintf("%x", s.Digest()); got != want {
		t.Errorf("%s gives the digest %s, it gave %s when it was written", what, got, want)
	}
}

// TestEveryEntryTypeIsGolden: an entry type without a golden line could change its meaning and no test would tell.
func TestEveryEntryTypeIsGolden(t *testing.T) {
	seen := map[uint32]bool{}
	goldens(t, func(t *testing.T, read func(string) []byte) {
		for i, line := range strings.Fields(string(read("log.hex"))) {
			data, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			var w fsmpb.Entry
			if err := proto.Unmarshal(data, &w); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			seen[w.GetType()] = true
		}
	})
	const beyond = 1000 // no number is that high yet
	known := 0
	for n := uint32(1); n <= beyond; n++ {
		data, err := proto.Marshal(&fsmpb.Entry{Type: n, MustUnderstand: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsm.DecodeEntry(data); errors.Is(err, fsm.ErrUnknownEntry) {
			continue
		}
		known++
		if !seen[n] {
			t.Errorf("entry type %d is in no golden log: add a folder to testdata/golden that has it", n)
		}
	}
	if known < len(everyCommand()) {
		t.Errorf("only %d types are known, and there are more commands: the test looks in the wrong way", known)
	}
}
