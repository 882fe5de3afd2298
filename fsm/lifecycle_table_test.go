package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// reachable brings a key of a class to each state by commands alone; public-trust and critical need the cluster to be marked dev.
func reachable(t *testing.T, class string, state fsm.KeyState) (*stage, fsm.Key) {
	t.Helper()
	s := cluster(t, true)
	create := fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Class: class, Material: material(1)}
	if state == fsm.StatePreActive {
		create.ActivateAt = s.clock.Add(time.Hour)
	}
	s.must(create)
	order := func(a fsm.KeyAction) { s.must(fsm.ChangeKey{Name: "k", Action: a, Reason: "table"}) }
	switch state {
	case fsm.StateSuspended:
		order(fsm.ActionSuspend)
	case fsm.StateCompromised:
		order(fsm.ActionCompromise)
	case fsm.StateDeactivated, fsm.StateDestroyScheduled, fsm.StateDestroying, fsm.StateDestroyed, fsm.StateDestroyedCompromised:
		order(fsm.ActionDeactivate)
	}
	if state < fsm.StateDestroyScheduled {
		return s, s.key("k")
	}
	order(fsm.ActionDestroy)
	if state > fsm.StateDestroyScheduled {
		s.clock = s.clock.Add(31 * 24 * time.Hour)
		s.must(fsm.ExecuteDue{Due: s.dueOf("k", fsm.DueDestroy)})
	}
	if state > fsm.StateDestroying {
		for _, n := range []fsm.NodeID{"n1", "n2", "n3"} {
			s.must(fsm.RecordErasure{Node: n, Erasure: fsm.ErasureState, Erased: []fsm.ErasedVersion{{Key: fsm.KeyID(uuid("k")), Version: 1}}})
		}
	}
	if state == fsm.StateDestroyedCompromised {
		order(fsm.ActionCompromise)
	}
	return s, s.key("k")
}

func (s *stage) key(name fsm.KeyName) fsm.Key {
	s.t.Helper()
	k, ok := s.m.State().Key(name)
	if !ok {
		s.t.Fatalf("no key %s", name)
	}
	return k
}

func (s *stage) dueOf(name string, kind fsm.DueKind) fsm.Due {
	s.t.Helper()
	for _, d := range s.m.State().Due(s.clock, 100, nil) {
		if d.Subject == name && d.Kind == kind {
			return d
		}
	}
	s.t.Fatalf("%s of %s is not due", kind, name)
	return fsm.Due{}
}

// orderTable is NIST SP 800-57 Part 1 Rev. 5 §7.3 as the design has it, by what users order: the state after, or - for refused by the
// state. Destruction begins and ends by dates and receipts. Rows are states, columns orders.
const orderTable = `
                      activate suspend   resume deactivate  compromise            destroy           cancel-destroy rotate
pre-active            active   -         -      -           compromised           destroy-scheduled -              yes
active                -        suspended -      deactivated compromised           -                 -              yes
suspended             -        -         active deactivated compromised           destroy-scheduled -              yes
deactivated           -        -         -      -           compromised           destroy-scheduled -              yes
compromised           -        -         -      -           -                     destroy-scheduled -              yes
destroy-scheduled     -        -         -      -           -                     -                 deactivated    -
destroying            -        -         -      -           -                     -                 -              -
destroyed             -        -         -      -           destroyed-compromised -                 -              -
destroyed-compromised -        -         -      -           -                     -                 -              -
`

// TestEveryStateTimesEveryOrderTimesEveryClass walks the table with real keys: what is refused is refused by the state and leaves the key
// as it was; what is allowed leads where the table says; material is there until the destruction begins and never after.
func TestEveryStateTimesEveryOrderTimesEveryClass(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(orderTable), "\n")
	orders := strings.Fields(lines[0])
	for i, line := range lines[1:] {
		cells, state := strings.Fields(line), fsm.KeyState(i+1)
		if cells[0] != state.String() || len(cells) != len(orders)+1 {
			t.Fatalf("row %d is %q, the state %s", i, cells[0], state)
		}
		for _, class := range fsm.Classes() {
			for j, order := range orders {
				t.Run(fmt.Sprintf("%s/%s/%s", state, order, class), func(t *testing.T) { walkCell(t, class, state, order, cells[j+1]) })
			}
		}
	}
}

func walkCell(t *testing.T, class string, state fsm.KeyState, order, want string) {
	s, before := reachable(t, class, state)
	if got := before.Versions[0]; got.State != state || (got.Blob == nil) != (state >= fsm.StateDestroying) || len(got.PublicKey) == 0 {
		t.Fatalf("on the way to %s: %+v", state, got)
	}
	var r fsm.Result
	if order == "rotate" {
		r, _ = s.apply(fsm.RotateKey{ID: before.ID, Name: "k", Version: 2, Material: material(1)})
	} else {
		r, _ = s.apply(fsm.ChangeKey{Name: "k", Version: 1, Action: fsm.KeyAction(order), Reason: "table"})
	}
	after := s.key("k")
	switch want {
	case "-":
		if r.Code != fsm.CodeState || r.Message == "" || after.Versions[0].State != state || len(after.Versions) != 1 {
			t.Errorf("%+v left %s", r, after.Versions[0].State)
		}
	case "yes":
		if r.Code != fsm.CodeOK || after.Primary != 2 || after.Versions[1].State != fsm.StateActive || after.Versions[0].State != state {
			t.Errorf("%+v left %+v", r, after)
		}
	default:
		if r.Code != fsm.CodeOK || after.Versions[0].State.String() != want {
			t.Errorf("%+v left %s, not %s", r, after.Versions[0].State, want)
		}
	}
}

// TestProcessingEnds: after the recipient period of a class nothing is decrypted, and the public half still verifies.
func TestProcessingEnds(t *testing.T) {
	c, _ := fsm.New().State().Class(fsm.ClassLow)
	v := fsm.KeyVersion{State: fsm.StateDeactivated, Dates: &fsm.Dates{ProcessingEndedAt: opening}}
	for op, allowed := range map[fsm.Operation]bool{fsm.OpDecrypt: false, fsm.OpVerifyMAC: false, fsm.OpVerify: true} {
		p := fsm.Permit(op, c, v, "incident 7")
		if p.Allowed != allowed || !allowed && (p.Code != fsm.CodeState || !strings.Contains(p.Message, "recipient period")) {
			t.Errorf("%s: %+v", op, p)
		}
	}
}

// TestRevocationReasons: KMIP's seven, in any spelling that people use; anything else is refused and not taken for unspecified.
func TestRevocationReasons(t *testing.T) {
	for _, code := range fsm.RevocationCodes() {
		for _, spelt := range []string{code, strings.ToUpper(code), strings.ReplaceAll(code, "-", "_"), " " + strings.ReplaceAll(code, "-", " ") + " ", code + ": because"} {
			r, err := fsm.ParseRevocation(spelt)
			if err != nil || r.Code != code {
				t.Errorf("%q: %+v, %v", spelt, r, err)
			}
			if again, err := fsm.ParseRevocation(r.String()); err != nil || again != r {
				t.Errorf("%q does not come back: %+v, %v", r.String(), again, err)
			}
		}
		s, _ := reachable(t, fsm.ClassStandard, fsm.StateActive)
		s.must(fsm.ChangeKey{Name: "k", Action: fsm.ActionRevoke, Reason: code + ": words"})
		want := fsm.StateDeactivated
		if slices.Contains([]string{"key-compromise", "ca-compromise"}, code) {
			want = fsm.StateCompromised
		}
		if v := s.key("k").Versions[0]; v.State != want || v.Reason != code+": words" {
			t.Errorf("%s: %s because %q", code, v.State, v.Reason)
		}
	}
	if len(fsm.RevocationCodes()) != 7 {
		t.Errorf("KMIP has seven reasons: %v", fsm.RevocationCodes())
	}
	for _, wrong := range []string{"", "leak", "compromized", "key-compromise laptop", ": key-compromise"} {
		if r, err := fsm.ParseRevocation(wrong); err == nil {
			t.Errorf("%q is taken for %+v", wrong, r)
		}
	}
}

// TestLimitsOfLifecycle: what dialogues would be too long for.
func TestLimitsOfLifecycle(t *testing.T) {
	s := cluster(t, true)
	c := fullClass()
	c.MFA, c.Approvals, c.HardwareOnly = false, nil, false
	for i := range fsm.MaxClasses {
		c.Name = fmt.Sprintf("c%d", i)
		s.must(fsm.CreateClass{Class: c})
	}
	c.Name = "more"
	s.expect(fsm.CodeLimit, fsm.CreateClass{Class: c})
	spoil := func(change func(*fsm.Class)) fsm.Command { bad := c; change(&bad); return fsm.CreateClass{Class: bad} }
	many := slices.Repeat([]fsm.Approval{{Operation: "destroy", Quorum: 2}}, 17)
	for name, command := range map[string]fsm.Command{
		"description": spoil(func(c *fsm.Class) { c.Description = strings.Repeat("x", 600) }),
		"algorithms":  spoil(func(c *fsm.Class) { c.Algorithms = slices.Repeat([]string{"a"}, 65) }),
		"algorithm":   spoil(func(c *fsm.Class) { c.Algorithms = []string{"a b"} }),
		"approvals":   spoil(func(c *fsm.Class) { c.Approvals = many }),
		"groups": spoil(func(c *fsm.Class) {
			c.Approvals = []fsm.Approval{{Operation: "use", Quorum: 1, Groups: slices.Repeat([]string{"g"}, 17)}}
		}),
		"duration":      spoil(func(c *fsm.Class) { c.Lease = fsm.LeaseLeased }),
		"long lease":    spoil(func(c *fsm.Class) { c.LeaseDuration = time.Hour }),
		"fraction":      spoil(func(c *fsm.Class) { c.RotateEvery = time.Hour + 1 }),
		"for ever":      spoil(func(c *fsm.Class) { c.RotateEvery = fsm.MaxPeriod + time.Hour }),
		"update":        fsm.UpdateClass{Class: fsm.Class{Name: "X"}},
		"purpose":       fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1), Purpose: strings.Repeat("x", 200)},
		"description ":  fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1), Description: "two\nlines"},
		"links":         fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1), Links: make([]fsm.Link, 17)},
		"no receipts":   fsm.RecordErasure{Node: "n1", Erasure: fsm.ErasureState},
		"many receipts": fsm.RecordErasure{Node: "n1", Erasure: fsm.ErasureState, Erased: make([]fsm.ErasedVersion, fsm.MaxErased+1)},
		"boot":          fsm.RecordErasure{Node: "n1", Boot: strings.Repeat("x", 200), Erasure: fsm.ErasureState, Erased: make([]fsm.ErasedVersion, 1)},
	} {
		if r, _ := s.apply(command); r.Code != fsm.CodeInvalid || r.Message == "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1)})
	long, text := fsm.Actor("spiffe://"+strings.Repeat("x", 600)), "two\nlines"
	for name, command := range map[string]fsm.Command{
		"owner": fsm.UpdateKey{Name: "k", Owner: &long}, "words": fsm.UpdateKey{Name: "k", Description: &text}, "why": fsm.SetKeyClass{Name: "k", Class: "c1", Reason: text},
	} {
		if r, _ := s.apply(command); r.Code != fsm.CodeInvalid {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestASchedulerMaySkip: what is put off does not stand in the way of the rest.
func TestASchedulerMaySkip(t *testing.T) {
	s := cluster(t, true)
	for i := range 5 {
		name := fmt.Sprintf("k%d", i)
		s.must(fsm.CreateKey{ID: fsm.KeyID(uuid(name)), Name: fsm.KeyName(name), Algorithm: "ed25519", Material: material(1), ActivateAt: s.clock.Add(time.Duration(5-i) * time.Hour)})
	}
	s.must(unsealRequest("u", "u", "ada"))
	at := s.clock.Add(10 * time.Hour)
	skip := func(d fsm.Due) bool { return d.Subject == "k4" || d.Kind == fsm.DueToken || d.Kind == fsm.DueCeremony }
	if got := s.m.State().Due(at, 2, skip); len(got) != 2 || got[0].Subject != "k3" || got[1].Subject != "k2" {
		t.Errorf("due are %v", got)
	}
	if next, some := s.m.State().NextDue(); !some || !next.Equal(s.clock.Add(time.Hour)) {
		t.Errorf("next at %s", next)
	}
	if _, some := fsm.New().State().NextDue(); some {
		t.Error("an empty state has something to do")
	}
}
