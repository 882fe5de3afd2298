package fsm_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// manyKeys is a catalog of several leaves of a B-tree: of two classes, with dates, and beside an open token.
func manyKeys(t *testing.T) *stage {
	s := furnished(t).raised()
	for i := range 300 {
		c := fsm.CreateKey{ID: fsm.KeyID(uuid(fmt.Sprint("many", i))), Name: scaleName(i), Algorithm: "ed25519", Material: material(1), Class: fsm.ClassStandard}
		if i%3 == 0 {
			c.Class = fsm.ClassLow
		}
		if i%5 == 0 {
			c.ActivateAt = s.clock.Add(time.Duration(300-i) * time.Hour)
		}
		if i%7 == 0 {
			c.DeactivateAt = s.clock.Add(time.Duration(1000-i) * time.Hour)
		}
		s.must(c)
		s.clock = s.clock.Add(time.Duration(i%4) * time.Second)
	}
	return s
}

// TestRestoredIndexes: what follows from the keys is no part of a snapshot, and is the same as if every entry had been applied,
// whatever the order of the keys' records.
func TestRestoredIndexes(t *testing.T) {
	want := manyKeys(t).m.State()
	all := records(t, snapshot(t, want))
	first := slices.IndexFunc(all, func(r *fsmpb.Record) bool { return r.GetKey() != nil })
	turned := slices.Clone(all)
	slices.Reverse(turned[first : first+len(want.Keys("", "", 0))])
	for name, order := range map[string][]*fsmpb.Record{"sorted": all, "turned": turned} {
		m := fsm.New()
		if err := m.Restore(bytes.NewReader(sealedAs(t, magicLine2, order...))); err != nil {
			t.Fatal(name, err)
		}
		sameIndexes(t, name, m.State(), want)
	}
}

func sameIndexes(t *testing.T, name string, have, want *fsm.State) {
	t.Helper()
	if have.Digest() != want.Digest() {
		t.Errorf("%s: another digest", name)
	}
	for _, class := range fsm.Classes() {
		if have.KeysOf(class) != want.KeysOf(class) {
			t.Errorf("%s: %d keys of class %s, not %d", name, have.KeysOf(class), class, want.KeysOf(class))
		}
	}
	for _, k := range want.Keys("", "", 0) {
		if found, ok := have.KeyByID(k.ID); !ok || found.Name != k.Name {
			t.Errorf("%s: key id %s leads to %q", name, k.ID, found.Name)
		}
	}
	end := want.Time().Add(fsm.MaxPeriod)
	dues := want.Due(end, 10_000, nil)
	if len(dues) < 250 {
		t.Fatalf("only %d dates to compare", len(dues))
	}
	if diff := cmp.Diff(dues, have.Due(end, 10_000, nil)); diff != "" {
		t.Errorf("%s: other dates: %s", name, diff)
	}
}
