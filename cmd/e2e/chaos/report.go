package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// result is what a campaign found.
type result struct {
	h          *history
	order      verdict
	owed       owed
	logged     logged
	violations []string // of the order, and everything else that must not be
	lost       []string
	states     int // acknowledged states that were looked for, on each node
	snapshots  int
	err        error
}

// maxShown bounds how many findings of a kind are printed.
const maxShown = 20

func (r *result) print(out io.Writer) {
	w := &printer{out: out}
	w.list("violation", r.violations)
	w.list("lost", r.lost)
	if r.err != nil {
		w.line("the campaign did not end well: %v", r.err)
	}
	r.counts(w)
	r.latencies(w)
	r.failovers(w)
	w.line("violations: %d", len(r.violations))
	w.line("acknowledged writes lost: %d", len(r.lost))
}

// failed says whether the program must exit 1.
func (r *result) failed() bool { return r.err != nil || len(r.violations)+len(r.lost) > 0 }

type printer struct{ out io.Writer }

func (p *printer) line(format string, args ...any) { _, _ = fmt.Fprintf(p.out, format+"\n", args...) }

func (p *printer) list(what string, all []string) {
	for _, text := range all[:min(len(all), maxShown)] {
		p.line("%s: %s", what, text)
	}
	if more := len(all) - maxShown; more > 0 {
		p.line("%s: … and %d more", what, more)
	}
}

func (r *result) counts(w *printer) {
	total, signed := 0, 0
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(r.h.faults)) {
		total += r.h.faults[name]
		kinds = append(kinds, fmt.Sprintf("%s %d", name, r.h.faults[name]))
	}
	for _, u := range r.h.uses {
		if u.signed {
			signed++
		}
	}
	w.line("faults: %d (%s)", total, strings.Join(kinds, ", "))
	w.line("snapshots on the disks at the end: %d", r.snapshots)
	w.line("operations checked: %d, of them signed %d; certainly after an acknowledgement %d (all must be refused)", len(r.h.uses), signed, r.order.judged)
	w.line("signatures asked for and recorded before an acknowledgement and received after it: %d (nobody can know when they were decided)", r.order.ambiguous)
	w.line("usage logs: %d records, %d of them withheld at the last check; of %d signatures received %d have theirs, %d buffered ones went with a killed process; records without an answer: %d",
		r.logged.records, r.logged.withheld, r.logged.received, r.logged.matched, r.logged.lost, r.logged.unanswered)
	w.line("requests that a node was at when it was paused, whose key was suspended before it went on: %d, signed %d", r.owed.answered, r.owed.signed)
	w.line("reads with a token of another node's write: %d, stale %d", r.h.staleReads, len(r.h.stale))
	w.line("acknowledgements: %d restrictions, %d keys created; %d states looked for on every node", len(r.h.restrictions), len(r.h.writes), r.states)
}

// latencies of restrictions, healthy and by fault.
func (r *result) latencies(w *printer) {
	by, late := map[string][]time.Duration{}, []restriction(nil)
	for _, x := range r.h.restrictions {
		if x.during != "" && x.during != "healthy" {
			by[x.during] = append(by[x.during], x.acked-x.sent)
		}
		if x.during == cutName && x.acked-x.sent > leaseWait {
			late = append(late, x)
		}
	}
	w.line("revoke acknowledged                    n      p50      p99      max  target")
	row := func(name string, all []time.Duration, target string) {
		w.line("  %-32s %5d %8s %8s %8s  %s", name, len(all), short(percentile(all, 50)), short(percentile(all, 99)), short(percentile(all, 100)), target)
	}
	row("healthy, no load", r.h.healthy, "p50 ≤ 10ms")
	row("healthy, under load", r.h.loaded, "")
	for _, name := range slices.Sorted(maps.Keys(by)) {
		target := ""
		if name == cutName {
			target = "max ≤ 3.7s, W(D)"
		}
		row(name, by[name], target)
	}
	for _, x := range late {
		w.line("  %s: %s, asked for at %s", cutName, short(x.acked-x.sent), r.h.began.Add(x.sent).UTC().Format(time.RFC3339Nano))
	}
}

// gapShown is from when on a time without signatures is called a gap: ten times what one and the other garbage collection, or the
// start of a process on a busy machine, may take.
const gapShown = 500 * time.Millisecond

// failovers after kills: when writes went on, and whether the other nodes went on signing.
func (r *result) failovers(w *printer) {
	var again []time.Duration
	still, watched, smooth, longest := 0, 0, 0, time.Duration(0)
	for _, k := range r.h.kills {
		if k.leader {
			took, went := writesAgain(r.h.writes, k.at, r.undisturbed(k.at))
			again = append(again, took)
			if !went {
				still++
			}
		}
		gap := r.gapAt(k)
		watched++
		if gap <= gapShown {
			smooth++
		}
		longest = max(longest, gap)
	}
	w.line("leader killed %d times: writes again after p50 %s, p99 %s, max %s (target: p50 ≤ 1.5s, p99 ≤ 3s); not again within what was watched, and counted as that: %d",
		len(again), short(percentile(again, 50)), short(percentile(again, 99)), short(percentile(again, 100)), still)
	if watched > 0 {
		w.line("kills without a gap over %s in signing on the other nodes: %d of %d, %.1f %% (target: ≥ 99 %%); longest gap %s",
			gapShown, smooth, watched, 100*float64(smooth)/float64(watched), short(longest))
	}
}

// undisturbed is until when what follows a fault is that fault's doing: ten seconds, or until the next one begins or the clients end.
func (r *result) undisturbed(at time.Duration) time.Duration {
	until := at + 10*time.Second
	for _, next := range r.h.starts {
		if next > at {
			until = min(until, next)
		}
	}
	return until
}

// gapAt is the longest gap on any other node from a kill until the killed node is back.
func (r *result) gapAt(k kill) time.Duration {
	nodes := map[string]bool{}
	for _, u := range r.h.uses {
		nodes[u.node] = true
	}
	delete(nodes, k.node)
	longest := time.Duration(0)
	for n := range nodes {
		longest = max(longest, signingGap(r.h.uses, n, steady, k.at, k.back))
	}
	return longest
}

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
