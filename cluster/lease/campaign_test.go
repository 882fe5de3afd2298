package lease

import (
	"os"
	"testing"
	"time"
)

// seeds of one size: 10 virtual minutes each, a fifth of a second in real time, eight times that under the race detector.
func seeds() uint64 {
	if os.Getenv("CONCLAVE_LONG") != "" {
		return 1000
	}
	return 6
}

// TestNoValidLeaseBesideAnOldState is the promise, for the protocol alone, under everything that messages, clocks and crashes do.
func TestNoValidLeaseBesideAnOldState(t *testing.T) {
	for _, size := range []int{3, 5} {
		var acks, faults, grants, fences int
		for seed := range seeds() {
			m := newModel(t, size, seed, 0)
			m.campaign(10*time.Minute, nil)
			acks, faults, grants, fences = acks+m.acks, faults+m.faults, grants+m.grants, fences+m.fences
			if m.violations > 0 {
				t.Errorf("%d nodes, seed %d: %d violations", size, seed, m.violations)
			}
		}
		t.Logf("%d nodes: %d minutes, %d acknowledgements, %d faults, %d leases, %d fences", size, 10*seeds(), acks, faults, grants, fences)
		if acks < 1000 || faults < 1000 || grants < 10_000 || fences < 1000 {
			t.Error("too little happened for this to say anything")
		}
	}
}

// TestEveryRuleIsNeeded: each switched off alone breaks the promise. What breaks it rarely is in TestRareScenarios. keepsItsTerm is in
// neither: it cannot break it alone, because a renewal of a higher term is refused by the leader of the lower one, and only the
// outstanding renewal's grant is installed.
func TestEveryRuleIsNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		off   rules
		alter func(*model)
	}{
		"floor at installation":            {off: floorAtInstall},
		"drift margin":                     {off: driftMargin},
		"waiting for the unreachable":      {off: waitAfterElection},
		"the outstanding renewal":          {off: answersItsRenewal},
		"a report vouches for its process": {off: separateProcesses},
		"waiting for entries in the table": {off: waitForExpiry},
		"a fence is for one restriction":   {off: exactFence},
		"acknowledging after the commit":   {alter: func(m *model) { m.ack = func(*process, uint64) bool { return true } }},
		"the state machine's index":        {alter: func(m *model) { m.report = func(p *process) uint64 { return p.commit } }},
	} {
		t.Run(name, func(t *testing.T) {
			var virtual time.Duration
			for seed := range uint64(40) {
				m := newModel(t, 3+2*int(seed%2), seed, c.off)
				if c.alter != nil {
					c.alter(m)
				}
				m.campaign(10*time.Minute, func() bool { return m.violations > 0 })
				virtual += m.now
				if m.violations > 0 {
					t.Logf("caught after %s", virtual)
					return
				}
			}
			t.Errorf("not caught in %s", virtual)
		})
	}
}

// TestRareScenarios: rules whose absence is seldom met, each in the one course of events that needs it.
func TestRareScenarios(t *testing.T) {
	for name, c := range map[string]struct {
		off rules
		run func(*model)
	}{
		// A leader that was replaced without noticing goes on granting to itself.
		"quorum echo": {quorumEcho, func(m *model) {
			for _, id := range []int{1, 2} {
				m.cut[[2]int{0, id}], m.cut[[2]int{id, 0}] = true, true
			}
			m.nodes[1].elect()
			m.run(m.now+time.Second, nil)
			m.nodes[1].propose()
		}},
		// A second process on a copy of the storage speaks for the node to the next leader, while the first holds a lease of the last.
		"earlier processes": {earlierProcess, func(m *model) {
			m.double(2)
			m.nodes[1].elect()
			m.run(m.now+500*time.Millisecond, nil)
			m.nodes[1].propose()
		}},
		// The same, long after the second began, of which the leader before had never heard.
		"how long a process has run": {knownToServe, func(m *model) {
			m.double(2)
			m.nodes[2].paused = m.now + 20*time.Second
			m.run(m.nodes[2].paused, nil)
			m.nodes[1].elect()
			m.run(m.now+500*time.Millisecond, nil)
			m.nodes[1].propose()
		}},
		// The second is given leases, and nobody has it serve. Then the first, which serves, is back for a moment at a leader that has not
		// heard of the second.
		"who serves by the state": {incumbentOnly, func(m *model) {
			m.mute = true
			first := m.nodes[2]
			m.double(2)
			m.run(m.now+20*time.Second, nil)
			m.cut[[2]int{1, 2}], m.cut[[2]int{0, 2}] = true, true
			m.nodes[1].elect()
			m.run(m.now+10*time.Second, func() bool { return m.nodes[1].table != nil })
			first.hear(m.nodes[1].disk.term)
			first.renewWith(m.nodes[1], 0, 0)
			m.nodes[1].propose()
			m.run(m.now+200*time.Millisecond, nil)
			clear(m.cut)
		}},
		// A holder sleeps between asking and the answer.
		"counting from sending": {countFromSending, func(m *model) {
			p := m.nodes[2]
			m.run(m.now+m.between(0, time.Second), nil)
			p.renewWith(m.nodes[0], 0, time.Millisecond)
			m.run(m.now, nil)
			p.paused, p.frozen = m.now+1900*time.Millisecond, m.now+20*time.Second
			m.nodes[0].propose()
		}},
	} {
		for _, off := range []rules{0, c.off} {
			t.Run(name+map[bool]string{true: "", false: ", off"}[off == 0], func(t *testing.T) {
				m := newModel(t, 3, 7, off)
				m.calm = true
				m.nodes[0].elect()
				m.run(10*time.Second, nil)
				m.nodes[0].propose()
				m.run(20*time.Second, nil)
				before := m.acks
				c.run(m)
				m.run(m.now+20*time.Second, nil)
				if m.acks == before {
					t.Error("nothing was acknowledged")
				}
				if broken := m.violations > 0; broken != (off != 0) {
					t.Errorf("%d violations", m.violations)
				}
			})
		}
	}
}
