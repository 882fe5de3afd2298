package fsm_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

// randomCommand draws something that is often possible and sometimes not.
func randomCommand(rt *rapid.T, s *stage) fsm.Command {
	names := []string{"a", "b", "c"}
	name := rapid.SampledFrom(names).Draw(rt, "key")
	k, _ := s.m.State().Key(fsm.KeyName(name))
	c, _ := s.m.State().LatestCeremony(fsm.PurposeUnseal)
	member := fsm.NodeID(rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(rt, "node"))
	switch rapid.IntRange(0, 22).Draw(rt, "command") {
	case 0:
		return fsm.CreateKey{ID: fsm.KeyID(uuid(name)), Name: fsm.KeyName(name), Algorithm: "ed25519", Class: rapid.SampledFrom(fsm.Classes()).Draw(rt, "class"), Material: material(1)}
	case 1:
		return fsm.RotateKey{ID: k.ID, Name: fsm.KeyName(name), Version: fsm.Version(len(k.Versions) + rapid.IntRange(0, 1).Draw(rt, "step")), Material: material(1)}
	case 2:
		return fsm.SealCluster{Reason: "drill"}
	case 3:
		return unsealRequest(fmt.Sprint("unseal ", s.index), fmt.Sprint("unseal ", s.index), "ada")
	case 4:
		return fsm.RecordShareVerdict{Ceremony: c.ID, Custodian: "bo", Node: member, Accepted: rapid.Bool().Draw(rt, "accepted")}
	case 5:
		return fsm.RecordNodeUnsealed{Node: member, Boot: "b", Generation: 1, Ceremony: c.ID, Seen: s.index - uint64(rapid.IntRange(0, 5).Draw(rt, "behind"))}
	case 6:
		return fsm.CompleteBarrier{Restriction: uint64(rapid.IntRange(0, int(s.index)).Draw(rt, "barrier"))}
	case 7:
		return fsm.DrainNode{Node: member, Reason: "kernel update"}
	case 8:
		return fsm.UndrainNode{Node: member}
	case 9:
		return fsm.RemoveNode{Node: member}
	case 10, 11, 12, 13, 14:
		return randomLifecycle(rt, s, fsm.KeyName(name), member)
	default:
		return fsm.ChangeKey{
			Name: fsm.KeyName(name), Version: fsm.Version(rapid.IntRange(0, 3).Draw(rt, "version")),
			Action: fsm.KeyAction(rapid.SampledFrom([]string{"suspend", "resume", "deactivate", "compromise", "revoke", "activate", "destroy", "cancel-destroy"}).Draw(rt, "action")),
			Reason: rapid.SampledFrom([]string{"superseded", "key compromise", ""}).Draw(rt, "reason"),
		}
	}
}

// randomEntry sometimes repeats an earlier entry with its request id, and sometimes lets time pass.
func randomEntry(rt *rapid.T, s *stage) fsm.Entry {
	if rapid.IntRange(0, 9).Draw(rt, "wait") == 0 {
		s.clock = s.clock.Add(time.Duration(rapid.IntRange(1, 700).Draw(rt, "seconds")) * time.Second)
		if rapid.IntRange(0, 3).Draw(rt, "days") == 0 {
			s.clock = s.clock.Add(time.Duration(rapid.IntRange(1, 40).Draw(rt, "hours")*10) * time.Hour)
		}
	}
	if len(s.log) > 0 && rapid.IntRange(0, 9).Draw(rt, "repeat") == 0 {
		e, err := fsm.DecodeEntry(rapid.SampledFrom(s.log).Draw(rt, "which"))
		if err == nil {
			return e.Stamped(s.clock)
		}
	}
	return fsm.Entry{Command: randomCommand(rt, s), Actor: alice, RequestID: s.requestID()}.Stamped(s.clock)
}

// TestApplyDeterministic: another machine that gets the same log in other batches, and is restored from its own snapshot on
// the way, says and becomes the same.
func TestApplyDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := cluster(t, true)
		if rapid.Bool().Draw(rt, "newest level") {
			s.raised()
		}
		other := fsm.New()
		for i, data := range s.log {
			if _, _, err := other.Apply(uint64(i+1), data); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "entries") {
			data := encode(t, randomEntry(rt, s))
			r, events := s.applyBytes(data)
			r2, events2, err := other.Apply(s.index, data)
			if diff := cmp.Diff(events, events2); err != nil || r != r2 || diff != "" {
				rt.Fatalf("index %d: %+v and %+v, %v\n%s", s.index, r, r2, err, diff)
			}
			switch rapid.IntRange(0, 6).Draw(rt, "snapshot") {
			case 0:
				other = restored(t, snapshot(t, other.Publish()))
			case 1:
				s.m.State().Digest()
			case 2:
				other.Publish().Digest()
			}
		}
		wantSameCalendar(rt, s.m.State(), other.Publish())
		if a, b := s.m.State(), other.Publish(); a.Digest() != b.Digest() || a.Tree() != b.Tree() || a.Applied() != b.Applied() {
			rt.Fatalf("digests %x and %x", a.Digest(), b.Digest())
		}
	})
}

// legal are the transitions of NIST SP 800-57 Part 1 Rev. 5 §7.3, written down by hand. Names come from nowhere as active where creation
// and activation are one entry.
var legal = map[string][]string{
	"":                  {"active", "pre-active"},
	"pre-active":        {"active", "compromised", "destroy-scheduled"},
	"active":            {"suspended", "deactivated", "compromised"},
	"suspended":         {"active", "deactivated", "compromised", "destroy-scheduled"},
	"deactivated":       {"compromised", "destroy-scheduled"},
	"compromised":       {"destroy-scheduled"},
	"destroy-scheduled": {"pre-active", "suspended", "deactivated", "compromised", "destroying"},
	"destroying":        {"destroyed"},
	"destroyed":         {"destroyed-compromised"},
}

func states(s *fsm.State) map[string]string {
	all := map[string]string{}
	for _, k := range s.Keys("", "", 0) {
		for _, v := range k.Versions {
			all[fmt.Sprintf("%s v%d", k.Name, v.Version)] = v.State.String()
		}
	}
	return all
}

func TestNoIllegalTransition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := cluster(t, true)
		for range rapid.IntRange(1, 40).Draw(rt, "entries") {
			before := states(s.m.State())
			r, events := s.applyEntry(randomEntry(rt, s))
			after := states(s.m.State())
			for version, from := range before {
				if _, kept := after[version]; !kept {
					rt.Fatalf("%s, %s, is gone", version, from)
				}
			}
			changed := 0
			for version, to := range after {
				from := before[version]
				if from == to {
					continue
				}
				changed++
				if r.Code != fsm.CodeOK || !slices.Contains(legal[from], to) {
					rt.Fatalf("%s went from %q to %q with result %+v", version, from, to, r)
				}
			}
			checkEventsOfChange(rt, s.m.State(), events, changed)
		}
	})
}

// checkEventsOfChange: one event for each version that changed, two for one that came, and their last word is the state.
func checkEventsOfChange(rt *rapid.T, s *fsm.State, events []fsm.Event, changed int) {
	last := map[string]string{}
	for _, e := range events {
		if e.Version != 0 && e.From != e.To { // a receipt, the end of processing
			last[fmt.Sprintf("%s v%d", e.Subject[len("key/"):], e.Version)] = e.To
		}
	}
	if len(last) != changed {
		rt.Fatalf("%d versions changed, %d events say so: %v", changed, len(last), events)
	}
	now := states(s)
	for version, to := range last {
		if now[version] != to {
			rt.Fatalf("%s is %s, the log says %s", version, now[version], to)
		}
	}
}

// TestRefusalsLeaveNoTrace: save for the applied index and the time, which every entry moves.
func TestRefusalsLeaveNoTrace(t *testing.T) {
	trace := func(s *fsm.State) []byte {
		all := records(t, snapshot(t, s))
		all[0].GetHeader().Applied, all[0].GetHeader().TimeMs = 0, 0
		return sealed(t, all...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := furnished(t)
		for range rapid.IntRange(1, 6).Draw(rt, "entries") {
			e := fsm.Entry{Command: randomCommand(rt, s), Actor: alice, RequestID: s.requestID()}
			before := s.m.State()
			r, events := s.applyEntry(e)
			if r.Code == fsm.CodeOK {
				continue
			}
			if !bytes.Equal(trace(before), trace(s.m.State())) || len(events) > 0 || r.Message == "" || r.Barrier != 0 {
				rt.Fatalf("%T refused with %+v and %d events, and left a trace", e.Command, r, len(events))
			}
		}
	})
}

// TestRepeatsChangeNothing: any entry again, at once, is answered as before.
func TestRepeatsChangeNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := furnished(t)
		for range rapid.IntRange(1, 6).Draw(rt, "entries") {
			e := fsm.Entry{Command: randomCommand(rt, s), Actor: alice, RequestID: s.requestID()}
			first, _ := s.applyEntry(e)
			if first.Code != fsm.CodeOK {
				continue
			}
			before := s.m.State().Tree()
			again, events := s.applyEntry(e)
			first.Repeat = true
			if again != first || len(events) > 0 || s.m.State().Tree() != before {
				rt.Fatalf("%T: first %+v, then %+v", e.Command, first, again)
			}
		}
	})
}

// TestApplyKeepsNothingOfItsInput: raft reuses its buffers.
func TestApplyKeepsNothingOfItsInput(t *testing.T) {
	s := cluster(t, true)
	data := encode(t, fsm.Entry{
		Command: fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1)}, Actor: alice, RequestID: s.requestID(),
	}.Stamped(s.clock))
	if r, _, err := s.m.Apply(s.index+1, data); err != nil || r.Code != fsm.CodeOK {
		t.Fatal(r, err)
	}
	clear(data)
	k, _ := s.m.Publish().Key("k")
	if k.Name != "k" || !bytes.Equal(k.Versions[0].Blob, []byte("blob")) {
		t.Errorf("%+v", k)
	}
}
