package fsm

import "testing"

func keyOf(class string, name KeyName) Key {
	return Key{ID: KeyID(name), Name: name, Class: class, Primary: 1, Versions: []KeyVersion{{Version: 1}}}
}

// TestLeaseOfARestriction: what is tied to a key is waited for under the leases of its class, anything else under the longest.
func TestLeaseOfARestriction(t *testing.T) {
	s := newState()
	for name, class := range map[KeyName]string{"dear": ClassStandard, "root": ClassPublicTrust} {
		s.setKey(keyOf(class, name))
	}
	if s.HasAvailable() {
		t.Error("no key is of class low")
	}
	s.setKey(keyOf(ClassLow, "cheap"))
	if !s.HasAvailable() || !s.copy().HasAvailable() {
		t.Error("a key is of class low")
	}
	for i, c := range []struct {
		subject string
		want    LeaseMode
	}{
		{keySubject("dear"), LeaseLeased}, {keySubject("root"), LeaseStrict}, {keySubject("cheap"), LeaseAvailable},
		{"cluster", LeaseAvailable}, {"certificate/1", LeaseAvailable}, {keySubject("absent"), LeaseAvailable},
	} {
		s.barriers.Set(uint64(i+1), PendingBarrier{Index: uint64(i + 1), Subject: c.subject})
		if got := s.LeaseOf(uint64(i + 1)); got != c.want {
			t.Errorf("%s: %s, want %s", c.subject, got, c.want)
		}
	}
	if got := s.LeaseOf(99); got != LeaseAvailable {
		t.Errorf("not pending: %s", got)
	}
	if !s.BarrierDone(0) {
		t.Error("nothing restricts at 0")
	}
}

// TestLeavingTheLongerLease: until it is in force everywhere that a key left class low, a lost node may use it for as long as the longer
// lease lasts, whatever its class is here; so every restriction waits for that.
func TestLeavingTheLongerLease(t *testing.T) {
	s := newState()
	s.setKey(keyOf(ClassLow, "cheap"))
	s.setKey(keyOf(ClassStandard, "cheap"))
	s.applied, s.leftAvailable = 8, 7
	s.barriers.Set(7, PendingBarrier{Index: 7, Subject: keySubject("cheap")})
	s.barriers.Set(8, PendingBarrier{Index: 8, Subject: keySubject("cheap")})
	if !s.HasAvailable() || s.LeaseOf(7) != LeaseAvailable || s.LeaseOf(8) != LeaseAvailable {
		t.Errorf("%t %s %s", s.HasAvailable(), s.LeaseOf(7), s.LeaseOf(8))
	}
	s.barriers.Delete(7)
	if s.HasAvailable() || s.LeaseOf(8) != LeaseLeased {
		t.Errorf("%t %s after it is in force", s.HasAvailable(), s.LeaseOf(8))
	}
}

// TestLeavingTwice: the later of two such restrictions may be in force, by a fence, while a node has heard of neither.
func TestLeavingTwice(t *testing.T) {
	s := newState()
	s.setKey(keyOf(ClassStandard, "cheap"))
	s.applied, s.leftAvailable = 9, 8
	s.barriers.Set(7, PendingBarrier{Index: 7, Subject: classSubject("edge")})
	s.barriers.Set(9, PendingBarrier{Index: 9, Subject: keySubject("cheap")})
	if !s.HasAvailable() || s.LeaseOf(9) != LeaseAvailable {
		t.Errorf("%t %s while 7 is pending", s.HasAvailable(), s.LeaseOf(9))
	}
	s.barriers.Delete(7)
	if s.HasAvailable() || s.LeaseOf(9) != LeaseLeased {
		t.Errorf("%t %s after it is in force", s.HasAvailable(), s.LeaseOf(9))
	}
}

// TestRestoredKeysAreKnown: a leader that came back by a snapshot must wait for the longer leases, too.
func TestRestoredKeysAreKnown(t *testing.T) {
	r := newRestoration()
	k := keyOf(ClassLow, "cheap")
	if err := r.restoreKey(&k); err != nil {
		t.Fatal(err)
	}
	if s, err := r.finish(); err != nil || !s.HasAvailable() {
		t.Errorf("restored: %v, known: %t", err, s.HasAvailable())
	}
}
