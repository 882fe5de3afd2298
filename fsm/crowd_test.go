package fsm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// amid is a cluster whose state has more records than it could get by entries in a test's time.
func amid(t *testing.T, more ...*fsmpb.Record) *stage {
	t.Helper()
	s := cluster(t, true)
	all := append(records(t, snapshot(t, s.m.State())), more...)
	if err := s.m.Restore(bytes.NewReader(sealed(t, all...))); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) expect(code fsm.Code, c fsm.Command) {
	s.t.Helper()
	if r, _ := s.apply(c); r.Code != code {
		s.t.Errorf("%T: %+v, want %s", c, r, code)
	}
}

func TestLimitOfBarriers(t *testing.T) {
	var crowd []*fsmpb.Record
	for i := range fsm.MaxBarriers {
		crowd = append(crowd, &fsmpb.Record{Kind: &fsmpb.Record_Barrier{Barrier: &fsmpb.PendingBarrier{Index: uint64(1_000_000 + i), Subject: "cluster"}}})
	}
	s := amid(t, append(crowd, keyRecord("k", 1, 1))...)
	s.must(fsm.RecordCertificate{Certificate: certificate(fsm.RoleUser, "bob", "b1", s.clock)})
	s.expect(fsm.CodeLimit, fsm.SealCluster{})
	s.expect(fsm.CodeLimit, fsm.RevokeCertificates{Serial: "b1"})
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("n")), Name: "n", Algorithm: "ed25519", Material: material(1)})
	s.expect(fsm.CodeLimit, fsm.ChangeKey{Name: "n", Action: fsm.ActionSuspend, Reason: "x"})
	if k, _ := s.m.State().Key("n"); k.PrimaryVersion().State != fsm.StateActive || k.Barrier.State != fsm.BarrierNone {
		t.Errorf("a refused suspension left %+v", k)
	}
}

func TestLimitOfVersions(t *testing.T) {
	k := &fsmpb.Key{Id: uuid("k"), Name: "k", Algorithm: "ed25519", Class: "standard", Primary: fsm.MaxVersions}
	for v := range fsm.MaxVersions {
		k.Versions = append(k.Versions, &fsmpb.KeyVersion{Version: uint32(v + 1), State: uint32(fsm.StateActive)})
	}
	s := amid(t, &fsmpb.Record{Kind: &fsmpb.Record_Key{Key: k}})
	s.expect(fsm.CodeLimit, fsm.RotateKey{Name: "k", ID: fsm.KeyID(k.Id), Version: fsm.MaxVersions + 1, Material: material(1)})
	s.must(fsm.ChangeKey{Name: "k", Action: fsm.ActionSuspend, Reason: "every one of a thousand"})
}

func TestLimitOfCertificates(t *testing.T) {
	var crowd []*fsmpb.Record
	for i := range fsm.MaxCertificates {
		crowd = append(crowd, &fsmpb.Record{Kind: &fsmpb.Record_Certificate{Certificate: &fsmpb.Certificate{Serial: fmt.Sprintf("c%06x", i), NotAfterMs: opening.UnixMilli()}}})
	}
	s := amid(t, crowd...)
	c := fsm.RecordCertificate{Certificate: certificate(fsm.RoleUser, "bob", "b1", s.clock)}
	s.expect(fsm.CodeLimit, c)
	s.clock = s.clock.Add(time.Millisecond)
	s.must(c)
	if left := s.m.State().Certificates("", 0); len(left) != 2 || left[0].Serial != "a1" {
		t.Errorf("%d certificates are left: the expired ones are not forgotten", len(left))
	}
}

func TestLimitOfRosters(t *testing.T) {
	var crowd []*fsmpb.Record
	for v := uint32(2); v <= fsm.MaxRosters; v++ {
		crowd = append(crowd, &fsmpb.Record{Kind: &fsmpb.Record_Roster{Roster: &fsmpb.Roster{Version: v, ClusterId: clusterID, Threshold: 1, Custodians: wireCustodian("ada")}}})
	}
	s := amid(t, crowd...)
	current, _ := s.m.State().Roster()
	next := s.roster(1, "ada")
	next.Version, next.Previous = current.Version+1, fsm.RosterHash(current)
	s.expect(fsm.CodeLimit, fsm.StartRoster{
		ID: fsm.CeremonyID(uuid("r")), Nonce: digest("r"), Roster: next, Custodian: "ada", Signature: sign("ada", fsm.RosterMessage(fsm.RosterHash(next))),
	})
}

func wireCustodian(name string) []*fsmpb.Custodian {
	c := custodians(name)[0]
	return []*fsmpb.Custodian{{Name: name, Recipient: c.Recipient, SigningKey: c.SigningKey}}
}

func TestLimitOfNodesAndTokens(t *testing.T) {
	s := cluster(t, true)
	for i := len(s.m.State().Nodes()); i < fsm.MaxNodes; i++ {
		s.admit(node(fmt.Sprintf("m%d", i)))
	}
	s.must(fsm.CreateJoinToken{ID: uuid("last"), Node: "last", Hash: digest("last"), ExpiresAt: s.clock.Add(time.Hour)})
	s.expect(fsm.CodeLimit, fsm.AdmitNode{TokenID: uuid("last"), TokenHash: digest("last"), Node: node("last")})
	for i := fsm.MaxNodes; i < fsm.MaxJoinTokens; i++ {
		s.must(fsm.CreateJoinToken{ID: uuid(fmt.Sprint(i)), Node: "x", Hash: digest("x"), ExpiresAt: s.clock.Add(time.Hour)})
	}
	more := fsm.CreateJoinToken{ID: uuid("more"), Node: "x", Hash: digest("x"), ExpiresAt: s.clock.Add(2 * time.Hour)}
	s.expect(fsm.CodeLimit, more)
	s.clock = s.clock.Add(time.Hour)
	s.must(more)
	if _, kept := s.m.State().JoinToken(uuid("last")); kept {
		t.Error("an expired token is kept")
	}
}

func TestLimitOfRequests(t *testing.T) {
	s := cluster(t, true)
	spend := func(n int) (last fsm.Result) {
		for range n {
			last, _ = s.apply(fsm.CompleteBarrier{Restriction: s.m.State().LastRestriction()})
		}
		return last
	}
	s.must(fsm.SealCluster{})
	used := 0 // what the stage itself took is forgotten first
	s.clock = s.clock.Add(fsm.RequestHorizon + time.Millisecond)
	if r := spend(fsm.MaxRequests - used); r.Code != fsm.CodeOK {
		t.Fatalf("within the limit: %+v", r)
	}
	if r := spend(1); r.Code != fsm.CodeLimit {
		t.Errorf("beyond the limit: %+v", r)
	}
	r, _ := s.applyEntry(fsm.Entry{Command: fsm.SealCluster{}, Actor: alice + "2", RequestID: s.requestID()})
	if r.Code != fsm.CodeOK {
		t.Errorf("another identity: %+v", r)
	}
	s.clock = s.clock.Add(fsm.RequestHorizon + time.Millisecond)
	if r := spend(1); r.Code != fsm.CodeOK {
		t.Errorf("after the horizon: %+v", r)
	}
}

// TestOnlyTheLastCeremoniesAreKept, and an open one is never the one dropped.
func TestOnlyTheLastCeremoniesAreKept(t *testing.T) {
	s := cluster(t, true)
	s.must(unsealRequest("open", "open", "ada"))
	current, _ := s.m.State().Roster()
	next := s.roster(2, "ada", "bo", "cy")
	next.Version, next.Previous = current.Version+1, fsm.RosterHash(current)
	for i := range 2 * fsm.MaxCeremonies {
		id := fsm.CeremonyID(uuid(fmt.Sprint("roster ", i)))
		s.must(fsm.StartRoster{ID: id, Nonce: digest(fmt.Sprint(i)), Roster: next, Custodian: "ada", Signature: sign("ada", fsm.RosterMessage(fsm.RosterHash(next)))})
		s.must(fsm.AbortCeremony{Ceremony: id, Reason: "again"})
	}
	st := s.m.State()
	if open, ok := st.OpenCeremony(fsm.PurposeUnseal); !ok || open.ID != fsm.CeremonyID(uuid("open")) {
		t.Error("the open ceremony is gone")
	}
	kept := 0
	for i := range 2 * fsm.MaxCeremonies {
		if _, ok := st.Ceremony(fsm.CeremonyID(uuid(fmt.Sprint("roster ", i)))); ok {
			kept++
		}
	}
	if _, ok := st.Ceremony(fsm.CeremonyID(uuid("genesis"))); ok || kept != fsm.MaxCeremonies-1 {
		t.Errorf("%d ceremonies are kept, the genesis among them: %t", kept+1, ok)
	}
}

func TestCeremonyIDsAreNotReused(t *testing.T) {
	s := cluster(t, true)
	c := unsealRequest("genesis", "u", "ada")
	s.expect(fsm.CodeExists, c)
	c = unsealRequest("x", "u", "ada")
	c.ID = "no uuid"
	s.expect(fsm.CodeInvalid, c)
	s.expect(fsm.CodeNotFound, fsm.RecordNodeUnsealed{Node: "n1", Boot: "b", Generation: 1, Ceremony: fsm.CeremonyID(uuid("none")), Seen: 1})
}

// TestARosterMustStillFitWhenItIsSigned: a node whose exchange key changed since the proposal spoils it.
func TestARosterMustStillFitWhenItIsSigned(t *testing.T) {
	s := cluster(t, true)
	current, _ := s.m.State().Roster()
	next := s.roster(2, "ada", "bo", "cy")
	next.Version, next.Previous = 2, fsm.RosterHash(current)
	next.Nodes = next.Nodes[:2]
	signature := func(who string) []byte { return sign(who, fsm.RosterMessage(fsm.RosterHash(next))) }
	start := fsm.StartRoster{ID: fsm.CeremonyID(uuid("r")), Nonce: digest("r"), Roster: next, Custodian: "ada", Signature: signature("ada")}
	bad := start
	bad.Roster = signedBy(next, "ada")
	s.expect(fsm.CodeInvalid, bad)
	bad.Roster = next
	bad.Roster.Threshold = 9
	s.expect(fsm.CodeInvalid, bad)
	bad.Roster = next
	bad.Roster.Version = 3
	s.expect(fsm.CodeConflict, bad)
	bad.Roster = next
	bad.Roster.Previous = [32]byte{1}
	s.expect(fsm.CodeConflict, bad)
	s.must(start)
	s.must(fsm.RemoveNode{Node: "n2"})
	s.must(fsm.CompleteBarrier{Restriction: s.index})
	moved := node("n2")
	moved.ExchangeKey = exchangeKey("another device")
	token := fsm.CreateJoinToken{ID: uuid("again"), Node: "n2", Hash: digest("n2"), ExpiresAt: s.clock.Add(time.Hour)}
	s.must(token)
	s.must(fsm.AdmitNode{TokenID: token.ID, TokenHash: token.Hash, Node: moved})
	s.expect(fsm.CodeConflict, fsm.SignRoster{Ceremony: start.ID, Custodian: "bo", Signature: signature("bo")})
	if r, _ := s.m.State().Roster(); r.Version != 1 {
		t.Error("a roster came into force that pins an old key")
	}
}

// transitionTable is what each order makes of a version in each state, written down by hand; - is refused. Cancel is tried
// with every state before, below.
const transitionTable = `
                       suspend    resume  deactivate   compromise             destroy
unknown                -          -       -            -                      -
pre-active             -          -       -            compromised            destroy-scheduled
active                 suspended  -       deactivated  compromised            -
suspended              -          active  deactivated  compromised            destroy-scheduled
deactivated            -          -       -            compromised            destroy-scheduled
compromised            -          -       -            -                      destroy-scheduled
destroy-scheduled      -          -       -            -                      -
destroying             -          -       -            -                      -
destroyed              -          -       -            destroyed-compromised  -
destroyed-compromised  -          -       -            -                      -
`

// inState is a key of one version in a state.
func inState(state, before fsm.KeyState) *fsmpb.Record {
	return &fsmpb.Record{Kind: &fsmpb.Record_Key{Key: &fsmpb.Key{
		Id: uuid("k"), Name: "k", Algorithm: "ed25519", Class: "standard", Primary: 1,
		Versions: []*fsmpb.KeyVersion{{Version: 1, State: uint32(state), Before: uint32(before)}},
	}}}
}

func TestTransitionsAreTheTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(transitionTable), "\n")
	actions := strings.Fields(lines[0])
	for i, line := range lines[1:] {
		cells := strings.Fields(line)
		if state := fsm.KeyState(i); state.String() != cells[0] {
			t.Fatalf("line %d is %s, the state %s", i, cells[0], state)
		}
		for j, want := range cells[1:] {
			for _, version := range []fsm.Version{0, 1} {
				s := amid(t, inState(fsm.KeyState(i), 0))
				order(t, s, fsm.ChangeKey{Name: "k", Version: version, Action: fsm.KeyAction(actions[j]), Reason: "x"}, cells[0], want)
			}
		}
	}
}

func order(t *testing.T, s *stage, c fsm.ChangeKey, from, want string) {
	t.Helper()
	r, _ := s.apply(c)
	k, _ := s.m.State().Key("k")
	got := k.PrimaryVersion().State.String()
	if want == "-" {
		if r.Code != fsm.CodeState || got != from || !strings.Contains(r.Message, from) {
			t.Errorf("%s of %s: %+v, now %s", c.Action, from, r, got)
		}
		return
	}
	if r.Code != fsm.CodeOK || got != want {
		t.Errorf("%s of %s: %+v, now %s and not %s", c.Action, from, r, got, want)
	}
}

func TestCancelNeverMakesActive(t *testing.T) {
	back := map[fsm.KeyState]bool{
		fsm.StatePreActive: true, fsm.StateSuspended: true, fsm.StateDeactivated: true, fsm.StateCompromised: true,
		fsm.StateActive: false, fsm.StateUnknown: false,
	}
	for before, possible := range back {
		want := "-"
		if possible {
			want = before.String()
		}
		s := amid(t, inState(fsm.StateDestroyScheduled, before))
		order(t, s, fsm.ChangeKey{Name: "k", Action: fsm.ActionCancelDestroy}, "destroy-scheduled", want)
	}
}

// TestRotationByState: the remedy for everything but destruction.
func TestRotationByState(t *testing.T) {
	for state := fsm.StateUnknown; state <= fsm.StateDestroyedCompromised; state++ {
		want := fsm.CodeState
		if state >= fsm.StatePreActive && state <= fsm.StateCompromised {
			want = fsm.CodeOK
		}
		s := amid(t, inState(state, 0))
		s.expect(want, fsm.RotateKey{Name: "k", ID: fsm.KeyID(uuid("k")), Version: 2, Material: material(1)})
	}
}

// TestANodeNeedNotServeWhatIsGone: keys that are destroyed ask no algorithm of a joining node.
func TestANodeNeedNotServeWhatIsGone(t *testing.T) {
	for state, want := range map[fsm.KeyState]fsm.Code{fsm.StateCompromised: fsm.CodeUnsupported, fsm.StateDestroyed: fsm.CodeOK} {
		s := amid(t, inState(state, 0))
		s.must(fsm.CreateJoinToken{ID: uuid("t"), Node: "n9", Hash: digest("t"), ExpiresAt: s.clock.Add(time.Hour)})
		n := node("n9")
		n.Device.Algorithms = nil
		s.expect(want, fsm.AdmitNode{TokenID: uuid("t"), TokenHash: digest("t"), Node: n})
	}
}
