package vault

import (
	"context"
	"slices"
	"strings"
	"unicode"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
)

// Device is what a token says of itself, as the state keeps it.
func Device(t hsm.Token) fsm.Device {
	info := t.Info()
	d := fsm.Device{HSM: line(info.Model, maxModel), Library: line(info.Library, maxDeviceText), HardwareSafe: info.HardwareSafe}
	for _, c := range t.Capabilities() {
		if c.Usable() {
			d.Algorithms = append(d.Algorithms, string(c.Algorithm))
		}
		if lacks := c.Lacks(); lacks != 0 {
			d.Lacks = append(d.Lacks, fsm.Lack{Algorithm: string(c.Algorithm), Why: line(c.Missing, maxDeviceText), Operations: lacks.Names()})
		}
		d.Capabilities = append(d.Capabilities, fsm.Capability{Algorithm: string(c.Algorithm), Operations: some(c.Can.Names())})
	}
	slices.Sort(d.Algorithms)
	slices.SortFunc(d.Lacks, func(a, b fsm.Lack) int { return strings.Compare(a.Algorithm, b.Algorithm) })
	slices.SortFunc(d.Capabilities, func(a, b fsm.Capability) int { return strings.Compare(a.Algorithm, b.Algorithm) })
	return d
}

// some makes nil of no names, as reading the state back does.
func some(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return names
}

// Limits of the state machine on a device's words, in bytes.
const (
	maxModel      = 128
	maxDeviceText = 512
)

// line makes one line of a device's words, which may be anything: the state takes neither control characters nor more than limit.
func line(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// reportSelf tells the cluster when this node is called at other addresses than the state says, or has another HSM release.
func (v *Vault) reportSelf(s *fsm.State) {
	n, member := s.Node(v.cfg.Node)
	if !member {
		return
	}
	var changes []fsm.Command
	if n.ClusterAddr != v.cfg.ClusterAddr || n.APIAddr != v.cfg.APIAddr {
		changes = append(changes, fsm.MoveNode{Node: v.cfg.Node, ClusterAddr: v.cfg.ClusterAddr, APIAddr: v.cfg.APIAddr})
	}
	if !n.Device.Equal(v.device) {
		changes = append(changes, fsm.DescribeDevice{Node: v.cfg.Node, Device: v.device})
	}
	if len(changes) == 0 {
		return
	}
	v.once(&v.describing, func(ctx context.Context) {
		for _, c := range changes {
			if _, err := v.report(ctx, c); err != nil && ctx.Err() == nil {
				v.log.Warn("the cluster does not know yet what changed about this node", "change", changeOf(c), "err", err)
			}
		}
	})
}

func changeOf(c fsm.Command) string {
	if _, moved := c.(fsm.MoveNode); moved {
		return "addresses"
	}
	return "hsm"
}
