package fsm_test

import (
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
)

// permitTable is the table of NIST SP 800-57 Part 1 Rev. 5 section 7 as the design has it, written down by hand. Columns are
// the states; y: yes, w: yes with a warning, s: refused by the state, q: needs a quorum's approval, r: only with a reason.
// Rows of a class replace those of any class.
const permitTable = `
                 unknown pre-active active suspended deactivated compromised destroy-scheduled destroying destroyed destroyed-compromised
encrypt          s       s          y      s         s           s           s                 s          s         s
sign             s       s          y      s         s           s           s                 s          s         s
mac              s       s          y      s         s           s           s                 s          s         s
datakey          s       s          y      s         s           s           s                 s          s         s
derive           s       s          y      s         s           s           s                 s          s         s
encapsulate      s       s          y      s         s           s           s                 s          s         s
encrypt-public   s       s          y      s         s           s           s                 s          s         s
decrypt          s       s          y      s         y           q           s                 s          s         s
decapsulate      s       s          y      s         y           q           s                 s          s         s
verify-mac       s       s          y      s         y           q           s                 s          s         s
verify           s       s          y      w         y           w           w                 w          w         w
export           s       y          y      s         y           s           s                 s          s         s
rewrap           s       s          y      s         y           q           s                 s          s         s
low:decrypt      s       s          y      r         y           q           s                 s          s         s
low:decapsulate  s       s          y      r         y           q           s                 s          s         s
low:verify-mac   s       s          y      r         y           q           s                 s          s         s
public-trust:encrypt s   s          q      s         s           s           s                 s          s         s
public-trust:sign    s   s          q      s         s           s           s                 s          s         s
public-trust:mac     s   s          q      s         s           s           s                 s          s         s
public-trust:datakey s   s          q      s         s           s           s                 s          s         s
public-trust:derive  s   s          q      s         s           s           s                 s          s         s
public-trust:decrypt s   s          q      s         q           q           s                 s          s         s
public-trust:decapsulate s s        q      s         q           q           s                 s          s         s
public-trust:rewrap  s   s          q      s         q           q           s                 s          s         s
public-trust:export  s   s          s      s         s           s           s                 s          s         s
critical:export  s       s          s      s         s           s           s                 s          s         s
`

// readPermitTable returns class:operation → cells, in the order of the columns.
func readPermitTable(t *testing.T) (columns []string, rows map[string][]string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(permitTable), "\n")
	columns, rows = strings.Fields(lines[0]), map[string][]string{}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		if len(cells) != len(columns)+1 {
			t.Fatalf("row %q has %d cells, not %d", cells[0], len(cells)-1, len(columns))
		}
		rows[cells[0]] = cells[1:]
	}
	return columns, rows
}

func TestPermitIsTheTable(t *testing.T) {
	columns, rows := readPermitTable(t)
	for op := fsm.OpEncrypt; op <= fsm.OpRewrap; op++ {
		for _, class := range []string{"public-trust", "critical", "standard", "low"} {
			row, ok := rows[class+":"+op.String()]
			if !ok {
				row = rows[op.String()]
			}
			if row == nil {
				t.Fatalf("the table has no row %s", op)
			}
			for i, cell := range row {
				state := fsm.KeyState(i)
				if state.String() != columns[i] {
					t.Fatalf("column %d is %s, the state %s", i, columns[i], state)
				}
				checkPermission(t, op, class, state, cell)
			}
		}
	}
}

// permit is the verdict on a version of a built-in class, made exportable.
func permit(op fsm.Operation, class string, state fsm.KeyState, reason string) fsm.Permission {
	c, _ := fsm.New().State().Class(class)
	return fsm.Permit(op, c, fsm.KeyVersion{State: state, Exportable: true}, reason)
}

func checkPermission(t *testing.T, op fsm.Operation, class string, state fsm.KeyState, cell string) {
	t.Helper()
	bare, reasoned := permit(op, class, state, ""), permit(op, class, state, "incident 7")
	if cell == "r" {
		if bare.Allowed || bare.Code != fsm.CodeState || !reasoned.Allowed {
			t.Errorf("%s %s %s: %+v without, %+v with a reason", class, op, state, bare, reasoned)
		}
		if p := permit(op, class, state, "two\nlines"); p.Allowed || p.Code != fsm.CodeInvalid {
			t.Errorf("%s %s %s with a bad reason: %+v", class, op, state, p)
		}
		return
	}
	want := map[string]struct {
		allowed, warned bool
		code            fsm.Code
	}{"y": {allowed: true}, "w": {allowed: true, warned: true}, "s": {code: fsm.CodeState}, "q": {code: fsm.CodeNeedsApproval}}[cell]
	for _, p := range []fsm.Permission{bare, reasoned} {
		if p.Allowed != want.allowed || (p.Warning != "") != want.warned || p.Code != want.code || (p.Message == "") != want.allowed {
			t.Errorf("%s %s %s: %+v, the table says %s", class, op, state, p, cell)
		}
	}
}

// TestPermitExport: what the key was born as, what it was made since, and what its class demands of people; each only where the state permits it.
func TestPermitExport(t *testing.T) {
	class := func(a ...fsm.Approval) fsm.Class { return fsm.Class{Name: "own", Export: true, Approvals: a} }
	mfa := class()
	mfa.MFA = true
	born, active := fsm.KeyVersion{State: fsm.StateActive}, fsm.KeyVersion{State: fsm.StateActive, Exportable: true}
	compromised := fsm.KeyVersion{State: fsm.StateCompromised, Exportable: true}
	for what, c := range map[string]struct {
		class fsm.Class
		key   fsm.Key
		v     fsm.KeyVersion
		code  fsm.Code
	}{
		"as it should be":        {class(), fsm.Key{}, active, fsm.CodeOK},
		"not made so":            {class(), fsm.Key{}, born, fsm.CodeState},
		"never any more":         {class(), fsm.Key{NeverExportable: true}, active, fsm.CodeState},
		"needs two":              {class(fsm.Approval{Operation: "export", Quorum: 2}), fsm.Key{}, active, fsm.CodeNeedsApproval},
		"needs two for any use":  {class(fsm.Approval{Operation: fsm.ApprovalUse, Quorum: 2}), fsm.Key{}, active, fsm.CodeNeedsApproval},
		"needs a second factor":  {mfa, fsm.Key{}, active, fsm.CodeDenied},
		"needs two, compromised": {class(fsm.Approval{Operation: "export", Quorum: 2}), fsm.Key{}, compromised, fsm.CodeState},
	} {
		p := fsm.PermitFor(fsm.OpExport, c.class, &c.key, c.v, "")
		if p.Code != c.code || p.Allowed != (c.code == fsm.CodeOK) || (p.Message == "") != p.Allowed {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if p := fsm.PermitFor(fsm.OpSign, class(), &fsm.Key{NeverExportable: true}, active, ""); !p.Allowed {
		t.Errorf("it signs: %+v", p)
	}
}

// TestRewrapEndsWithTheRecipientPeriod: else who may rewrap could read for ever.
func TestRewrapEndsWithTheRecipientPeriod(t *testing.T) {
	v := fsm.KeyVersion{State: fsm.StateDeactivated}
	for _, ended := range []bool{false, true} {
		if ended {
			v.Dates = &fsm.Dates{ProcessingEndedAt: opening}
		}
		if p := fsm.Permit(fsm.OpRewrap, fsm.Class{Name: "own"}, v, ""); p.Allowed == ended || ended && p.Code != fsm.CodeState {
			t.Errorf("ended=%t: %+v", ended, p)
		}
	}
}

func TestPermitRefusesTheUnknown(t *testing.T) {
	for _, p := range []fsm.Permission{
		permit(fsm.OpSign, "gold", fsm.StateActive, ""), permit(fsm.OpSign, "", fsm.StateActive, ""),
		permit(0, "standard", fsm.StateActive, ""), permit(99, "standard", fsm.StateActive, ""),
	} {
		if p.Allowed || p.Code != fsm.CodeInvalid || p.Message == "" {
			t.Errorf("%+v", p)
		}
	}
	if p := permit(fsm.OpVerify, "standard", fsm.KeyState(200), ""); p.Allowed || p.Code != fsm.CodeState {
		t.Errorf("a state from nowhere: %+v", p)
	}
}

// TestClassesAreTheTable holds the built-in classes against the design's values.
func TestClassesAreTheTable(t *testing.T) {
	const d = 24 * 60 * 60 // seconds
	for name, want := range map[string]struct {
		hardware  bool
		lease     fsm.LeaseMode
		log       fsm.UsageLog
		wait      float64
		export    bool
		approvals int
		suspended bool
		rotate    float64
	}{
		"public-trust": {true, "strict", "durable", 30 * d, false, 2, false, 365 * d},
		"critical":     {true, "leased", "durable", 30 * d, false, 0, false, 90 * d},
		"standard":     {false, "leased", "buffered", 7 * d, true, 0, false, 365 * d},
		"low":          {false, "available", "buffered", 1 * d, true, 0, true, 0},
	} {
		c, ok := fsm.New().State().Class(name)
		got := want
		got.hardware, got.lease, got.log, got.wait = c.HardwareOnly, c.Lease, c.UsageLog, c.MinDestroyWait.Seconds()
		got.export, got.approvals, got.suspended, got.rotate = c.Export, int(c.Approval(fsm.ApprovalUse).Quorum), c.DecryptWhileSuspended, c.RotateEvery.Seconds()
		if !ok || c.Name != name || got != want {
			t.Errorf("%s is %+v, the design says %+v", name, got, want)
		}
		if available := c.Lease == fsm.LeaseAvailable; available != (c.LeaseDuration.Seconds() == 60) {
			t.Errorf("%s has a lease of %s", name, c.LeaseDuration)
		}
	}
	if _, ok := fsm.New().State().Class(""); ok || len(fsm.Classes()) != 4 {
		t.Errorf("the empty name is a class, or the list is %v", fsm.Classes())
	}
}
