package fsm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// levels is every member's word that it understands a level.
func (s *stage) levels(understands uint32) []fsm.NodeLevel {
	var all []fsm.NodeLevel
	for _, n := range s.m.State().Nodes() {
		all = append(all, fsm.NodeLevel{Node: n.ID, Understands: understands})
	}
	return all
}

// raised takes a stage to the newest level.
func (s *stage) raised() *stage {
	s.t.Helper()
	for level := s.m.State().FeatureLevel() + 1; level <= fsm.FeatureLevel; level++ {
		s.must(fsm.RaiseFeatureLevel{Level: level, Nodes: s.levels(fsm.FeatureLevel)})
	}
	return s
}

func TestTheLevelRisesByOneWhenEveryNodeUnderstands(t *testing.T) {
	s := cluster(t, true)
	for what, c := range map[string]struct {
		command fsm.RaiseFeatureLevel
		code    fsm.Code
	}{
		"the same":           {fsm.RaiseFeatureLevel{Level: 1, Nodes: s.levels(2)}, fsm.CodeConflict},
		"two at once":        {fsm.RaiseFeatureLevel{Level: 3, Nodes: s.levels(3)}, fsm.CodeConflict},
		"a node unasked":     {fsm.RaiseFeatureLevel{Level: 2, Nodes: s.levels(2)[:2]}, fsm.CodeUnsupported},
		"a node left behind": {fsm.RaiseFeatureLevel{Level: 2, Nodes: append(s.levels(2)[:2], fsm.NodeLevel{Node: "n3", Understands: 1})}, fsm.CodeUnsupported},
	} {
		if r, events := s.apply(c.command); r.Code != c.code || len(events) > 0 || s.m.State().FeatureLevel() != 1 {
			t.Errorf("%s: %+v, level %d", what, r, s.m.State().FeatureLevel())
		}
	}
	r, events := s.apply(fsm.RaiseFeatureLevel{Level: 2, Nodes: s.levels(2)})
	if r.Code != fsm.CodeOK || len(events) != 1 || events[0].Action != "cluster.level" || events[0].To != "level 2" || s.m.State().FeatureLevel() != 2 {
		t.Fatalf("%+v, %+v", r, events)
	}
	if r, _ := s.apply(fsm.RaiseFeatureLevel{Level: 2, Nodes: s.levels(2)}); r.Code != fsm.CodeConflict {
		t.Errorf("again: %+v", r)
	}
}

// TestALevelTooHighStopsTheNode: the others go on with what this release does not know. Nothing is applied of the entry.
func TestALevelTooHighStopsTheNode(t *testing.T) {
	s := cluster(t, true).raised()
	before := s.m.State().Digest()
	tooHigh := uint32(fsm.FeatureLevel + 1)
	raise := encode(t, fsm.Entry{Command: fsm.RaiseFeatureLevel{Level: tooHigh, Nodes: s.levels(tooHigh)}, Actor: alice, RequestID: s.requestID()}.Stamped(s.clock))
	if _, events, err := s.m.Apply(s.index+1, raise); !errors.Is(err, fsm.ErrUnknownEntry) || len(events) > 0 || s.m.State().Digest() != before {
		t.Errorf("%v, %d events", err, len(events))
	}
	first := newStage(t)
	init := first.init(true)
	init.FeatureLevel = tooHigh
	data := encode(t, fsm.Entry{Command: init, Actor: alice, RequestID: first.requestID()}.Stamped(first.clock))
	if _, _, err := first.m.Apply(1, data); !errors.Is(err, fsm.ErrUnknownEntry) {
		t.Errorf("a cluster that begins there: %v", err)
	}
	all := records(t, snapshot(t, s.m.State()))
	all[0].GetHeader().GetCluster().FeatureLevel = tooHigh
	if err := fsm.New().Restore(bytes.NewReader(sealedAs(t, magicLine2, all...))); !errors.Is(err, fsm.ErrSnapshot) || !strings.Contains(err.Error(), "upgrade this node") {
		t.Errorf("a snapshot of it: %v", err)
	}
}

func TestRaiseFeatureLevelHasItsNumber(t *testing.T) {
	e := entryOf(fsm.RaiseFeatureLevel{Level: 2, Nodes: []fsm.NodeLevel{{Node: "n1", Understands: 3}}})
	data := encode(t, e)
	var w fsmpb.Entry
	if err := proto.Unmarshal(data, &w); err != nil || w.GetType() != 45 || !w.GetMustUnderstand() {
		t.Errorf("number %d, %v", w.GetType(), err)
	}
	back, err := fsm.DecodeEntry(data)
	c, ok := back.Command.(fsm.RaiseFeatureLevel)
	if err != nil || !ok || c.Level != 2 || len(c.Nodes) != 1 || c.Nodes[0] != (fsm.NodeLevel{Node: "n1", Understands: 3}) || c.Restricting() {
		t.Errorf("%+v, %v", back, err)
	}
}

// TestBothFormatsAreRead: what is written follows the level; a format that is not that of its level is nobody's.
func TestBothFormatsAreRead(t *testing.T) {
	s := furnished(t)
	one := snapshot(t, s.m.State())
	two := snapshot(t, s.raised().m.State())
	if !bytes.HasPrefix(one, []byte(magicLine)) || !bytes.HasPrefix(two, []byte(magicLine2)) {
		t.Fatalf("%q, %q", one[:26], two[:26])
	}
	for _, data := range [][]byte{one, two} {
		m := restored(t, data)
		if again := snapshot(t, m.State()); !bytes.Equal(again[:26], data[:26]) || m.State().Digest() != restored(t, again).State().Digest() {
			t.Errorf("%q does not come back", data[:26])
		}
	}
	for _, crossed := range [][]byte{sealedAs(t, magicLine2, records(t, one)...), sealedAs(t, magicLine, records(t, two)...)} {
		if err := fsm.New().Restore(bytes.NewReader(crossed)); !errors.Is(err, fsm.ErrSnapshot) {
			t.Errorf("%q over the other level's state: %v", crossed[:26], err)
		}
	}
}

// TestFormat2NamesTheRecord that is damaged, and does so before the end.
func TestFormat2NamesTheRecord(t *testing.T) {
	data := snapshot(t, furnished(t).raised().m.State())
	at := bytes.Index(data, []byte("certificate of n2"))
	data[at] ^= 1
	err := fsm.New().Restore(bytes.NewReader(data[:at+200]))
	if !errors.Is(err, fsm.ErrSnapshot) || !strings.Contains(err.Error(), "record 2: its checksum is wrong") {
		t.Error(err)
	}
}

// TestDigest2IsOfTheStateAlone: whatever was remembered on the way, and whoever asked before, it is that of a machine that was just
// restored.
func TestDigest2IsOfTheStateAlone(t *testing.T) {
	s := furnished(t).raised()
	older := s.m.State()
	for i, name := range []string{"a", "z", "m", "k2"} {
		s.must(fsm.CreateKey{ID: fsm.KeyID(uuid(name)), Name: fsm.KeyName(name), Algorithm: "ed25519", Material: material(1)})
		if i%2 == 0 {
			s.m.State().Digest()
		}
		s.must(fsm.ChangeKey{Name: fsm.KeyName(name), Action: fsm.ActionSuspend, Reason: "drill"})
		now := s.m.State()
		if fresh := restored(t, snapshot(t, now)).State().Digest(); now.Digest() != fresh {
			t.Fatalf("after %s: %x, a fresh machine has %x", name, now.Digest(), fresh)
		}
	}
	if fresh := restored(t, snapshot(t, older)).State().Digest(); older.Digest() != fresh {
		t.Errorf("an older state: %x, a fresh machine has %x", older.Digest(), fresh)
	}
}
