package fsm_test

import (
	"fmt"
	"strings"

	"github.com/conclave-vault/conclave/fsm"
)

// show answers what asks or moves the stage, and proposes nothing.
func (d *dialect) show(verb string) (string, bool) {
	s := d.m.State()
	switch verb {
	case "wait": // wait DURATION
		d.options["d"] = d.word(1)
		d.clock = d.clock.Add(d.duration("d", ""))
		return d.clock.Format("15:04:05 on 2 January\n"), true
	case "cluster": // cluster [dev]: n1 to n3, genesis done by ada, bo and cy, 2 of 3
		*d.stage = *cluster(d.t, d.has("dev"))
		return "at index " + fmt.Sprint(d.index) + "\n", true
	case "key":
		k, ok := s.Key(fsm.KeyName(d.word(1)))
		if !ok {
			return "none\n", true
		}
		return showKey(k), true
	case "keys": // keys [prefix=P] [after=NAME] [limit=N]
		var out strings.Builder
		for _, k := range s.Keys(d.option("prefix", ""), fsm.KeyName(d.option("after", "")), int(d.number("limit", 0))) {
			fmt.Fprintln(&out, k.Name)
		}
		return out.String(), true
	case "classes", "due", "class":
		return d.showLifecycle(verb, s), true
	case "nodes":
		return showNodes(s), true
	case "barriers":
		var out strings.Builder
		for _, b := range s.PendingBarriers() {
			fmt.Fprintf(&out, "%d %s\n", b.Index, b.Subject)
		}
		return fmt.Sprintf("%slast restriction %d\n", out.String(), s.LastRestriction()), true
	case "certificates":
		var out strings.Builder
		for _, c := range s.Certificates("", 0) {
			fmt.Fprintf(&out, "%s %s/%s issued=%d revoked=%d %s\n", c.Serial, c.Role, c.Name, c.IssuedAt, c.RevokedAt, c.Reason)
		}
		return out.String(), true
	case "status":
		return showCluster(s), true
	case "ceremony": // ceremony [PURPOSE]
		c, ok := s.LatestCeremony(fsm.Purpose(d.word(1)))
		if !ok {
			return "none\n", true
		}
		return hashPattern.ReplaceAllStringFunc(showCeremony(c), func(h string) string { return h[:8] + "…" }), true
	default:
		return "", false
	}
}

func showKey(k fsm.Key) string {
	out := fmt.Sprintf("%s %s class=%s primary=%d barrier=%s", k.Name, k.Algorithm, k.Class, k.Primary, k.Barrier.State)
	if k.Barrier.State != fsm.BarrierNone {
		out += fmt.Sprintf("@%d", k.Barrier.Index)
	}
	if k.Users() != nil {
		out += " users=" + strings.Join(k.Users(), "+")
	}
	if k.NeverExportable {
		out += " never-exportable"
	}
	if m := k.Meta(); k.Metadata != nil {
		out += fmt.Sprintf("\n  %q for %q %v", m.Description, m.Purpose, m.Links)
	}
	for _, v := range k.Versions {
		out += fmt.Sprintf("\n  v%d %s", v.Version, v.State)
		if v.Imported {
			out += " imported"
		}
		if v.Exportable {
			out += " exportable"
		}
		if v.Reason != "" {
			out += fmt.Sprintf(" because %q", v.Reason)
		}
		if !v.CompromisedAt.IsZero() {
			out += " compromised=" + v.CompromisedAt.Format("01-02T15:04") + " occurred=" + v.OccurredAt.Format("01-02T15:04")
		}
		if !v.DestroyAt.IsZero() {
			out += " due=" + v.DestroyAt.Format("01-02T15:04") + " before=" + v.Before.String()
		}
		out += showPlans(v)
	}
	return out + "\n"
}

func showNodes(s *fsm.State) string {
	var out strings.Builder
	for _, n := range s.Nodes() {
		fmt.Fprintf(&out, "%s hardware=%t algorithms=%d unsealed=%d", n.ID, n.Device.HardwareSafe, len(n.Device.Algorithms), n.UnsealedAt)
		if standing := s.Standing(n); standing != fsm.StandingServing {
			fmt.Fprintf(&out, " %s", standing)
		}
		out.WriteString("\n")
	}
	return out.String()
}

func showCluster(s *fsm.State) string {
	c := s.Cluster()
	r, _ := s.Roster()
	return fmt.Sprintf("cluster=%s dev=%t generation=%d sealed_at=%d roster=%d (%d custodians, %d nodes, %d signatures) time=%s\n",
		c.ID, c.Dev, c.MasterGeneration, c.SealedAt, r.Version, len(r.Custodians), len(r.Nodes), len(r.Signatures), s.Time().Format("15:04:05"))
}

func showCeremony(c fsm.Ceremony) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s", c.Purpose, c.Phase)
	if c.Reason != "" {
		fmt.Fprintf(&out, " because %q", c.Reason)
	}
	out.WriteString("\n")
	for _, s := range c.Steps {
		fmt.Fprintf(&out, "  %d %s: %s %s\n", s.Index, s.Who, s.Action, s.Detail)
	}
	for _, v := range c.Verdicts {
		fmt.Fprintf(&out, "  share of %s at %s accepted=%t %s\n", v.Custodian, v.Node, v.Accepted, v.Reason)
	}
	if len(c.Unsealed) > 0 {
		fmt.Fprintf(&out, "  unsealed %v\n", c.Unsealed)
	}
	return out.String()
}
