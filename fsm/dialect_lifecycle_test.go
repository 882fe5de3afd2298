package fsm_test

import (
	"fmt"
	"strings"

	"github.com/conclave-vault/conclave/fsm"
)

// lifecycleCommand makes the proposals about classes, dates and words.
func (d *dialect) lifecycleCommand(verb string) fsm.Command {
	switch verb {
	case "class-create": // class-create NAME [from=CLASS] [controls of class]
		c := d.class(d.option("from", "standard"))
		c.Name = d.word(1)
		return fsm.CreateClass{Class: c}
	case "class-update": // class-update NAME [revision=N] [controls of class]
		return fsm.UpdateClass{Class: d.class(d.word(1)), Revision: d.number("revision", 0)}
	case "class-delete":
		return fsm.DeleteClass{Name: d.word(1)}
	case "set-class": // set-class KEY CLASS [reason=TEXT]
		return fsm.SetKeyClass{Name: fsm.KeyName(d.word(1)), Class: d.word(2), Reason: d.option("reason", "")}
	case "update": // update KEY [label=NAME:VALUE,…] [remove=NAME,…] [description=T] [purpose=T] [owner=A] [link=KIND:TARGET] [unlink=…] [version=N] [activate=1h] [deactivate=1h|none] [revision=N] [never-exportable]
		return d.updateCommand()
	case "execute": // execute KIND SUBJECT [version=N] [in=1h] [revision=N] [generation=N]: without in and revision as it stands in the schedule
		return d.dueCommand()
	case "export": // export KEY [version=1] [form=F] [to=LABEL] [id=LABEL]
		c := fsm.ExportKey{
			Name: fsm.KeyName(d.word(1)), ID: fsm.KeyID(uuid(d.option("id", d.word(1)))), Version: fsm.Version(d.number("version", 1)),
			Form: d.option("form", "ecdh"),
		}
		if to := d.option("to", "bank"); to != "" {
			c.Recipient = [32]byte(digest(to))
		}
		return c
	case "budget": // budget KEY [operations=N] [bytes=N] [per=1h] [exact]
		return fsm.SetBudget{Name: fsm.KeyName(d.word(1)), Limit: fsm.UseLimit{
			Amount: fsm.Amount{Operations: d.number("operations", 0), Bytes: d.number("bytes", 0)}, Per: d.duration("per", "0s"), Exact: d.has("exact"),
		}}
	case "raise": // raise LEVEL
		d.options["level"] = d.word(1)
		level := uint32(d.number("level", 0))
		return fsm.RaiseFeatureLevel{Level: level, Nodes: d.levels(level)}
	case "erased": // erased NODE KEY [version=N] [kind=state] [boot=B]
		k, _ := d.m.State().Key(fsm.KeyName(d.word(2)))
		return fsm.RecordErasure{
			Node: fsm.NodeID(d.word(1)), Boot: d.option("boot", "boot-1"), Erasure: fsm.Erasure(d.option("kind", "state")),
			Erased: []fsm.ErasedVersion{{Key: k.ID, Version: fsm.Version(d.number("version", 1))}},
		}
	default:
		return nil
	}
}

// class is a class with the options applied:
// [hardware] [software] [algorithms=a,b] [export] [no-export] [originator=8760h] [recipient=…] [rotate=…] [uses=N] [budget=N/24h] [wait=…]
// [approvals=OP:N:GROUP+GROUP,…] [mfa] [no-mfa] [lease=L] [log=durable] [exact] [suspended] [about=TEXT]
func (d *dialect) class(of string) fsm.Class {
	c, _ := d.m.State().Class(of)
	c.Name = of
	c.HardwareOnly = (c.HardwareOnly || d.has("hardware")) && !d.has("software")
	c.Export = (c.Export || d.has("export")) && !d.has("no-export")
	c.MFA = (c.MFA || d.has("mfa")) && !d.has("no-mfa")
	c.Exact = c.Exact || d.has("exact")
	c.DecryptWhileSuspended = c.DecryptWhileSuspended || d.has("suspended")
	if _, ok := d.options["algorithms"]; ok {
		c.Algorithms = d.list("algorithms", "")
	}
	c.OriginatorPeriod = d.duration("originator", c.OriginatorPeriod.String())
	c.RecipientPeriod = d.duration("recipient", c.RecipientPeriod.String())
	c.RotateEvery = d.duration("rotate", c.RotateEvery.String())
	c.MinDestroyWait = d.duration("wait", c.MinDestroyWait.String())
	c.RotateUses = d.number("uses", c.RotateUses)
	c.Lease = fsm.LeaseMode(d.option("lease", string(c.Lease)))
	if c.LeaseDuration = 0; c.Lease == fsm.LeaseAvailable {
		c.LeaseDuration = fsm.AvailableLease
	}
	c.UsageLog = fsm.UsageLog(d.option("log", string(c.UsageLog)))
	c.Description = d.option("about", "")
	if _, ok := d.options["budget"]; ok {
		n, period, _ := strings.Cut(d.options["budget"], "/")
		d.options["budget-n"], d.options["budget-period"] = n, period
		c.Budget = fsm.Budget{Operations: d.number("budget-n", 0), Period: d.duration("budget-period", "")}
	}
	if _, ok := d.options["approvals"]; ok {
		c.Approvals = d.approvals()
	}
	return c
}

func (d *dialect) approvals() []fsm.Approval {
	var all []fsm.Approval
	for _, text := range d.list("approvals", "") {
		parts := append(strings.Split(text, ":"), "", "")
		d.options["quorum"] = parts[1]
		a := fsm.Approval{Operation: parts[0], Quorum: uint32(d.number("quorum", 0))}
		if parts[2] != "" {
			a.Groups = strings.Split(parts[2], "+")
		}
		all = append(all, a)
	}
	return all
}

func (d *dialect) links(option string) []fsm.Link {
	var all []fsm.Link
	for _, text := range d.list(option, "") {
		kind, target, _ := strings.Cut(text, ":")
		all = append(all, fsm.Link{Kind: fsm.LinkKind(kind), Target: target})
	}
	return all
}

func (d *dialect) updateCommand() fsm.Command {
	c := fsm.UpdateKey{
		Name: fsm.KeyName(d.word(1)), Revision: d.number("revision", 0), RemoveLabels: d.list("remove", ""), AddLinks: d.links("link"),
		RemoveLinks: d.links("unlink"), Version: fsm.Version(d.number("version", 0)), NeverExportable: d.has("never-exportable"),
	}
	for _, text := range d.list("label", "") {
		name, value, _ := strings.Cut(text, ":")
		c.SetLabels = append(c.SetLabels, fsm.Label{Name: name, Value: strings.ReplaceAll(value, "+", ",")})
	}
	text := func(option string) *string {
		if v, ok := d.options[option]; ok {
			return &v
		}
		return nil
	}
	c.Description, c.Purpose, c.Owner = text("description"), text("purpose"), (*fsm.Actor)(text("owner"))
	if _, ok := d.options["activate"]; ok {
		at := d.moment("activate")
		c.ActivateAt = &at
	}
	if _, ok := d.options["deactivate"]; ok {
		at := d.moment("deactivate")
		c.DeactivateAt = &at
	}
	return c
}

// dueCommand proposes what the schedule has for the kind and the subject, whenever it is due.
func (d *dialect) dueCommand() fsm.Command {
	s := d.m.State()
	want := fsm.Due{Subject: d.word(2), Version: fsm.Version(d.number("version", 1))}
	for k := fsm.DueRotate; k <= fsm.DueCeremony; k++ {
		if k.String() == d.word(1) {
			want.Kind = k
		}
	}
	if c, ok := s.LatestCeremony(fsm.Purpose(want.Subject)); ok && want.Kind == fsm.DueCeremony {
		want.Subject = string(c.ID)
	}
	if want.Kind == fsm.DueToken {
		want.Subject = uuid("token " + want.Subject)
	}
	if want.Kind >= fsm.DueToken {
		want.Version = 0
	}
	for _, due := range s.Due(d.clock.Add(fsm.MaxPeriod), 1000, nil) {
		if due.Kind == want.Kind && due.Subject == want.Subject && due.Version == want.Version {
			want = due
		}
	}
	if _, ok := d.options["in"]; ok {
		want.At = d.moment("in")
	}
	want.Revision = d.number("revision", want.Revision)
	c := fsm.ExecuteDue{Due: want}
	if want.Kind == fsm.DueRotate {
		c.Material = material(uint32(d.number("generation", 1)))
	}
	return c
}

func (d *dialect) showLifecycle(verb string, s *fsm.State) string {
	var out strings.Builder
	switch verb {
	case "classes":
		for _, c := range s.AllClasses() {
			fmt.Fprintf(&out, "%s built-in=%t keys=%d\n", c.Name, c.BuiltIn(), s.KeysOf(c.Name))
		}
	case "due": // due [in=1h]: everything due by then
		for _, due := range s.Due(d.clock.Add(d.duration("in", "0s")), 1000, nil) {
			fmt.Fprintf(&out, "%s %s", due.At.Format("2006-01-02T15:04"), due.Kind)
			if due.Kind < fsm.DueToken {
				fmt.Fprintf(&out, " %s v%d", due.Subject, due.Version)
			}
			out.WriteString("\n")
		}
	case "class": // class NAME [controls]: what such a change would do; class NAME key=KEY: what moving the key there would do
		return d.showCheck(s)
	}
	if out.Len() == 0 {
		return "none\n"
	}
	return out.String()
}

func (d *dialect) showCheck(s *fsm.State) string {
	is, was := d.class(d.word(1)), fsm.Class{}
	key := fsm.KeyName(d.option("key", ""))
	if k, ok := s.Key(key); ok {
		was, _ = s.Class(k.Class)
	} else {
		was, _ = s.Class(d.word(1))
	}
	check := s.CheckClass(is, was, key, d.clock, int(d.number("limit", 100)))
	out := fmt.Sprintf("raised %v lowered %v more=%t\n", check.Raised, check.Lowered, check.More)
	for _, e := range check.Breaks {
		out += fmt.Sprintf("  breaks %s v%d: %s: %s\n", e.Key, e.Version, e.Control, e.Why)
	}
	for _, e := range check.Follows {
		out += fmt.Sprintf("  follows %s v%d: %s: %s\n", e.Key, e.Version, e.Control, e.Why)
	}
	return out
}

func showPlans(v fsm.KeyVersion) string {
	out := ""
	if d := v.Dates; d != nil {
		for _, p := range []struct {
			name string
			at   interface {
				IsZero() bool
				Format(string) string
			}
		}{{"activate", d.ActivateAt}, {"deactivate", d.DeactivateAt}, {"processing-ended", d.ProcessingEndedAt}, {"exported", d.ExportedAt}} {
			if !p.at.IsZero() {
				out += " " + p.name + "=" + p.at.Format("2006-01-02T15:04")
			}
		}
	}
	if d := v.Destruction; d != nil {
		out += fmt.Sprintf(" material=%t receipts=%d", v.Blob != nil || v.MAC != nil, len(d.Receipts))
	}
	return out
}
