package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/usage"
)

// record is an entry of a node's usage log, and whether a later one withholds it.
type record struct {
	usage.Entry
	withheld bool
}

// readLog walks through one usage log. A log that does not verify is a finding, and what was read of it counts.
func readLog(dir string) (records []record, broken error) {
	at := map[uint64]int{}
	_, broken = usage.Walk(dir, func(e usage.Entry) error {
		switch {
		case e.Kind != usage.KindUse:
		case e.Outcome == usage.Withheld:
			if i, known := at[e.Of]; known && e.Of != 0 {
				records[i].withheld = true
			}
		default:
			at[e.Sequence] = len(records)
			records = append(records, record{Entry: e})
		}
		return nil
	})
	return records, broken
}

// readLogs reads the usage logs of a node: that of its present disk, and those of disks that it had before.
func readLogs(n *node) (records []record, broken []string) {
	before, err := filepath.Glob(filepath.Join(n.dir, "usage.*"))
	if err != nil {
		broken = append(broken, err.Error())
	}
	for _, dir := range append(before, filepath.Join(n.dir, "data", "usage")) {
		found, err := readLog(dir)
		if err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", n.id, err))
		}
		records = append(records, found...)
	}
	return records, broken
}

// changed is an entry of the lifecycle log that says in what state something is from an index on.
type changed struct {
	index uint64
	state string
}

// lives are the states of key versions and of certificates over the log's indexes, each in order.
type lives map[string][]changed

func versionOf(key string, version uint32) string { return fmt.Sprintf("%s/%d", key, version) }

// add takes an event in, in the order of the log.
func (l lives) add(e *vaultpb.Event) {
	id := ""
	switch {
	case e.GetTo() == "":
		return
	case e.GetVersion() != 0:
		id = versionOf(e.GetSubjectId(), e.GetVersion())
	case e.GetAction() == "certificate.issue", e.GetAction() == "certificate.revoke":
		id = "serial/" + e.GetSubjectId()
	default:
		return
	}
	l[id] = append(l[id], changed{e.GetIndex(), e.GetTo()})
}

// at is the state under an index; empty if there is none yet.
func (l lives) at(id string, index uint64) string {
	all := l[id]
	next := sort.Search(len(all), func(i int) bool { return all[i].index > index })
	if next == 0 {
		return ""
	}
	return all[next-1].state
}

// livesOf reads the whole lifecycle log.
func livesOf(ctx context.Context, api *client.Client) (lives, error) {
	l := lives{}
	next := func(q *vaultpb.ListEventsRequest, token string) { q.PageToken = token }
	for page, err := range client.Pages(ctx, api.ListEvents, &vaultpb.ListEventsRequest{PageSize: 1000}, next) {
		if err != nil {
			return nil, fmt.Errorf("reading the lifecycle log: %w", err)
		}
		for _, e := range page.GetItems() {
			l.add(e)
		}
	}
	return l, nil
}

// logged is what the nodes' usage logs say, held against what clients saw and against the lifecycle log.
type logged struct {
	records    int // of results, let go or withheld
	withheld   int
	matched    int // signatures that a client received, and their records
	unanswered int // let go, as far as the log knows, and no client had an answer
	lost       int // signatures with buffered keys whose records went with a process that was killed
	received   int // signatures that clients received: each is looked for
	violations []string
}

// flushed is longer than a record stays in a node's memory alone, with a disk that others use, too.
const flushed = 5 * time.Second

// judgeLogs finds the record of every signature that a client received, and sets its time: the decision came after it. It demands
//
//   - that each such signature has a record on the node that gave it, and none that withholds it; only with a key whose records are buffered
//     it may be missing, and only if the node was killed soon after;
//   - that every record rests on a state, by its index in the lifecycle log, that allows it: the version active, the certificate valid;
//   - and that the state that the answer names allows it, too, which is the one that decided.
//
// So what no client saw is judged as well. Times are the nodes' wall clocks, which are this machine's; skew is how far that went from this
// process's clock, and is given to the nodes.
func judgeLogs(logs map[string][]record, uses []use, kills []kill, l lives, durable func(subject string) bool, began time.Time, skew time.Duration) (v logged) {
	of := v.index(logs, l)
	answered := map[*record]bool{}
	for i := range uses {
		u := &uses[i]
		if !u.signed {
			continue
		}
		v.received++
		r := of[u.node+" "+u.id]
		switch {
		case r != nil && r.withheld:
			v.violations = append(v.violations, fmt.Sprintf("%s signed for %s (%s) what its usage log says it withheld", u.node, u.subject, u.id))
		case r != nil:
			v.matched++
			answered[r] = true
			u.recorded = max(0, r.Time.Sub(began.Round(0))-skew)
			v.allowed(u.node, "its answer", r, u.index, l)
		case durable(u.subject) || !killedAfter(kills, *u):
			v.violations = append(v.violations, fmt.Sprintf("%s signed for %s at %s (%s), and its usage log does not have it", u.node, u.subject, ms(u.end), u.id))
		default:
			v.lost++
		}
	}
	for _, r := range of {
		if !r.withheld && !answered[r] {
			v.unanswered++
		}
	}
	slices.Sort(v.violations) // the map has no order
	return v
}

// index counts all records and looks at what each rests on; those that a client named are found by node and name.
func (v *logged) index(logs map[string][]record, l lives) map[string]*record {
	of := map[string]*record{}
	for node, records := range logs {
		for i := range records {
			r := &records[i]
			v.records++
			if r.withheld {
				v.withheld++
			} else {
				v.allowed(node, "its record", r, r.Index, l)
			}
			if r.RequestID != "" {
				of[node+" "+r.RequestID] = r
			}
		}
	}
	return of
}

// allowed looks at what a record rests on.
func (v *logged) allowed(node, what string, r *record, index uint64, l lives) {
	state, serial := l.at(versionOf(r.KeyID, r.Version), index), l.at("serial/"+r.Serial, index)
	if state != "active" || serial != "valid" {
		v.violations = append(v.violations, fmt.Sprintf("%s used version %d of %s for %s (record %d, %s): %s rests on index %d, where the version is %s and the certificate %s",
			node, r.Version, r.KeyID, r.Name, r.Sequence, r.RequestID, what, index, cmp.Or(state, "unknown"), cmp.Or(serial, "unknown")))
	}
}

// killedAfter reports that the node was killed so soon after a use that its record may not have been on the disk.
func killedAfter(kills []kill, u use) bool {
	return slices.ContainsFunc(kills, func(k kill) bool { return k.node == u.node && u.start <= k.gone && k.at-u.end < flushed })
}

// lookAtLogs reads all usage logs and judges them; skew as for judgeLogs. The nodes have ended.
func (c *cluster) lookAtLogs(h *history, l lives) (v logged) {
	logs := map[string][]record{}
	var broken []string
	for _, n := range c.nodes {
		records, bad := readLogs(n)
		logs[n.id], broken = records, append(broken, bad...)
	}
	v = judgeLogs(logs, h.uses, h.kills, l, durable, h.began, h.skew())
	v.violations = append(broken, v.violations...)
	return v
}
