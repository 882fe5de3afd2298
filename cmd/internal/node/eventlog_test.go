package node

import (
	"github.com/conclave-vault/conclave/fsm"
)

// events reads the lifecycle log as a node's own disk has it.
func (w *world) events(p *process, match func(fsm.Event) bool) []fsm.Event {
	w.t.Helper()
	var found []fsm.Event
	for token := ""; ; {
		page, err := p.vault.Events(w.ctx(), w.admin, "", token, 1000)
		w.must(err)
		for _, e := range page.Events {
			if match(e) {
				found = append(found, e)
			}
		}
		if token = page.Next; token == "" {
			return found
		}
	}
}

// logged are the events of one action on one subject.
func (w *world) logged(p *process, action, subject string) []fsm.Event {
	w.t.Helper()
	return w.events(p, func(e fsm.Event) bool { return e.Action == action && (subject == "" || e.Subject == subject) })
}
