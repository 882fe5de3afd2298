package store_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/cluster/store"
)

// faulty is an inner store whose calls fail when told to.
type faulty struct {
	*raft.InmemStore
	err error
}

func (f *faulty) StoreLogs(l []*raft.Log) error {
	if f.err != nil {
		return f.err
	}
	return f.InmemStore.StoreLogs(l)
}

func (f *faulty) Set(k, v []byte) error {
	if f.err != nil {
		return f.err
	}
	return f.InmemStore.Set(k, v)
}

func newStore() (*store.Store, *faulty, *store.Fault) {
	inner := &faulty{InmemStore: raft.NewInmemStore()}
	fault := store.NewFault()
	return store.New(inner, inner, store.Checksum{}, fault), inner, fault
}

func TestLogsComeBack(t *testing.T) {
	s, inner, _ := newStore()
	want := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogCommand, Data: []byte("secret name"), Extensions: []byte("more")},
		{Index: 2, Term: 1, Type: raft.LogNoop},
		{Index: 3, Term: 2, Type: raft.LogConfiguration, Data: []byte{0}},
	}
	if err := s.StoreLogs(want); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 4, Term: 2, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		var got raft.Log
		if err := s.GetLog(w.Index, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*w, got); diff != "" {
			t.Error(diff)
		}
	}
	first, err := s.FirstIndex()
	last, err2 := s.LastIndex()
	if first != 1 || last != 4 || err != nil || err2 != nil {
		t.Errorf("first %d, last %d, %v, %v", first, last, err, err2)
	}
	if err := s.Verify(0); err != nil {
		t.Error(err)
	}
	var below raft.Log
	if err := inner.GetLog(1, &below); err != nil || bytes.Equal(below.Data, want[0].Data) {
		t.Errorf("the inner store got the data unsealed: %q, %v", below.Data, err)
	}
	if err := s.DeleteRange(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(1, &below); err != raft.ErrLogNotFound { // raft compares by identity
		t.Errorf("deleted entry: %v", err)
	}
}

func TestStableValuesComeBack(t *testing.T) {
	s, _, fault := newStore()
	if _, err := s.Get([]byte("absent")); err == nil || err.Error() != "not found" {
		t.Errorf("absent value: %v", err)
	}
	if _, err := s.GetUint64([]byte("absent")); err == nil || err.Error() != "not found" {
		t.Errorf("absent number: %v", err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetUint64([]byte("CurrentTerm")); got != 1<<40 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("n1")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get([]byte("LastVoteCand")); string(got) != "n1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if fault.Err() != nil {
		t.Errorf("an absent value counted as a failure: %v", fault.Err())
	}
}

func TestDamagedLogIsFound(t *testing.T) {
	for name, damage := range map[string]func(l *raft.Log){
		"flipped bit":   func(l *raft.Log) { l.Data[len(l.Data)-1] ^= 1 },
		"flipped sum":   func(l *raft.Log) { l.Data[2] ^= 1 },
		"other version": func(l *raft.Log) { l.Data[0] = 9 },
		"cut":           func(l *raft.Log) { l.Data = l.Data[:len(l.Data)-1] },
		"nearly empty":  func(l *raft.Log) { l.Data = l.Data[:3] },
		"other term":    func(l *raft.Log) { l.Term++ },
		"other type":    func(l *raft.Log) { l.Type = raft.LogNoop },
	} {
		t.Run(name, func(t *testing.T) {
			s, inner, fault := newStore()
			if err := s.StoreLog(&raft.Log{Index: 5, Term: 2, Data: []byte("revoke k1")}); err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			if err := inner.GetLog(5, &l); err != nil {
				t.Fatal(err)
			}
			l.Data = bytes.Clone(l.Data)
			damage(&l)
			if err := inner.StoreLogs([]*raft.Log{&l}); err != nil {
				t.Fatal(err)
			}
			var got raft.Log
			if err := s.GetLog(5, &got); !errors.Is(err, store.ErrDamaged) || got.Data != nil {
				t.Errorf("got %q, %v", got.Data, err)
			}
			if !errors.Is(fault.Err(), store.ErrDamaged) {
				t.Errorf("damage was not latched: %v", fault.Err())
			}
		})
	}
}

func TestVerifyNamesTheDamagedEntry(t *testing.T) {
	s, inner, _ := newStore()
	for i := uint64(3); i < 9; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	var l raft.Log
	if err := inner.GetLog(7, &l); err != nil {
		t.Fatal(err)
	}
	moved := l
	moved.Index = 6
	if err := inner.StoreLogs([]*raft.Log{&moved}); err != nil {
		t.Fatal(err)
	}
	err := s.Verify(0)
	if !errors.Is(err, store.ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte("entry 6")) {
		t.Errorf("entry 7 at place 6: %v", err)
	}
}

func TestSwappedStableValueIsFound(t *testing.T) {
	s, inner, _ := newStore()
	if err := s.SetUint64([]byte("LastVoteTerm"), 7); err != nil {
		t.Fatal(err)
	}
	v, err := inner.Get([]byte("LastVoteTerm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := inner.InmemStore.Set([]byte("CurrentTerm"), v); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("CurrentTerm")); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a value under another key: %v", err)
	}
}

func TestShortNumberIsDamage(t *testing.T) {
	s, _, _ := newStore()
	if err := s.Set([]byte("CurrentTerm"), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("CurrentTerm")); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

var errDisk = errors.New("disk is full")

func TestFirstFailureIsFinal(t *testing.T) {
	s, inner, fault := newStore()
	select {
	case <-fault.Failed():
		t.Fatal("failed before anything happened")
	default:
	}
	inner.err = errDisk
	if err := s.StoreLog(&raft.Log{Index: 1}); !errors.Is(err, errDisk) {
		t.Fatalf("failing write: %v", err)
	}
	<-fault.Failed()
	inner.err = nil // the disk pretends to be well again
	var l raft.Log
	for name, call := range map[string]func() error{
		"StoreLog": func() error { return s.StoreLog(&raft.Log{Index: 1}) },
		"GetLog":   func() error { return s.GetLog(1, &l) },
		"Set":      func() error { return s.Set([]byte("k"), nil) },
		"Get":      func() error { _, err := s.Get([]byte("k")); return err },
		"Last":     func() error { _, err := s.LastIndex(); return err },
		"Delete":   func() error { return s.DeleteRange(1, 1) },
		"Verify":   func() error { return s.Verify(0) },
	} {
		if err := call(); !errors.Is(err, errDisk) {
			t.Errorf("%s after the failure: %v", name, err)
		}
	}
}

func TestSealedRecordsOpenOnlyAsThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		record := rapid.Custom(func(t *rapid.T) store.Record {
			return store.Record{
				Kind: store.Kind(rapid.IntRange(1, 2).Draw(t, "kind")), Index: rapid.Uint64().Draw(t, "index"),
				Term: rapid.Uint64Range(0, 3).Draw(t, "term"), Type: raft.LogType(rapid.IntRange(0, 5).Draw(t, "type")),
				Key: rapid.StringN(0, 3, 9).Draw(t, "key"),
			}
		})
		r, other := record.Draw(t, "record"), record.Draw(t, "other")
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		sealed, err := store.Checksum{}.Seal(r, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (store.Checksum{}).Open(r, sealed); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%x, %v", got, err)
		}
		if _, err := (store.Checksum{}).Open(other, sealed); r != other && !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("opened as %+v: %v", other, err)
		}
		bit := rapid.IntRange(0, len(sealed)*8-1).Draw(t, "bit")
		sealed[bit/8] ^= 1 << (bit % 8)
		if _, err := (store.Checksum{}).Open(r, sealed); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("flipped bit %d: %v", bit, err)
		}
	})
}

func TestBoltIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	b, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenBolt(path); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second start: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = store.OpenBolt(path); err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	b.Close()
	if _, err := store.OpenBolt(filepath.Join(t.TempDir(), "absent", "raft.db")); err == nil || errors.Is(err, store.ErrLocked) {
		t.Errorf("no such directory: %v", err)
	}
}

// failingSnapshots fail where told to.
type failingSnapshots struct {
	raft.SnapshotStore
	create, write, close error
}

type failingSink struct {
	raft.SnapshotSink
	of *failingSnapshots
}

func (f *failingSnapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return &failingSink{of: f}, f.create
}
func (f *failingSnapshots) List() ([]*raft.SnapshotMeta, error) { return nil, nil }
func (f *failingSnapshots) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, errors.New("no snapshot")
}
func (s *failingSink) Write(p []byte) (int, error) { return len(p), s.of.write }
func (s *failingSink) Close() error                { return s.of.close }

func TestSnapshotFailuresAreLatched(t *testing.T) {
	for name, inner := range map[string]*failingSnapshots{
		"create": {create: errDisk}, "write": {write: errDisk}, "close": {close: errDisk}, "none": {},
	} {
		t.Run(name, func(t *testing.T) {
			fault := store.NewFault()
			s := store.NewSnapshots(inner, fault)
			sink, err := s.Create(1, 1, 1, raft.Configuration{}, 1, nil)
			if err == nil {
				_, err = sink.Write([]byte("x"))
			}
			if err == nil {
				err = sink.Close()
			}
			if name != "none" && (!errors.Is(err, errDisk) || !errors.Is(fault.Err(), errDisk)) {
				t.Errorf("%v, latched %v", err, fault.Err())
			}
			if _, _, open := s.Open("x"); name == "none" && (err != nil || open == nil || fault.Err() != nil) {
				t.Errorf("%v, %v, latched %v", err, open, fault.Err())
			}
		})
	}
}

// TestVerifyKnowsTheGapBeforeASnapshot: entries that a snapshot stands for may be missing, others not.
func TestVerifyKnowsTheGapBeforeASnapshot(t *testing.T) {
	kept := raft.NewInmemStore()
	s := store.New(kept, kept, store.Checksum{}, store.NewFault())
	for _, i := range []uint64{1, 2, 7, 8} {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte("entry")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Verify(6); err != nil {
		t.Errorf("with a snapshot of 6: %v", err)
	}
	if err := s.Verify(5); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("with a snapshot of 5: %v", err)
	}
}
