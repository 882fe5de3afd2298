package main

import (
	"testing"
	"time"
)

const sec = time.Second

// TestJudge has one history after another in which the order is certain, or just not.
func TestJudge(t *testing.T) {
	suspended := restriction{subject: "k", sent: 9 * sec, acked: 10 * sec, lifted: 20 * sec}
	later := restriction{subject: "k", sent: 29 * sec, acked: 30 * sec, lifted: 40 * sec}
	forever := restriction{subject: "k", sent: 9 * sec, acked: 10 * sec}
	stopped := []span{{node: "m1", from: 5 * sec, to: 15 * sec}}
	for name, test := range map[string]struct {
		use          use
		restrictions []restriction
		pauses       []span
		want         verdict // of violations only the number
	}{
		"before":                                  {use: use{start: 1 * sec, end: 2 * sec, signed: true}},
		"asked before, answered after":            {use: use{start: 9 * sec, end: 11 * sec, signed: true}, want: verdict{ambiguous: 1}},
		"asked before, recorded after":            {use: use{start: 9 * sec, recorded: 10500 * time.Millisecond, end: 11 * sec, signed: true}, want: verdict{judged: 1, violations: []string{""}}},
		"asked and recorded before":               {use: use{start: 8 * sec, recorded: 9 * sec, end: 11 * sec, signed: true}, want: verdict{ambiguous: 1}},
		"refused before, answered after":          {use: use{start: 9 * sec, end: 11 * sec}},
		"within":                                  {use: use{start: 11 * sec, end: 12 * sec, signed: true}, want: verdict{judged: 1, violations: []string{""}}},
		"within, and refused":                     {use: use{start: 11 * sec, end: 12 * sec}, want: verdict{judged: 1}},
		"asked within, answered when lifted":      {use: use{start: 11 * sec, end: 21 * sec, signed: true}},
		"after it was lifted":                     {use: use{start: 21 * sec, end: 22 * sec, signed: true}},
		"within the next":                         {use: use{start: 31 * sec, end: 32 * sec, signed: true}, restrictions: []restriction{suspended, later}, want: verdict{judged: 1, violations: []string{""}}},
		"between two":                             {use: use{start: 21 * sec, end: 29 * sec, signed: true}, restrictions: []restriction{suspended, later}},
		"over both":                               {use: use{start: 9 * sec, end: 35 * sec, signed: true}, restrictions: []restriction{suspended, later}, want: verdict{ambiguous: 2}},
		"never lifted":                            {use: use{start: 11 * sec, end: 99 * sec, signed: true}, restrictions: []restriction{forever}, want: verdict{judged: 1, violations: []string{""}}},
		"another key":                             {use: use{subject: "other", start: 11 * sec, end: 12 * sec, signed: true}},
		"asked before, of a stopped process":      {use: use{start: 6 * sec, end: 16 * sec, signed: true}, pauses: stopped, want: verdict{judged: 1, violations: []string{""}}},
		"asked before the process was stopped":    {use: use{start: 4 * sec, end: 16 * sec, signed: true}, pauses: stopped, want: verdict{ambiguous: 1}},
		"refused by a process that was stopped":   {use: use{start: 6 * sec, end: 16 * sec}, pauses: stopped, want: verdict{judged: 1}},
		"asked of another process":                {use: use{node: "m2", start: 6 * sec, end: 16 * sec, signed: true}, pauses: stopped, want: verdict{ambiguous: 1}},
		"of a stopped process, when it is lifted": {use: use{start: 6 * sec, end: 21 * sec, signed: true}, pauses: stopped, want: verdict{ambiguous: 1}},
	} {
		if test.use.subject == "" {
			test.use.subject = "k"
		}
		if test.use.node == "" {
			test.use.node = "m1"
		}
		if test.restrictions == nil {
			test.restrictions = []restriction{suspended}
		}
		got := judge([]use{test.use}, test.restrictions, test.pauses)
		if got.judged != test.want.judged || got.ambiguous != test.want.ambiguous || len(got.violations) != len(test.want.violations) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOwe(t *testing.T) {
	pauses := []span{{node: "m1", from: 10 * sec, to: 20 * sec}}
	r := []restriction{{subject: slow, sent: 11 * sec, acked: 15 * sec, lifted: 30 * sec}}
	at := func(signed bool, start, end time.Duration) use {
		return use{node: "m1", subject: slow, start: start * sec, end: end * sec, signed: signed}
	}
	faithful := []use{at(true, 1, 2), at(true, 12, 21), at(true, 31, 32), at(true, 9, 31)} // none of them was at work
	for range fewestOwed {
		faithful = append(faithful, at(false, 9, 21))
	}
	if o := owe(faithful, r, pauses); o.answered != fewestOwed || o.signed != 0 || len(o.violations()) != 0 {
		t.Errorf("%+v: %v", o, o.violations())
	}
	for i := range fewestOwed * mostOwed / 100 {
		faithful[len(faithful)-1-i].signed = true
	}
	if o := owe(faithful, r, pauses); len(o.violations()) != 1 {
		t.Errorf("%+v: %v", o, o.violations())
	}
	if o := owe(faithful[:fewestOwed], r, pauses); len(o.violations()) != 0 {
		t.Errorf("of so few nothing is concluded: %+v", o)
	}
}

func TestFigures(t *testing.T) {
	if p := percentile([]time.Duration{4, 1, 3, 2}, 50); p != 2 {
		t.Errorf("p50 is %d", p)
	}
	if p := percentile([]time.Duration{4, 1, 3, 2}, 99); p != 4 {
		t.Errorf("p99 is %d", p)
	}
	if p := percentile(nil, 99); p != 0 {
		t.Errorf("p99 of nothing is %d", p)
	}
	uses := []use{{node: "m1", subject: steady, end: 11 * sec, signed: true}, {node: "m1", subject: steady, end: 12 * sec}, {node: "m2", subject: steady, end: 13 * sec, signed: true}}
	if gap := signingGap(uses, "m1", steady, 10*sec, 15*sec); gap != 4*sec {
		t.Errorf("the gap is %s", gap)
	}
}

// TestWritesAgain: the longest stillness counts, the one up to the end of what is watched, too; of a kill that no write followed all of it.
func TestWritesAgain(t *testing.T) {
	for name, test := range map[string]struct {
		acks  []time.Duration
		want  time.Duration
		again bool
	}{
		"after a stillness, one on its way before":  {[]time.Duration{1 * sec, 10*sec + sec/10, 12 * sec, 13 * sec, 14 * sec, 15 * sec}, 2 * sec, true},
		"only what was on its way":                  {[]time.Duration{10*sec + 5*time.Millisecond}, 5 * sec, false},
		"again, and then not until the end":         {[]time.Duration{11 * sec, 12 * sec}, 5 * sec, false},
		"only before and when nobody looks anymore": {[]time.Duration{1 * sec, 16 * sec}, 5 * sec, false},
		"never": {nil, 5 * sec, false},
	} {
		var writes []write
		for _, a := range test.acks {
			writes = append(writes, write{acked: a})
		}
		if end, again := writesAgain(writes, 10*sec, 15*sec); end != test.want || again != test.again {
			t.Errorf("%s: %s, %t", name, end, again)
		}
	}
}

// TestANodeOutOfService: what it signs with any key between the order's acknowledgement and its lifting is a violation; others' is not.
func TestANodeOutOfService(t *testing.T) {
	out := []restriction{{subject: nodeSubject("m2"), acked: 10 * sec, lifted: 20 * sec}}
	signed := func(node string, start, end time.Duration) use {
		return use{node: node, subject: steady, start: start * sec, end: end * sec, signed: true}
	}
	v := judge([]use{signed("m2", 8, 9), signed("m2", 9, 11), signed("m1", 12, 13), signed("m2", 19, 21), signed("m2", 21, 22)}, out, nil)
	if len(v.violations) != 0 {
		t.Errorf("%v", v.violations)
	}
	if v := judge([]use{signed("m2", 12, 13)}, out, nil); len(v.violations) != 1 {
		t.Errorf("%+v", v)
	}
}
