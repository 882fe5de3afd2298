package main

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// verdict is what the order of a history says.
type verdict struct {
	judged     int // requests whose order to some restriction's window is certain: in it, and so to be refused
	ambiguous  int // signatures that were asked for before an acknowledgement, and received after it: clients cannot know
	violations []string
}

// judge looks at every signature against every acknowledgement. A signature is forbidden if it was certainly decided after a
// restriction was acknowledged, and certainly before it was lifted:
//
//   - decided after its request was sent; and if the node's process was stopped then, after it went on; and after the time in the node's
//     own record of it, which is written, or at least stamped, before the last decision;
//   - decided before its answer came.
//
// What was asked for and recorded before the acknowledgement and answered after it may have been decided on either side. That is counted,
// and no violation.
func judge(uses []use, restrictions []restriction, pauses []span) verdict {
	windows := map[string][]restriction{}
	for _, r := range restrictions {
		windows[r.subject] = append(windows[r.subject], r)
	}
	var v verdict
	for _, u := range uses {
		decided := max(u.start, u.recorded)
		for _, p := range pauses {
			if p.node == u.node && p.from <= u.start && u.start < p.to {
				decided = max(decided, p.to)
			}
		}
		v.lookAt(windows[u.subject], u, decided)
		v.lookAt(windows[nodeSubject(u.node)], u, decided)
	}
	return v
}

// lookAt the restrictions of one subject. They follow one another, so those that may concern the use are neighbours.
func (v *verdict) lookAt(all []restriction, u use, decided time.Duration) {
	first := sort.Search(len(all), func(i int) bool { return all[i].lifted == 0 || all[i].lifted > u.start })
	for _, r := range all[first:] {
		if r.acked >= max(u.end, decided) {
			break
		}
		v.look(u, r, decided)
	}
}

// owed is about what paused nodes were at. A request that reached a node before it was stopped, was answered after it went on, and
// whose key was suspended in between, may have been decided before; but the moment between the decision and the last byte of the
// answer is short against the time in the HSM, so of many such requests few can have been.
type owed struct{ answered, signed int }

// Below fewestOwed nothing is concluded. Of a faithful node's, one in six is signed; of one that does not check again, more than
// half. From mostOwed per cent of forty on it is no chance.
const (
	fewestOwed = 40
	mostOwed   = 40
)

func (o owed) violations() []string {
	if o.answered < fewestOwed || 100*o.signed < mostOwed*o.answered {
		return nil
	}
	return []string{fmt.Sprintf("%d of %d requests that nodes were at when they were paused were signed when they went on, although their key had been suspended: "+
		"a decision before the HSM's work was not repeated after it", o.signed, o.answered)}
}

func owe(uses []use, restrictions []restriction, pauses []span) (o owed) {
	for _, p := range pauses {
		for _, r := range restrictions {
			if r.subject != slow || r.acked < p.from || r.acked > p.to {
				continue
			}
			for _, u := range uses {
				if u.node == p.node && u.subject == slow && u.start < p.from && u.end > p.to && (r.lifted == 0 || u.end < r.lifted) {
					o.answered++
					if u.signed {
						o.signed++
					}
				}
			}
		}
	}
	return o
}

func (v *verdict) look(u use, r restriction, decided time.Duration) {
	within := r.lifted == 0 || u.end < r.lifted
	switch {
	case r.acked < decided && within:
		v.judged++
		if u.signed {
			v.violations = append(v.violations, fmt.Sprintf(
				"%s signed for %s: asked at %s, decided after %s, answered at %s; the restriction was acknowledged at %s and lifted at %s (%s)",
				u.node, u.subject, ms(u.start), ms(decided), ms(u.end), ms(r.acked), ms(r.lifted), r.during))
		}
	case u.signed && u.start < r.acked && r.acked < u.end:
		v.ambiguous++
	}
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// percentile is the nearest rank; 0 of nothing.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// writesAgain is, for a kill, when the longest stillness of all writers together ended, from the kill on. Acknowledgements that
// were on their way when the node died do not count as an end. If the longest is the one that writes were watched to the end in, they did not
// go on: it took at least all that time.
func writesAgain(writes []write, at, until time.Duration) (took time.Duration, again bool) {
	var acks []time.Duration
	for _, w := range writes {
		if w.acked > at && w.acked <= until {
			acks = append(acks, w.acked)
		}
	}
	slices.Sort(acks)
	last, longest := at, time.Duration(0)
	for _, a := range acks {
		if a-last > longest {
			longest, took = a-last, a-at
		}
		last = a
	}
	if until-last >= longest {
		return until - at, false
	}
	return took, true
}

// signingGap is the longest time without a signature of a node with a subject, within a span.
func signingGap(uses []use, node, subject string, from, to time.Duration) time.Duration {
	var ends []time.Duration
	for _, u := range uses {
		if u.signed && u.node == node && u.subject == subject && u.end > from && u.end < to {
			ends = append(ends, u.end)
		}
	}
	slices.Sort(ends)
	last, longest := from, time.Duration(0)
	for _, e := range append(ends, to) {
		longest = max(longest, e-last)
		last = e
	}
	return longest
}
