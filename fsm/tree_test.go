package fsm_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
)

// storedHashes is tlog's storage in memory.
type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, s[i])
	}
	return out, nil
}

func TestFrontierEqualsTlog(t *testing.T) {
	var f fsm.Frontier
	var stored storedHashes
	for n := int64(0); n <= 300; n++ {
		want, err := tlog.TreeHash(n, stored)
		if err != nil {
			t.Fatal(err)
		}
		if f.Size() != uint64(n) || f.Root() != want {
			t.Fatalf("at size %d (frontier %d): root %x, tlog has %x", n, f.Size(), f.Root(), want)
		}
		again, err := fsm.NewFrontier(f.Size(), f.Hashes())
		if err != nil || again.Root() != want {
			t.Fatalf("continued at %d: %x, %v", n, again.Root(), err)
		}
		leaf := fmt.Appendf(nil, "leaf %d", n)
		more, err := tlog.StoredHashes(n, leaf, stored)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		if fsm.LeafHash(leaf) != tlog.RecordHash(leaf) {
			t.Fatal("the leaf hash is another than tlog's")
		}
		f.Append(leaf)
	}
}

func TestFrontierIsAValue(t *testing.T) {
	var f fsm.Frontier
	for i := range 6 {
		f.Append([]byte{byte(i)})
	}
	left, right := f, f
	left.Append([]byte("left"))
	right.Append([]byte("right"))
	before := left.Root()
	right.Append([]byte("right again"))
	if left.Root() != before || left.Root() == right.Root() || f.Size() != 6 {
		t.Error("copies of a frontier share what they append to")
	}
}

func TestFrontierRefusesWrongHashes(t *testing.T) {
	if _, err := fsm.NewFrontier(3, make([][32]byte, 1)); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("a tree of 3 from one hash: %v", err)
	}
}

// TestStateTreeIsTheEventsTree: whoever has the events can recompute the root that the state claims.
func TestStateTreeIsTheEventsTree(t *testing.T) {
	s := newStage(t)
	var f fsm.Frontier
	leaf := uint64(0)
	check := func(c fsm.Command) {
		t.Helper()
		_, events := s.apply(c)
		for _, e := range events {
			if e.Leaf != leaf || e.Index != s.index || e.Actor != alice || e.RequestID == "" || !e.Time.Equal(s.clock) {
				t.Fatalf("event %+v at leaf %d", e, leaf)
			}
			f.Append(e.Encode())
			leaf++
		}
		if tree := s.m.State().Tree(); tree.Size != f.Size() || tree.Root != f.Root() {
			t.Fatalf("index %d: state has %d leaves with root %x, the events %d with %x", s.index, tree.Size, tree.Root, f.Size(), f.Root())
		}
	}
	check(s.init(true))
	check(fsm.CreateJoinToken{ID: uuid("t"), Node: "n2", Hash: digest("n2"), ExpiresAt: s.clock.Add(1e9)})
	check(fsm.CreateJoinToken{ID: "refused"})
	check(fsm.SealCluster{Reason: "drill"})
	if got := s.m.State().Frontier(); got.Size() != leaf || got.Root() != f.Root() || leaf != 5 {
		t.Errorf("frontier of %d leaves, want %d", got.Size(), leaf)
	}
}
