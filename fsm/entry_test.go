package fsm_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// everyCommand has one of each, with every field set.
func everyCommand() []fsm.Command {
	r := fsm.Roster{
		Version: 2, ClusterID: "demo", Threshold: 2, Custodians: custodians("ada", "bo"), Previous: [32]byte{1},
		Nodes:      []fsm.RosterNode{{ID: "n1", ExchangeKey: exchangeKey("n1")}},
		Signatures: []fsm.RosterSignature{{Custodian: "ada", Signature: []byte("signature")}},
	}
	n := node("n1")
	n.Device.HardwareSafe, n.JoinedAt, n.UnsealedBoot, n.UnsealedAt = true, opening, "boot", 7
	n.Device.Capabilities = []fsm.Capability{{Algorithm: "a", Operations: []string{"generate", "sign"}}, {Algorithm: "b"}}
	n.Device.Lacks = []fsm.Lack{{Algorithm: "b", Why: "no mechanism", Operations: []string{"generate"}}}
	c := certificate(fsm.RoleUser, "bob", "b1", opening)
	c.IssuedAt, c.RevokedAt, c.Reason = 3, 4, "left"
	m := material(3)
	m.Exportable = true
	return []fsm.Command{
		fsm.InitCluster{ClusterID: "demo", Dev: true, FeatureLevel: 1, NodeCA: []byte("n"), ClientCA: []byte("c"), Node: n, Certificates: []fsm.Certificate{c}},
		fsm.CreateJoinToken{ID: "t", Node: "n2", Hash: []byte("h"), ExpiresAt: opening},
		fsm.AdmitNode{TokenID: "t", TokenHash: []byte("h"), Node: n},
		fsm.RecordCertificate{Certificate: c},
		fsm.RevokeCertificates{Role: fsm.RoleUser, Name: "bob", Serial: "b1", Reason: "left"},
		fsm.StartGenesis{ID: "g", Nonce: []byte("n"), Roster: r, Dealer: "n1", DealerBoot: "b", DealerCommitment: []byte("c"), TTL: time.Hour},
		fsm.CommitEntropy{Ceremony: "g", Custodian: "ada", Commitment: []byte("c"), Signature: []byte("s"), RosterSignature: []byte("r")},
		fsm.RecordReveal{Ceremony: "g", Custodian: "ada", Matches: true, Reason: "r", Boot: "b"},
		fsm.PublishDeal{Ceremony: "g", Deal: deal(r), Boot: "b"},
		fsm.AcknowledgeShare{Ceremony: "g", Custodian: "ada", Signature: []byte("s")},
		fsm.StartUnseal{ID: "u", Nonce: []byte("n"), Custodian: "ada", Signature: []byte("s"), TTL: time.Minute},
		fsm.RecordShareVerdict{Ceremony: "u", Custodian: "ada", Node: "n1", Accepted: true, Reason: "r"},
		fsm.RecordNodeUnsealed{Node: "n1", Boot: "b", Generation: 1, Ceremony: "u", Seen: 9},
		fsm.AbortCeremony{Ceremony: "u", Reason: "r"},
		fsm.StartRoster{ID: "r", Nonce: []byte("n"), Roster: r, TTL: time.Hour, Custodian: "ada", Signature: []byte("s")},
		fsm.SignRoster{Ceremony: "r", Custodian: "ada", Signature: []byte("s")},
		fsm.SealCluster{Reason: "r"},
		fsm.CreateKey{ID: "k", Name: "n", Algorithm: "a", Class: "c", Labels: []fsm.Label{{Name: "l", Value: "v"}}, Material: m, ActivateAt: opening, DeactivateAt: opening.Add(1e9),
			Description: "d", Purpose: "p", Links: []fsm.Link{{Kind: fsm.LinkReplaces, Target: "o"}}},
		fsm.RotateKey{Name: "n", ID: "k", Version: 2, Material: m, ActivateAt: opening},
		fsm.ChangeKey{Name: "n", Version: 1, Action: fsm.ActionDestroy, Reason: "r", OccurredAt: opening, After: 1500 * time.Microsecond},
		fsm.CompleteBarrier{Restriction: 9, Waited: []fsm.NodeID{"n2", "n3"}},
		fsm.MoveNode{Node: "n1", ClusterAddr: "10.0.0.1:7401", APIAddr: "10.0.0.1:7400"},
		fsm.DescribeDevice{Node: "n1", Device: n.Device},
		fsm.CreateClass{Class: fullClass()},
		fsm.UpdateClass{Class: fullClass(), Revision: 7},
		fsm.DeleteClass{Name: "cards"},
		fsm.SetKeyClass{Name: "n", Class: "cards", Reason: "r"},
		fullUpdate(),
		fsm.UpdateKey{Name: "n"},
		fsm.ExecuteDue{Due: fsm.Due{Kind: fsm.DueRotate, Subject: "n", Version: 1, At: opening, Revision: 9}, Material: m},
		fsm.RecordErasure{Node: "n1", Boot: "b", Erasure: fsm.ErasureState, Erased: []fsm.ErasedVersion{{Key: "k", Version: 2}}},
		fsm.ExportKey{Name: "n", ID: "k", Version: 2, Form: "f", Recipient: [32]byte{1}},
		fsm.ImportKey{ImportKey: "n1/i", Key: fsm.CreateKey{ID: "k", Name: "n", Algorithm: "a", Class: "c", Labels: []fsm.Label{{Name: "l", Value: "v"}}, Material: m,
			ActivateAt: opening, DeactivateAt: opening.Add(1e9), Description: "d", Purpose: "p", Links: []fsm.Link{{Kind: fsm.LinkReplaces, Target: "o"}}}},
	}
}

func entryOf(c fsm.Command) fsm.Entry {
	return fsm.Entry{Command: c, Actor: alice, RequestID: requestID(opening, 1), RequestHash: [32]byte{7}}.Stamped(opening)
}

// numbered are the numbers of commands that do not follow from their place in everyCommand.
var numbered = map[string]uint32{
	"fsm.CreateClass": 30, "fsm.UpdateClass": 31, "fsm.DeleteClass": 32, "fsm.SetKeyClass": 33, "fsm.UpdateKey": 34, "fsm.ExecuteDue": 35,
	"fsm.RecordErasure": 36, "fsm.ImportKey": 60, "fsm.ExportKey": 61,
}

func TestEntryRoundTrip(t *testing.T) {
	for i, c := range everyCommand() {
		want := uint32(i + 1)
		if n, listed := numbered[typeName(c)]; listed {
			want = n
		}
		e := entryOf(c)
		data := encode(t, e)
		back, err := fsm.DecodeEntry(data)
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Errorf("%T: %v (-sent +received)\n%s", c, err, diff)
		}
		var w fsmpb.Entry
		if err := proto.Unmarshal(data, &w); err != nil || w.GetType() != want || !w.GetMustUnderstand() {
			t.Errorf("%T has number %d (%v), and numbers never change: %d", c, w.GetType(), err, want)
		}
	}
}

func TestRestrictingCommands(t *testing.T) {
	restricting := map[string]bool{"fsm.RevokeCertificates": true, "fsm.SealCluster": true, "fsm.ChangeKey": true,
		"fsm.UpdateClass": true, "fsm.SetKeyClass": true, "fsm.UpdateKey": true}
	for _, c := range append(everyCommand(), fsm.Ignored{Type: 99}) {
		if name := typeName(c); c.Restricting() != restricting[name] {
			t.Errorf("%s restricting: %t", name, c.Restricting())
		}
	}
	for kind := fsm.DueRotate; kind <= fsm.DueCeremony; kind++ {
		c := fsm.ExecuteDue{Due: fsm.Due{Kind: kind}}
		if want := kind == fsm.DueDeactivate || kind == fsm.DueProcessingEnd; c.Restricting() != want {
			t.Errorf("%s restricting: %t", kind, c.Restricting())
		}
	}
	for action, want := range map[fsm.KeyAction]bool{
		fsm.ActionSuspend: true, fsm.ActionDeactivate: true, fsm.ActionCompromise: true, fsm.ActionRevoke: true, fsm.ActionDestroy: true,
		fsm.ActionResume: false, fsm.ActionCancelDestroy: false, fsm.ActionActivate: false, "other": false,
	} {
		if got := (fsm.ChangeKey{Action: action}).Restricting(); got != want {
			t.Errorf("%s restricting: %t", action, got)
		}
	}
}

func TestStampedCutsToTheLogsResolution(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 123_456_789, time.FixedZone("CET", 3600))
	got := fsm.Entry{}.Stamped(at).Time
	if want := time.Date(2026, 3, 1, 9, 0, 0, 123_000_000, time.UTC); got != want {
		t.Errorf("stamped %v, want %v", got, want)
	}
}

func TestEncodeEntryRefuses(t *testing.T) {
	for name, c := range map[string]fsm.Command{
		"nothing": nil, "a pointer": &fsm.SealCluster{}, "an ignored entry": fsm.Ignored{Type: 99},
		"bad text": fsm.SealCluster{Reason: "\xff"}, "too much": fsm.SealCluster{Reason: strings.Repeat("x", fsm.MaxEntry)},
	} {
		if _, err := fsm.EncodeEntry(fsm.Entry{Command: c}); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := fsm.EncodeEntry(fsm.Entry{Command: fsm.SealCluster{}, Actor: "\xff"}); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("a bad actor: %v", err)
	}
}

// envelope changes one valid entry on the wire.
func envelope(t testing.TB, change func(*fsmpb.Entry)) []byte {
	t.Helper()
	var w fsmpb.Entry
	if err := proto.Unmarshal(encode(t, entryOf(fsm.SealCluster{Reason: "drill"})), &w); err != nil {
		t.Fatal(err)
	}
	change(&w)
	data, err := proto.Marshal(&w)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func badEntries(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"nothing":          nil,
		"noise":            {0xff, 0xfe},
		"too large":        make([]byte, fsm.MaxEntry+1),
		"no type":          envelope(t, func(w *fsmpb.Entry) { w.Type = 0 }),
		"short hash":       envelope(t, func(w *fsmpb.Entry) { w.RequestHash = []byte{1} }),
		"negative time":    envelope(t, func(w *fsmpb.Entry) { w.TimeMs = -1 }),
		"distant time":     envelope(t, func(w *fsmpb.Entry) { w.TimeMs = 1 << 60 }),
		"broken payload":   envelope(t, func(w *fsmpb.Entry) { w.Payload = []byte{0xff} }),
		"optional, unread": envelope(t, func(w *fsmpb.Entry) { w.MustUnderstand, w.Payload = false, []byte("\xfa\x06\x01x") }),
	}
}

func TestMalformedEntriesAreRefusedResults(t *testing.T) {
	for name, data := range badEntries(t) {
		if _, err := fsm.DecodeEntry(data); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("%s: decoded with %v", name, err)
		}
		s := cluster(t, true)
		before := s.m.State()
		r, events := s.applyBytes(data)
		if after := s.m.State(); r.Code != fsm.CodeInvalid || r.Message == "" || len(events) != 0 || after.Tree() != before.Tree() || after.Applied() != s.index {
			t.Errorf("%s: %+v with %d events", name, r, len(events))
		}
	}
}

func TestUnknownMustUnderstandStopsTheNode(t *testing.T) {
	for name, data := range map[string][]byte{
		"type":          envelope(t, func(w *fsmpb.Entry) { w.Type = 4711 }),
		"payload field": envelope(t, func(w *fsmpb.Entry) { w.Payload = []byte("\xfa\x06\x01x") }),
		"entry field":   append(envelope(t, func(*fsmpb.Entry) {}), "\xfa\x06\x01x"...),
	} {
		s := cluster(t, true)
		before := s.m.State()
		r, events, err := s.m.Apply(s.index+1, data)
		if !errors.Is(err, fsm.ErrUnknownEntry) || r != (fsm.Result{}) || events != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if s.m.Publish().Digest() != before.Digest() {
			t.Errorf("%s: the state changed", name)
		}
	}
}

func TestUnknownOptionalEntryIsANoOp(t *testing.T) {
	s := cluster(t, true)
	before := s.m.State().Tree()
	r, events := s.applyBytes(envelope(t, func(w *fsmpb.Entry) { w.Type, w.MustUnderstand = 4711, false }))
	if r != (fsm.Result{Index: s.index}) || events != nil || s.m.State().Tree() != before || s.m.State().Applied() != s.index {
		t.Errorf("%+v, %v", r, events)
	}
}

// TestNestedUnknownFields: a newer release may add a field deep inside; that is not understood either.
func TestNestedUnknownFields(t *testing.T) {
	n := &fsmpb.Node{Id: "n1"}
	n.ProtoReflect().SetUnknown([]byte("\xfa\x06\x01x"))
	for _, payload := range []proto.Message{
		&fsmpb.InitCluster{Node: n},
		&fsmpb.StartGenesis{Roster: &fsmpb.Roster{Nodes: []*fsmpb.RosterNode{{Id: "fine"}, unknownRosterNode()}}},
	} {
		body, err := proto.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		kind := map[bool]uint32{true: 1, false: 6}[payload.ProtoReflect().Descriptor().Name() == "InitCluster"]
		data := envelope(t, func(w *fsmpb.Entry) { w.Type, w.Payload = kind, body })
		if _, err := fsm.DecodeEntry(data); !errors.Is(err, fsm.ErrUnknownEntry) {
			t.Errorf("%T: %v", payload, err)
		}
	}
}

func unknownRosterNode() *fsmpb.RosterNode {
	n := &fsmpb.RosterNode{Id: "n2"}
	n.ProtoReflect().SetUnknown([]byte("\xfa\x06\x01x"))
	return n
}

// FuzzDecodeEntryNeverPanics also holds that what decodes encodes to something that decodes to the same.
func FuzzDecodeEntryNeverPanics(f *testing.F) {
	for _, c := range everyCommand() {
		f.Add(encode(f, entryOf(c)))
	}
	for _, data := range badEntries(f) {
		if len(data) < 1000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := fsm.DecodeEntry(data)
		if err != nil {
			if !errors.Is(err, fsm.ErrInvalid) && !errors.Is(err, fsm.ErrUnknownEntry) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if _, ignored := e.Command.(fsm.Ignored); ignored {
			return
		}
		back, err := fsm.DecodeEntry(encode(t, e))
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
		m := fsm.New()
		if _, _, err := m.Apply(1, data); err != nil {
			t.Fatalf("it decodes, and stops the node: %v", err)
		}
	})
}
