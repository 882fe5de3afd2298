package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// furnished is a stage with something of everything in its state.
func furnished(t testing.TB) *stage {
	t.Helper()
	s := cluster(t, true)
	s.must(fsm.CreateJoinToken{ID: uuid("open"), Node: "n4", Hash: digest("n4"), ExpiresAt: s.clock.Add(1e12)})
	s.must(fsm.RecordCertificate{Certificate: certificate(fsm.RoleUser, "bob", "b1", s.clock)})
	s.must(fsm.RevokeCertificates{Serial: "b1", Reason: "left"})
	s.must(fsm.CreateKey{
		ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Labels: []fsm.Label{{Name: "users", Value: "bob"}, {Name: "env", Value: "prod"}}, Material: material(1),
	})
	s.must(fsm.RotateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Version: 2, Material: material(1)})
	s.must(fsm.ChangeKey{Name: "k", Version: 1, Action: fsm.ActionCompromise, Reason: "leak", OccurredAt: s.clock.Add(-1e9)})
	s.must(fsm.CompleteBarrier{Restriction: s.index, Waited: []fsm.NodeID{"n2"}})
	s.must(fsm.ChangeKey{Name: "k", Version: 1, Action: fsm.ActionDestroy})
	s.must(unsealRequest("u", "u", "ada"))
	s.must(fsm.RecordShareVerdict{Ceremony: fsm.CeremonyID(uuid("u")), Custodian: "ada", Node: "n1", Reason: "wrong"})
	s.must(fsm.RecordNodeUnsealed{Node: "n1", Boot: "b", Generation: 1, Ceremony: fsm.CeremonyID(uuid("u")), Seen: s.index})
	s.must(fsm.CreateClass{Class: fsm.Class{
		Name: "own", Description: "d", Algorithms: []string{"ed25519"}, Lease: fsm.LeaseStrict, UsageLog: fsm.UsageDurable, MinDestroyWait: 48 * time.Hour,
		RotateEvery: 5 * time.Hour, OriginatorPeriod: 10 * time.Hour, RecipientPeriod: 20 * time.Hour, RotateUses: 9, Budget: fsm.Budget{Operations: 1, Bytes: 2, Period: time.Hour},
		Approvals: []fsm.Approval{{Operation: "export", Quorum: 2, Groups: []string{"ops"}}}, Exact: true, DecryptWhileSuspended: true,
	}})
	s.must(fsm.CreateKey{
		ID: fsm.KeyID(uuid("planned")), Name: "planned", Algorithm: "ed25519", Class: "own", Material: material(1), ActivateAt: s.clock.Add(time.Hour),
		DeactivateAt: s.clock.Add(2 * time.Hour), Description: "words", Purpose: "more", Links: []fsm.Link{{Kind: fsm.LinkReplaces, Target: "k"}},
	})
	return s
}

func snapshot(t testing.TB, s *fsm.State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteSnapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restored(t testing.TB, data []byte) *fsm.Machine {
	t.Helper()
	m := fsm.New()
	if err := m.Restore(iotest.OneByteReader(bytes.NewReader(data))); err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	magicLine  = "conclave state snapshot 1\n"
	magicLine2 = "conclave state snapshot 2\n"
)

// records takes a snapshot apart by the format's description.
func records(t testing.TB, data []byte) []*fsmpb.Record {
	t.Helper()
	var all []*fsmpb.Record
	two := bytes.HasPrefix(data, []byte(magicLine2))
	for rest := data[len(magicLine):]; ; {
		n := binary.BigEndian.Uint32(rest)
		if rest = rest[4:]; n != 0 && two {
			rest = rest[4:]
		}
		if n == 0 {
			if sum := sha256.Sum256(data[:len(data)-32]); !bytes.Equal(rest, sum[:]) {
				t.Fatal("the trailer is no SHA-256 of what is before")
			}
			return all
		}
		r := new(fsmpb.Record)
		if err := proto.Unmarshal(rest[:n], r); err != nil {
			t.Fatal(err)
		}
		all, rest = append(all, r), rest[n:]
	}
}

// sealed puts records together again, with a right checksum.
func sealed(t testing.TB, all ...*fsmpb.Record) []byte {
	t.Helper()
	if all[0].GetHeader().GetCluster().GetFeatureLevel() >= 2 {
		return sealedAs(t, magicLine2, all...)
	}
	return sealedAs(t, magicLine, all...)
}

func sealedAs(t testing.TB, magic string, all ...*fsmpb.Record) []byte {
	t.Helper()
	b := []byte(magic)
	for _, r := range all {
		body, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		if magic == magicLine2 {
			b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
		}
		b = append(b, body...)
	}
	b = append(b, 0, 0, 0, 0)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func TestSnapshotRoundTrip(t *testing.T) {
	for name, s := range map[string]*stage{"empty": newStage(t), "furnished": furnished(t), "furnished, newest level": furnished(t).raised()} {
		state := s.m.State()
		data := snapshot(t, state)
		m := restored(t, data)
		if m.State().Digest() != state.Digest() || m.Applied() != state.Applied() || m.State().Tree() != state.Tree() {
			t.Errorf("%s: restored at %d with digest %x, was at %d with %x", name, m.Applied(), m.State().Digest(), state.Applied(), state.Digest())
		}
		again := snapshot(t, m.State())
		if diff := cmp.Diff(records(t, data), records(t, again), protocmp.Transform()); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// TestSnapshotHoldsEverything: what a state answers it answers after a restore.
func TestSnapshotHoldsEverything(t *testing.T) {
	s := furnished(t)
	a, b := s.m.State(), restored(t, snapshot(t, s.m.State())).State()
	for what, pair := range map[string][2]any{
		"cluster": {a.Cluster(), b.Cluster()}, "nodes": {a.Nodes(), b.Nodes()}, "certificates": {a.Certificates("", 0), b.Certificates("", 0)},
		"rosters": {a.Rosters(), b.Rosters()}, "keys": {a.Keys("", "", 0), b.Keys("", "", 0)}, "barriers": {a.PendingBarriers(), b.PendingBarriers()},
		"restriction": {a.LastRestriction(), b.LastRestriction()}, "time": {a.Time(), b.Time()}, "frontier": {a.Frontier().Hashes(), b.Frontier().Hashes()},
		"token": {first(a.JoinToken(uuid("open"))), first(b.JoinToken(uuid("open")))}, "master": {first(a.Master()), first(b.Master())},
		"genesis": {first(a.Ceremony(fsm.CeremonyID(uuid("genesis")))), first(b.Ceremony(fsm.CeremonyID(uuid("genesis"))))},
		"unseal":  {first(a.OpenCeremony(fsm.PurposeUnseal)), first(b.OpenCeremony(fsm.PurposeUnseal))},
		"by id":   {first(a.KeyByID(fsm.KeyID(uuid("k")))), first(b.KeyByID(fsm.KeyID(uuid("k"))))},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
}

func first[T any](v T, ok bool) T {
	if !ok {
		panic("it is not there")
	}
	return v
}

// TestRestoreRefusesDamage flips a bit of every seventh byte and cuts at every fiftieth: strides that reach every kind of
// place in a snapshot, in a time that the race detector can bear.
func TestRestoreRefusesDamage(t *testing.T) {
	data := snapshot(t, furnished(t).m.State())
	m := restored(t, snapshot(t, cluster(t, true).m.State()))
	before := m.State()
	for i := 0; i < len(data); i += 7 {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if err := m.Restore(bytes.NewReader(bad)); !errors.Is(err, fsm.ErrSnapshot) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for n := 0; n < len(data); n += 50 {
		if err := m.Restore(bytes.NewReader(data[:n])); !errors.Is(err, fsm.ErrSnapshot) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	if err := m.Restore(bytes.NewReader(append(bytes.Clone(data), 0))); !errors.Is(err, fsm.ErrSnapshot) {
		t.Fatalf("with a byte more: %v", err)
	}
	if m.State() != before {
		t.Error("a refused snapshot changed the state")
	}
}

func header() *fsmpb.Record {
	return &fsmpb.Record{Kind: &fsmpb.Record_Header{Header: &fsmpb.Header{Applied: 5}}}
}

func keyRecord(name string, primary uint32, versions ...uint32) *fsmpb.Record {
	k := &fsmpb.Key{Id: "id of " + name, Name: name, Primary: primary}
	for _, v := range versions {
		k.Versions = append(k.Versions, &fsmpb.KeyVersion{Version: v, State: 99, Before: 99})
	}
	return &fsmpb.Record{Kind: &fsmpb.Record_Key{Key: k}}
}

// TestRestoreRefusesWhatDoesNotFit: a right checksum over something that no machine writes.
func TestRestoreRefusesWhatDoesNotFit(t *testing.T) {
	node := &fsmpb.Record{Kind: &fsmpb.Record_Node{Node: &fsmpb.Node{Id: "n1"}}}
	newer := &fsmpb.Record{Kind: &fsmpb.Record_Node{Node: unknownNode()}}
	request := func(id string, hash int) *fsmpb.Record {
		return &fsmpb.Record{Kind: &fsmpb.Record_Request{Request: &fsmpb.Request{Id: id, Hash: make([]byte, hash)}}}
	}
	good := string(requestID(opening, 1))
	ceremony := func(id string) *fsmpb.Record {
		return &fsmpb.Record{Kind: &fsmpb.Record_Ceremony{Ceremony: &fsmpb.Ceremony{Id: id}}}
	}
	var crowd []*fsmpb.Record
	for range fsm.MaxCeremonies + 1 {
		crowd = append(crowd, ceremony("c"))
	}
	for name, all := range map[string][]*fsmpb.Record{
		"no header": {node}, "two headers": {header(), header()}, "two nodes": {header(), node, node}, "newer": {header(), newer},
		"frontier":       {{Kind: &fsmpb.Record_Header{Header: &fsmpb.Header{Frontier: &fsmpb.Frontier{Size: 1}}}}},
		"frontier hash":  {{Kind: &fsmpb.Record_Header{Header: &fsmpb.Header{Frontier: &fsmpb.Frontier{Size: 1, Hashes: [][]byte{{1}}}}}}},
		"two keys":       {header(), keyRecord("k", 1, 1), keyRecord("k", 1, 1)},
		"two names":      {header(), keyRecord("k", 1, 1), sameID(keyRecord("l", 1, 1), keyRecord("k", 1, 1))},
		"no version":     {header(), keyRecord("k", 1)},
		"no primary":     {header(), keyRecord("k", 0, 1)},
		"gap":            {header(), keyRecord("k", 1, 1, 3)},
		"request id":     {header(), request("x", 32)},
		"request hash":   {header(), request(good, 31)},
		"request twice":  {header(), request(good, 32), request(good, 32)},
		"ceremonies":     append([]*fsmpb.Record{header()}, crowd...),
		"no deal":        {header(), {Kind: &fsmpb.Record_Ceremony{Ceremony: &fsmpb.Ceremony{Phase: "acknowledge", Purpose: "genesis"}}}},
		"master alone":   {header(), {Kind: &fsmpb.Record_Master{Master: &fsmpb.Master{Generation: 1}}}},
		"roster alone":   {header(), {Kind: &fsmpb.Record_Roster{Roster: &fsmpb.Roster{Version: 1}}}},
		"barrier astray": {header(), {Kind: &fsmpb.Record_Barrier{Barrier: &fsmpb.PendingBarrier{Index: 1, Subject: "key/none"}}}},
	} {
		if err := fsm.New().Restore(bytes.NewReader(sealed(t, all...))); !errors.Is(err, fsm.ErrSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := fsm.New()
	if err := m.Restore(bytes.NewReader(sealed(t, header(), keyRecord("k", 1, 1)))); err != nil {
		t.Fatalf("the smallest good one: %v", err)
	}
	if k, ok := m.State().Key("k"); !ok || k.Versions[0].State != fsm.StateUnknown {
		t.Errorf("a state from nowhere became %+v", k)
	}
}

// sameID gives the key of a record the id of another's.
func sameID(record, other *fsmpb.Record) *fsmpb.Record {
	record.GetKey().Id = other.GetKey().GetId()
	return record
}

func unknownNode() *fsmpb.Node {
	n := &fsmpb.Node{Id: "n2"}
	n.ProtoReflect().SetUnknown([]byte("\xfa\x06\x01x"))
	return n
}

func TestRestoreDoesNotBelieveLengths(t *testing.T) {
	for _, length := range []uint32{1 << 31, 16 << 20, 1 << 10} {
		data := binary.BigEndian.AppendUint32([]byte(magicLine), length)
		if err := fsm.New().Restore(bytes.NewReader(append(data, "short"...))); !errors.Is(err, fsm.ErrSnapshot) {
			t.Errorf("length %d: %v", length, err)
		}
	}
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

var errDisk = errors.New("disk full")

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestWriteSnapshotReportsTheDisk(t *testing.T) {
	s := furnished(t)
	for i := range 200 { // beyond the writer's buffer
		name := strings.Repeat("x", i+1)
		s.must(fsm.CreateKey{ID: fsm.KeyID(uuid(name)), Name: fsm.KeyName(name), Algorithm: "ed25519", Material: material(1)})
	}
	size := len(snapshot(t, s.m.State()))
	for _, n := range []int{0, 100, size / 2, size - 1} {
		if err := s.m.State().WriteSnapshot(&failingWriter{n: n}); !errors.Is(err, errDisk) {
			t.Errorf("a disk of %d bytes for %d: %v", n, size, err)
		}
	}
	if err := s.m.State().WriteSnapshot(io.Discard); err != nil {
		t.Error(err)
	}
}

// FuzzRestoreNeverPanics tries the bytes as they are, and as the body of a snapshot with a right checksum.
func FuzzRestoreNeverPanics(f *testing.F) {
	data := snapshot(f, furnished(f).m.State())
	f.Add(data)
	f.Add(data[len(magicLine) : len(data)-32])
	f.Add(sealed(f, header(), keyRecord("k", 1, 1)))
	two := snapshot(f, furnished(f).raised().m.State())
	f.Add(two)
	f.Add(two[len(magicLine) : len(two)-32])
	f.Fuzz(func(t *testing.T, data []byte) {
		tries := [][]byte{data}
		for _, magic := range []string{magicLine, magicLine2} {
			body := append([]byte(magic), data...)
			sum := sha256.Sum256(body)
			tries = append(tries, append(body, sum[:]...))
		}
		for _, bytesIn := range tries {
			m := fsm.New()
			if err := m.Restore(bytes.NewReader(bytesIn)); err != nil {
				if !errors.Is(err, fsm.ErrSnapshot) {
					t.Fatalf("an error of another kind: %v", err)
				}
				continue
			}
			if again := restored(t, snapshot(t, m.State())); again.State().Digest() != m.State().Digest() {
				t.Fatal("what was restored does not survive another round")
			}
		}
	})
}
