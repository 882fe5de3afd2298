package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/usage"
)

// played is a small campaign on paper: m1's usage log, on a disk, and what a client saw.
type played struct {
	t     *testing.T
	n     *node
	began time.Time
	uses  []use
	kills []kill
	lives lives
}

func play(t *testing.T) *played {
	p := &played{t: t, n: &node{id: "m1", dir: t.TempDir()}, began: time.Now(), lives: lives{}}
	for _, e := range []*vaultpb.Event{
		{Index: 2, Action: "certificate.issue", SubjectId: "s1", To: "valid"}, {Index: 5, Action: "key.create", SubjectId: "k", Version: 1, To: "pre-active"},
		{Index: 5, Action: "key.activate", SubjectId: "k", Version: 1, To: "active"}, {Index: 20, Action: "key.suspend", SubjectId: "k", Version: 1, To: "suspended"},
		{Index: 30, Action: "key.resume", SubjectId: "k", Version: 1, To: "active"}, {Index: 50, Action: "certificate.revoke", SubjectId: "s1", To: "revoked"},
		{Index: 51, Action: "node.drain", SubjectId: "m1"},
	} {
		p.lives.add(e)
	}
	return p
}

func (p *played) dir() string { return filepath.Join(p.n.dir, "data", "usage") }

// write makes a usage log with these entries.
func (p *played) write(dir string, entries ...usage.Entry) {
	p.t.Helper()
	l, err := usage.Open(usage.Config{Dir: dir, Node: "m1", Boot: "b", Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := l.Append(context.Background(), &e); err != nil {
			p.t.Fatal(err)
		}
	}
	ctx, end := context.WithCancel(context.Background())
	end()
	if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
		p.t.Fatal(err)
	}
}

// entry is a record of a signature under an index, so many seconds after the beginning.
func (p *played) entry(id string, index uint64, at int) usage.Entry {
	return usage.Entry{
		Time: p.began.Add(time.Duration(at) * sec), Index: index, KeyID: "k", Version: 1, Operation: "sign", Role: "user", Name: "u", Serial: "s1", RequestID: id, Outcome: usage.Done,
	}
}

// signed is what the client saw of it.
func (p *played) signed(id, subject string, index uint64) {
	p.uses = append(p.uses, use{node: "m1", subject: subject, id: id, start: sec, end: 100 * sec, signed: true, index: index})
}

func (p *played) judge() logged {
	p.t.Helper()
	records, broken := readLogs(p.n)
	v := judgeLogs(map[string][]record{"m1": records}, p.uses, p.kills, p.lives, durable, p.began, 0)
	v.violations = append(broken, v.violations...)
	return v
}

func (p *played) want(v logged, found ...string) {
	p.t.Helper()
	if len(v.violations) != len(found) {
		p.t.Fatalf("found %q, want %q", v.violations, found)
	}
	for i, text := range found {
		if !strings.Contains(v.violations[i], text) {
			p.t.Errorf("found %q, want %q", v.violations[i], text)
		}
	}
}

// TestLogsThatAgree: every signature has its record, on this disk or on one before, and gets its time from it.
func TestLogsThatAgree(t *testing.T) {
	p := play(t)
	p.write(filepath.Join(p.n.dir, "usage.1"), p.entry("a", 6, 40))
	p.write(p.dir(), p.entry("b", 31, 50), p.entry("nobody", 31, 60))
	p.signed("a", drill, 7)
	p.signed("b", steady, 32)
	v := p.judge()
	p.want(v)
	if v.records != 3 || v.received != 2 || v.matched != 2 || v.unanswered != 1 || v.withheld != 0 || p.uses[0].recorded != 40*sec || p.uses[1].recorded != 50*sec {
		t.Errorf("%+v, %+v", v, p.uses)
	}
}

// TestAMissingRecordIsFound: of a durable key always, of a buffered one unless the node was killed just after.
func TestAMissingRecordIsFound(t *testing.T) {
	p := play(t)
	p.write(p.dir(), p.entry("other", 6, 1))
	p.signed("a", drill, 6)
	p.signed("b", steady, 6)
	p.want(p.judge(), "does not have it", "does not have it")
	p.kills = []kill{{node: "m1", at: 101 * sec, gone: 102 * sec}}
	v := p.judge()
	p.want(v, "for "+drill)
	if v.lost != 1 {
		t.Errorf("%+v", v)
	}
	p.uses[1].start, p.uses[1].end = 101500*time.Millisecond, 101600*time.Millisecond // while the engine was at it
	p.want(p.judge(), "for "+drill)
	p.kills = []kill{{node: "m1", at: 200 * sec, gone: 200 * sec}, {node: "m2", at: 101 * sec, gone: 102 * sec}, {node: "m1", at: 90 * sec, gone: 91 * sec}}
	p.want(p.judge(), "does not have it", "does not have it")
}

// TestAPlantedHoleIsFound: a record taken out of the file, with the chain whole in front of it and behind it.
func TestAPlantedHoleIsFound(t *testing.T) {
	for name, harm := range map[string]func([]byte) []byte{
		"taken out": func(b []byte) []byte {
			at, end := bytes.Index(b, []byte("chaos-2")), bytes.Index(b, []byte("chaos-3"))
			return append(bytes.Clone(b[:at-100]), b[end-100:]...)
		},
		"edited": func(b []byte) []byte { return bytes.Replace(b, []byte("chaos-2"), []byte("chaos-9"), 1) },
	} {
		p := play(t)
		var entries []usage.Entry
		for i := 1; i <= 4; i++ {
			id := fmt.Sprintf("chaos-%d", i)
			entries = append(entries, p.entry(id, 6, 10*i))
			p.signed(id, drill, 6)
		}
		p.write(p.dir(), entries...)
		p.want(p.judge())
		path := filepath.Join(p.dir(), "00000000000000000000.seg")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, harm(content), 0o600); err != nil {
			t.Fatal(err)
		}
		v := p.judge()
		if len(v.violations) == 0 || !strings.Contains(v.violations[0], "usage log: record") {
			t.Errorf("%s: %q", name, v.violations)
		}
	}
}

// TestWhatTheStateForbidsIsFound, whether or not anybody had an answer.
func TestWhatTheStateForbidsIsFound(t *testing.T) {
	p := play(t)
	p.write(p.dir(), p.entry("suspended", 20, 1), p.entry("revoked", 50, 1), p.entry("early", 4, 1))
	p.want(p.judge(), "(record 2, suspended): its record rests on index 20, where the version is suspended", "the certificate revoked", "the version is unknown")
	p = play(t)
	p.write(p.dir(), p.entry("a", 6, 1))
	p.signed("a", drill, 25)
	p.want(p.judge(), "its answer rests on index 25, where the version is suspended")
}

// TestWhatIsWithheldMayRestOnAnything, but nobody may have it.
func TestWhatIsWithheldMayRestOnAnything(t *testing.T) {
	p := play(t)
	held := p.entry("a", 20, 1)
	held.Outcome, held.Of = usage.Withheld, 2 // the link and the start come first
	alone := p.entry("b", 21, 1)
	alone.Outcome = usage.Withheld
	p.write(p.dir(), p.entry("a", 20, 1), held, alone)
	v := p.judge()
	p.want(v)
	if v.withheld != 1 || v.unanswered != 0 {
		t.Errorf("%+v", v)
	}
	p.signed("a", drill, 31)
	p.want(p.judge(), "what its usage log says it withheld")
}
