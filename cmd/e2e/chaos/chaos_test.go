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
	s := settings{binary: binary, dir: filepath.Join(dir, "run"), nodes: 3, length: 12 * time.Second, faults: 3, calm: 20, seed: 1}
	r := run(t.Context(), s)
	var out strings.Builder
	r.print(&out)
	t.Log("\n" + out.String())
	if r.failed() || !strings.HasSuffix(out.String(), "\nviolations: 0\nacknowledged writes lost: 0\n") {
		t.Error("the campaign failed")
	}
	looked := r.h.amount([]*node{{id: "m1"}, {id: "m2"}, {id: "m3"}})
	looked.judged, looked.states = r.order.judged, r.states
	if missing := looked.lacks(s.least()); missing != nil {
		t.Errorf("it looked at too little: %v", missing)
	}
}

// TestTooLittle: a campaign goes on while anything is missing, and fails and says what when the overtime is over.
func TestTooLittle(t *testing.T) {
	h := newHistory()
	f := &faults{c: &cluster{nodes: []*node{{id: "m1"}, {id: "m2"}}}, h: h, l: newLoad(nil, h, 1)}
	least := amount{faults: 1, judged: 1, states: 1, reads: 1, restrictions: 1, signed: 1}
	now, late := time.Now(), time.Now().Add(-overtime-time.Second)
	goesOn := func(end time.Time, want bool) error {
		t.Helper()
		on, err := f.goesOn(least, end)
		if on != want {
			t.Errorf("goes on: %t (%v)", on, err)
		}
		return err
	}
	lacks := func(want string) {
		t.Helper()
		err := goesOn(late, false)
		r := &result{h: h, err: err}
		var out strings.Builder
		r.print(&out)
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) || !strings.Contains(out.String(), want+"\n") || !r.failed() ||
			!strings.HasSuffix(out.String(), "\nviolations: 0\nacknowledged writes lost: 0\n") {
			t.Error(err, out.String())
		}
	}
	goesOn(now, true)
	goesOn(late, true) // more faults may be asked for than the overtime covers
	h.faults["kill"]++
	h.restricted(restriction{subject: "k", during: "healthy"}) // measured before the first fault: says nothing of what followed
	h.restrictions[0].lifted = 1
	lacks("judged 0 of 1, states 0 of 1, reads 0 of 1, restrictions 0 of 1, signatures by m1 0 of 1")
	lift := h.restricted(restriction{subject: "k", acked: 0})
	h.used(use{node: "m1", subject: "k", start: sec, end: 2 * sec})
	h.used(use{node: "m1", subject: "other", start: sec, end: 2 * sec, signed: true})
	f.l.acknowledged("k", "suspended")
	h.staleReads++
	lacks("judged 0 of 1, signatures by m2 0 of 1") // the restriction has not ended: what is judged may change
	lift()
	h.restrictions[1].lifted = 3 * sec
	h.used(use{node: "m2", subject: "k", start: sec, end: 2 * sec})
	lacks("signatures by m2 0 of 1")
	h.used(use{node: "m2", subject: "other", start: sec, end: 2 * sec, signed: true})
	if err := goesOn(late, false); err != nil {
		t.Error(err)
	}
}

// TestLeast: every campaign must have looked at something of everything, and a longer one, or one of more faults, at more.
func TestLeast(t *testing.T) {
	for name, test := range map[string]struct {
		s    settings
		want int // times what one fault is worth
	}{
		"no length":          {settings{}, 1},
		"shorter than one":   {settings{length: 10 * time.Second}, 1},
		"three minutes":      {settings{length: 3 * time.Minute}, 12},
		"more than its time": {settings{length: 3 * time.Minute, faults: 500}, 500},
		"fewer":              {settings{length: 3 * time.Minute, faults: 1}, 12},
	} {
		a := test.s.least()
		if a.faults != test.want || min(a.judged, a.states, a.reads, a.restrictions, a.signed) < test.want || a.judged != test.want*(settings{}).least().judged {
			t.Errorf("%s: %+v", name, a)
		}
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
		"too many nodes": func(s *settings) { s.nodes = 8 }, "a negative length": func(s *settings) { s.length = -1 },
		"a negative number": func(s *settings) { s.faults = -1 }, "no such fault": func(s *settings) { s.only = "rain" },
	} {
		s := good
		if change(&s); s.validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
