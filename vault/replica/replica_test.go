package replica_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/replica"
)

// station is a replica over a real journal, fed by hand.
type station struct {
	t       *testing.T
	dir     string
	journal *journal.Journal
	replica *replica.Replica
	fatal   []error
	index   uint64
}

func newStation(t *testing.T, dir string) *station {
	t.Helper()
	s := &station{t: t, dir: dir}
	var err error
	if s.journal, err = journal.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.journal.Close() }) // some tests break its folder
	s.replica = replica.New(replica.Config{
		Journal: s.journal, Fatal: func(err error) { s.fatal = append(s.fatal, err) }, Logger: slog.New(slog.DiscardHandler),
	})
	return s
}

// entry is a command's log entry.
func (s *station) entry(data []byte) *raft.Log {
	s.index++
	return &raft.Log{Index: s.index, Type: raft.LogCommand, Data: data}
}

func founding(t *testing.T) []byte {
	t.Helper()
	token, err := soft.Create(filepath.Join(t.TempDir(), "token"), []byte("123456"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := vault.Found(vault.Description{ID: "n1", ClusterAddr: "n1:1", APIAddr: "n1:2"}, token, false,
		vault.Administrator{Name: "root", Key: key.Public(), Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return f.Entry
}

// move is an entry that causes one event.
func move(t *testing.T, addr string) []byte {
	t.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{
		Command: fsm.MoveNode{Node: "n1", ClusterAddr: addr, APIAddr: "n1:2"}, Actor: "spiffe://c/node/n1",
		RequestID: fsm.RequestID(uuid.Must(uuid.NewV7()).String()),
	}.Stamped(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// apply expects success.
func (s *station) apply(data []byte) {
	s.t.Helper()
	if r, ok := s.replica.Apply(s.entry(data)).(fsm.Result); !ok || r.Code != fsm.CodeOK {
		s.t.Fatalf("entry %d: %+v", s.index, r)
	}
}

// stopped expects that the node was told to stop once, for a reason, and that nothing moves any more.
func (s *station) stopped(reason error) {
	s.t.Helper()
	before := s.replica.State()
	for range 3 {
		if err, failed := s.replica.Apply(s.entry(move(s.t, "late:1"))).(error); !failed || !errors.Is(err, reason) {
			s.t.Errorf("an entry after the failure: %v", err)
		}
	}
	if len(s.fatal) != 1 || !errors.Is(s.fatal[0], reason) {
		s.t.Errorf("told to stop by %v, want once by %v", s.fatal, reason)
	}
	if s.replica.State() != before {
		s.t.Error("the state moved after the failure")
	}
	if _, err := s.replica.Snapshot(); !errors.Is(err, reason) {
		s.t.Errorf("a snapshot after the failure: %v", err)
	}
}

func TestEventsAreStoredBeforeTheStateIsSeen(t *testing.T) {
	s := newStation(t, t.TempDir())
	published := 0
	s.replica.OnPublish(func(st *fsm.State) {
		published++
		if next := s.journal.Next(); next != st.Tree().Size {
			t.Errorf("published with %d leaves in the tree and %d in the journal", st.Tree().Size, next)
		}
	})
	changed := s.replica.Changed()
	s.apply(founding(t))
	select {
	case <-changed:
	default:
		t.Error("nobody was woken")
	}
	first, second := s.entry(move(t, "a:1")), s.entry(move(t, "b:1"))
	s.index++
	out := s.replica.ApplyBatch([]*raft.Log{first, {Index: s.index, Type: raft.LogConfiguration}, second})
	if len(out) != 3 || out[1] != nil || published != 2 {
		t.Errorf("a batch was answered %v and published %d times", out, published-1)
	}
	if n, _ := s.replica.State().Node("n1"); n.ClusterAddr != "b:1" || s.replica.Applied() != second.Index {
		t.Errorf("applied %d, the node is at %s", s.replica.Applied(), n.ClusterAddr)
	}
}

// TestAnUnknownEntryStopsTheNode: going on without it would make this state differ from the others'.
func TestAnUnknownEntryStopsTheNode(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	unknown, err := proto.Marshal(&fsmpb.Entry{Type: 9999, MustUnderstand: true, Actor: "spiffe://c/node/n1"})
	if err != nil {
		t.Fatal(err)
	}
	applied := s.replica.Applied()
	if err, failed := s.replica.Apply(s.entry(unknown)).(error); !failed || !errors.Is(err, fsm.ErrUnknownEntry) {
		t.Errorf("it was answered %v", err)
	}
	s.stopped(fsm.ErrUnknownEntry)
	if s.replica.Applied() != applied {
		t.Errorf("applied %d, want %d", s.replica.Applied(), applied)
	}
}

// TestAnUnknownEntryThatMayBeIgnoredIsIgnored: the proposer said that older releases may.
func TestAnUnknownEntryThatMayBeIgnoredIsIgnored(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	harmless, err := proto.Marshal(&fsmpb.Entry{Type: 9999, Actor: "spiffe://c/node/n1"})
	if err != nil {
		t.Fatal(err)
	}
	s.apply(harmless)
	s.apply(move(t, "a:1"))
	if len(s.fatal) > 0 {
		t.Error(s.fatal)
	}
}

// TestAJournalThatCannotBeWrittenStopsTheNode: its folder is gone, and so is the next segment.
func TestAJournalThatCannotBeWrittenStopsTheNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	s := newStation(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err, failed := s.replica.Apply(s.entry(founding(t))).(error); !failed || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was answered %v", err)
	}
	s.stopped(os.ErrNotExist)
	if s.replica.State().Initialised() {
		t.Error("an entry whose events are not stored is visible")
	}
}

func TestAClosedJournalStopsTheNode(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	if err := s.journal.Close(); err != nil {
		t.Fatal(err)
	}
	if err, failed := s.replica.Apply(s.entry(move(t, "a:1"))).(error); !failed || !errors.Is(err, journal.ErrClosed) {
		t.Errorf("it was answered %v", err)
	}
	s.stopped(journal.ErrClosed)
}

// TestDamageInTheJournalDoesNotStopTheNode: after a restart the log is applied again over records of which one was changed. The
// state is right; the evidence stays where it is.
func TestDamageInTheJournalDoesNotStopTheNode(t *testing.T) {
	dir := t.TempDir()
	entries := [][]byte{founding(t), move(t, "a:1"), move(t, "b:1")}
	first := newStation(t, dir)
	for _, e := range entries {
		first.apply(e)
	}
	if err := first.journal.Close(); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	content[bytes.Index(content, []byte("a:1"))] = 'z'
	if err := os.WriteFile(paths[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	second := newStation(t, dir)
	for _, e := range entries {
		second.apply(e)
	}
	second.apply(move(t, "c:1"))
	if len(second.fatal) > 0 {
		t.Errorf("told to stop: %v", second.fatal)
	}
	if again, before := second.replica.State().Tree(), first.replica.State().Tree(); again.Size != before.Size+1 {
		t.Errorf("tree of %d leaves after one of %d", again.Size, before.Size)
	}
	if now, err := os.ReadFile(paths[0]); err != nil || !bytes.HasPrefix(now, content) {
		t.Errorf("the changed record is gone: %v", err)
	}
}

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
}

func (s *sink) ID() string    { return "snapshot" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func TestSnapshotRoundTrip(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	taken, err := s.replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.apply(move(t, "a:1")) // after the snapshot, and not in it
	var out sink
	if err := taken.Persist(&out); err != nil || !out.closed || out.cancelled {
		t.Fatalf("persist: %v, closed %t, cancelled %t", err, out.closed, out.cancelled)
	}
	taken.Release()
	other := newStation(t, t.TempDir())
	changed := other.replica.Changed()
	if err := other.replica.Restore(io.NopCloser(&out.Buffer)); err != nil {
		t.Fatal(err)
	}
	if n, _ := other.replica.State().Node("n1"); other.replica.Applied() != 1 || n.ClusterAddr != "n1:1" {
		t.Errorf("applied %d, the node is at %s", other.replica.Applied(), n.ClusterAddr)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was woken")
	}
}

// TestNoSnapshotWithoutAJournal: raft forgets the entries that a snapshot covers, and their events with them, so the journal
// must be on the disk before.
func TestNoSnapshotWithoutAJournal(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	taken, err := s.replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Close(); err != nil {
		t.Fatal(err)
	}
	var out sink
	if err := taken.Persist(&out); !errors.Is(err, journal.ErrClosed) || !out.cancelled || out.closed || out.Len() > 0 {
		t.Errorf("persist: %v, closed %t, cancelled %t, %d bytes", err, out.closed, out.cancelled, out.Len())
	}
}

func TestADamagedSnapshotStopsTheNode(t *testing.T) {
	s := newStation(t, t.TempDir())
	s.apply(founding(t))
	if err := s.replica.Restore(io.NopCloser(bytes.NewReader([]byte("no snapshot")))); !errors.Is(err, fsm.ErrSnapshot) {
		t.Errorf("restore: %v", err)
	}
	s.stopped(fsm.ErrSnapshot)
}
