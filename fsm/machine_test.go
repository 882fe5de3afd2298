package fsm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

func TestApplyPanicsOnAnIndexThatDoesNotRise(t *testing.T) {
	s := cluster(t, true)
	defer func() {
		said := fmt.Sprint(recover())
		if !strings.Contains(said, fmt.Sprint("index ", s.index-1)) || !strings.Contains(said, fmt.Sprint("after ", s.index)) {
			t.Errorf("panicked with %q, not with the numbers", said)
		}
	}()
	_, _, _ = s.m.Apply(s.index-1, encode(t, entryOf(fsm.SealCluster{})))
}

func TestNothingIsVisibleBeforePublish(t *testing.T) {
	s := cluster(t, true)
	before := s.m.State()
	e := fsm.Entry{Command: fsm.SealCluster{Reason: "drill"}, Actor: alice, RequestID: s.requestID()}.Stamped(s.clock)
	if r, _, err := s.m.Apply(s.index+1, encode(t, e)); err != nil || r.Code != fsm.CodeOK {
		t.Fatal(r, err)
	}
	if s.m.State() != before || s.m.Applied() != s.index || before.Cluster().SealedAt != 0 {
		t.Error("an applied entry is visible before Publish")
	}
	after := s.m.Publish()
	if s.m.State() != after || s.m.Applied() != s.index+1 || after.Cluster().SealedAt != s.index+1 {
		t.Error("a published entry is not visible")
	}
	if before.Cluster().SealedAt != 0 || before.Applied() != s.index {
		t.Error("the state before has changed")
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	s := cluster(t, true)
	s.clock = opening.Add(-5 * time.Minute)
	r := s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1)})
	if k, _ := s.m.State().Key("k"); !s.m.State().Time().Equal(opening) || !k.CreatedAt.Equal(opening) || r.Index != s.index {
		t.Errorf("log time %s, key made %s", s.m.State().Time(), k.CreatedAt)
	}
}

// TestReadersKeepAnImmutableState: readers walk states while entries are applied; the race detector watches, and every state
// gives the same digest as its copy taken when it was published.
func TestReadersKeepAnImmutableState(t *testing.T) {
	s := furnished(t)
	states := make(chan *fsm.State, 16)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for state := range states {
				for _, k := range state.Keys("", "", 0) {
					if k.Revision > state.Applied() || k.PrimaryVersion().Version != k.Primary {
						t.Errorf("the state at %d has a key of revision %d", state.Applied(), k.Revision)
					}
				}
				if again := restored(t, snapshot(t, state)); again.State().Digest() != state.Digest() {
					t.Errorf("the state at %d is not what its snapshot says", state.Applied())
				}
			}
		})
	}
	for i := range 80 {
		name := fsm.KeyName(fmt.Sprintf("k%d", i%20))
		if i < 20 {
			s.must(fsm.CreateKey{ID: fsm.KeyID(uuid(string(name))), Name: name, Algorithm: "ed25519", Material: material(1)})
		} else {
			s.must(fsm.RotateKey{ID: fsm.KeyID(uuid(string(name))), Name: name, Version: fsm.Version(i/20 + 1), Material: material(1)})
		}
		states <- s.m.State()
	}
	close(states)
	readers.Wait()
}

func TestReadsOfTheEmptyState(t *testing.T) {
	s := fsm.New().State()
	_, node := s.Node("n1")
	_, token := s.JoinToken("t")
	_, cert := s.Certificate("c")
	_, roster := s.Roster()
	_, master := s.Master()
	_, ceremony := s.Ceremony("c")
	_, latest := s.LatestCeremony("")
	_, open := s.OpenCeremony("")
	_, key := s.Key("k")
	_, byID := s.KeyByID("k")
	if node || token || cert || roster || master || ceremony || latest || open || key || byID || s.Initialised() {
		t.Error("the empty state has something")
	}
	if s.Applied() != 0 || !s.Time().IsZero() || len(s.Nodes())+len(s.Keys("", "", 9))+len(s.Rosters())+len(s.Certificates("", 9)) != 0 {
		t.Error("the empty state lists something")
	}
	if !s.BarrierDone(0) || s.BarrierDone(1) {
		t.Error("a barrier is done beyond what is applied")
	}
}

func TestPages(t *testing.T) {
	s := cluster(t, true)
	for _, name := range []string{"a", "b/1", "b/2", "b/3", "c"} {
		s.must(fsm.CreateKey{ID: fsm.KeyID(uuid(name)), Name: fsm.KeyName(name), Algorithm: "ed25519", Material: material(1)})
		s.must(fsm.RecordCertificate{Certificate: certificate(fsm.RoleUser, "u", fmt.Sprintf("%x", name), s.clock)})
	}
	st := s.m.State()
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 0, "a b/1 b/2 b/3 c"}, {"", "", 2, "a b/1"}, {"", "b/1", 2, "b/2 b/3"}, {"b/", "", 0, "b/1 b/2 b/3"},
		{"b/", "b/1", 1, "b/2"}, {"b/", "a", 1, "b/1"}, {"b/", "b/3", 9, ""}, {"b/", "c", 9, ""}, {"x", "", 9, ""}, {"", "c", 9, ""},
	} {
		var got []string
		for _, k := range st.Keys(c.prefix, fsm.KeyName(c.after), c.limit) {
			got = append(got, string(k.Name))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	page := st.Certificates("", 2)
	rest := st.Certificates(page[1].Serial, 0)
	if len(page) != 2 || len(rest) != 4 || rest[0].Serial <= page[1].Serial {
		t.Errorf("pages of certificates: %v, %v", page, rest)
	}
}

func TestKeyVersions(t *testing.T) {
	k, _ := furnished(t).m.State().Key("k")
	v, ok := k.Version(1)
	if _, none := k.Version(3); !ok || none || v.State != fsm.StateDestroyScheduled || k.PrimaryVersion().Version != 2 {
		t.Errorf("%+v", k)
	}
	if !k.MayUse("bob") || k.MayUse("bo") || k.MayUse("") || (fsm.Key{}).MayUse("bob") {
		t.Error("the label users is read wrong")
	}
	if k.Labels[0].Name != "env" {
		t.Errorf("labels are not sorted: %v", k.Labels)
	}
}

// TestAForgottenRequestIsNotExecutedAgain: an entry that is refused makes the log's time, and with it the horizon, go on, and what it made
// forget is refused from then on, however early the next stamp is.
func TestAForgottenRequestIsNotExecutedAgain(t *testing.T) {
	s, _ := budgeted(t, "ed25519", fsm.UseLimit{})
	s.raised()
	suspend := fsm.Entry{Command: fsm.ChangeKey{Name: "k", Action: fsm.ActionSuspend, Reason: "doubt"}, Actor: alice, RequestID: s.requestID()}
	if r, _ := s.applyEntry(suspend); r.Code != fsm.CodeOK {
		t.Fatal(r)
	}
	s.must(fsm.ChangeKey{Name: "k", Action: fsm.ActionResume})
	began := s.clock
	s.clock = began.Add(fsm.RequestHorizon + time.Millisecond)
	s.expect(fsm.CodeNotFound, fsm.ChangeKey{Name: "absent", Action: fsm.ActionResume})
	s.clock = began.Add(fsm.RequestHorizon - time.Second)
	if r, _ := s.applyEntry(suspend); r.Code != fsm.CodeRequestExpired {
		t.Errorf("again: %+v", r)
	}
}
