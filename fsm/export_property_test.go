package fsm_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

// exportModel says by what was heard, and not by the machine's state, what may leave.
type exportModel struct {
	states map[fsm.Version]string
	born   map[fsm.Version]bool // made exportable
	never  bool
}

func (m *exportModel) hear(events []fsm.Event) {
	for _, e := range events {
		if e.Version != 0 && e.To != "" {
			m.states[e.Version] = e.To
		}
	}
}

// may is the design's row: by class in pre-active, active and deactivated, else never.
func (m *exportModel) may(v fsm.Version) bool {
	switch m.states[v] {
	case "pre-active", "active", "deactivated":
		return m.born[v] && !m.never
	}
	return false
}

// TestNothingElseIsExported: whatever happens to a key, an export is recorded exactly where the model permits it, and what a rotation brings is never more
// exportable than the key.
func TestNothingElseIsExported(t *testing.T) {
	actions := []fsm.KeyAction{fsm.ActionSuspend, fsm.ActionResume, fsm.ActionDeactivate, fsm.ActionCompromise, fsm.ActionDestroy, fsm.ActionCancelDestroy}
	rapid.Check(t, func(rt *rapid.T) {
		s := cluster(t, true).raised()
		id := fsm.KeyID(uuid("k"))
		m := &exportModel{states: map[fsm.Version]string{}, born: map[fsm.Version]bool{}}
		made := material(1)
		made.Exportable = rapid.IntRange(0, 3).Draw(rt, "born") != 0
		_, events := s.apply(fsm.CreateKey{ID: id, Name: "k", Algorithm: "ed25519", Material: made})
		m.hear(events)
		m.born[1] = made.Exportable
		last := fsm.Version(1)
		for range rapid.IntRange(1, 30).Draw(rt, "entries") {
			v := fsm.Version(rapid.IntRange(1, int(last)).Draw(rt, "version"))
			var c fsm.Command
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0:
				made := material(1)
				made.Exportable = rapid.Bool().Draw(rt, "exportable")
				r, events := s.apply(fsm.RotateKey{Name: "k", ID: id, Version: last + 1, Material: made})
				if may := m.born[last] && !m.never; r.Code == fsm.CodeOK && made.Exportable && !may {
					rt.Fatalf("version %d is exportable, and the key is not", last+1)
				}
				if r.Code == fsm.CodeOK {
					last++
					m.born[last] = made.Exportable
				}
				m.hear(events)
				continue
			case 1:
				if rapid.IntRange(0, 4).Draw(rt, "never") == 0 {
					if r, _ := s.apply(fsm.UpdateKey{Name: "k", NeverExportable: true}); r.Code == fsm.CodeOK {
						m.never = true
					}
					continue
				}
				s.clock = s.clock.Add(8 * 24 * time.Hour)
				for _, d := range s.m.State().Due(s.clock, 100, nil) {
					_, events := s.apply(fsm.ExecuteDue{Due: d, Material: material(1)})
					for _, e := range events {
						last = max(last, e.Version)
					}
					m.hear(events)
				}
				continue
			case 2, 3, 4:
				c = fsm.ChangeKey{Name: "k", Version: v, Action: rapid.SampledFrom(actions).Draw(rt, "action"), Reason: "r"}
			default:
				c = fsm.ExportKey{Name: "k", ID: id, Version: v, Form: "f", Recipient: [32]byte{1}}
			}
			r, events := s.apply(c)
			m.hear(events)
			if _, export := c.(fsm.ExportKey); export && (r.Code == fsm.CodeOK) != m.may(v) {
				rt.Fatalf("version %d is %s, exportable %t, never %t: %s", v, m.states[v], m.born[v], m.never, r.Code)
			}
		}
	})
}
