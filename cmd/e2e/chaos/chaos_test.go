package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCampaign runs a short one: everything in it is real, only shorter. It must find nothing, and must have looked.
func TestCampaign(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "conclave")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/conclave-vault/conclave/cmd/conclave").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	least := amount{faults: 3, judged: 100, states: 50, reads: 1, restrictions: 25}
	r := run(t.Context(), settings{binary: binary, dir: filepath.Join(dir, "run"), nodes: 3, length: 12 * time.Second, least: least, calm: 20, seed: 1})
	var out strings.Builder
	r.print(&out)
	t.Log("\n" + out.String())
	if r.failed() || !strings.HasSuffix(out.String(), "\nviolations: 0\nacknowledged writes lost: 0\n") {
		t.Error("the campaign failed")
	}
	looked := r.h.amount()
	looked.judged, looked.states = r.order.judged, r.states
	if !looked.reaches(least) {
		t.Errorf("it looked at too little: %s", looked)
	}
}

// TestTooLittle: a campaign goes on while anything is missing, and says what when the overtime is over.
func TestTooLittle(t *testing.T) {
	h := newHistory()
	f := &faults{h: h, l: newLoad(nil, h, 1)}
	least := amount{faults: 1, judged: 1, states: 1, reads: 1, restrictions: 1}
	now, late := time.Now(), time.Now().Add(-overtime-time.Second)
	goesOn := func(end time.Time, want bool) error {
		t.Helper()
		on, err := f.goesOn(least, end)
		if on != want {
			t.Errorf("goes on: %t (%v)", on, err)
		}
		return err
	}
	const sec = time.Second
	goesOn(now, true)
	goesOn(late, true) // more faults may be asked for than the overtime covers
	h.faults["kill"]++
	if err := goesOn(late, false); err == nil || !strings.Contains(err.Error(), "1 faults, 0 judged, 0 states, 0 reads, 0 restrictions; wanted are 1 faults, 1 judged") {
		t.Error(err)
	}
	lift := h.restricted(restriction{subject: "k", acked: 0})
	h.used(use{node: "n1", subject: "k", start: sec, end: 2 * sec})
	f.l.acknowledged("k", "suspended")
	h.staleReads++
	goesOn(now, true) // the restriction has not ended: what is judged may change
	lift()
	h.restrictions[0].lifted = 3 * sec
	if err := goesOn(late, false); err != nil {
		t.Error(err)
	}
}

// TestAFailureIsShown: what was found is printed, and the last two lines say how much.
func TestAFailureIsShown(t *testing.T) {
	r := &result{h: newHistory(), violations: []string{"m1 signed"}, lost: []string{"a", "b"}}
	var out strings.Builder
	r.print(&out)
	if !r.failed() || !strings.HasSuffix(out.String(), "\nviolations: 1\nacknowledged writes lost: 2\n") || !strings.Contains(out.String(), "violation: m1 signed\n") {
		t.Error(out.String())
	}
}

// TestFailoversOfKills: a kill that no write followed is in the figures, as long as it was watched, and shown as such. What comes after the
// next fault began, or the clients ended, is not its doing.
func TestFailoversOfKills(t *testing.T) {
	h := newHistory()
	h.kills = []kill{{node: "m1", leader: true, at: 10 * sec, back: 12 * sec}, {node: "m1", leader: true, at: 20 * sec, back: 22 * sec}, {node: "m2", leader: true, at: 40 * sec, back: 42 * sec}}
	for at := 11 * sec; at < 50*sec; at += sec / 10 {
		if at < 20*sec || at > 41*sec && at < 44*sec {
			h.writes = append(h.writes, write{acked: at})
		}
	}
	h.starts = []time.Duration{10 * sec, 20 * sec, 40 * sec, 44 * sec} // the last one is the clients' end
	var out strings.Builder
	(&result{h: h}).failovers(&printer{out: &out})
	want := "leader killed 3 times: writes again after p50 1.1s, p99 10s, max 10s (target: p50 ≤ 1.5s, p99 ≤ 3s); not again within what was watched, and counted as that: 1\n"
	if !strings.HasPrefix(out.String(), want) {
		t.Error(out.String())
	}
}

// TestTheLoadsEnd: it counts as the beginning of something else.
func TestTheLoadsEnd(t *testing.T) {
	h := newHistory()
	if err := newLoad(nil, h, 1).end(); err != nil || len(h.starts) != 1 {
		t.Error(h.starts, err)
	}
}

// TestSettings: what makes no campaign is refused before anything is started.
func TestSettings(t *testing.T) {
	good := settings{binary: "b", dir: "d", nodes: 3}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*settings){
		"no program": func(s *settings) { s.binary = "" }, "no folder": func(s *settings) { s.dir = "" }, "two nodes": func(s *settings) { s.nodes = 2 },
		"too many nodes": func(s *settings) { s.nodes = 8 }, "a negative length": func(s *settings) { s.length = -1 }, "no such fault": func(s *settings) { s.only = "rain" },
	} {
		s := good
		if change(&s); s.validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
