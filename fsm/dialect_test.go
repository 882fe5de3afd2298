package fsm_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// dialect understands the lines of a dialogue: a verb, then words, then options name=value ("value" where it has spaces).
// Every command that goes to the machine takes these options too:
//
//	as=ROLE/NAME      the actor; administrator/alice if absent
//	request=LABEL     a request id that may be used again under its label; "none" for none; fresh if absent
//	hash=TEXT         the hash of the canonical request; that of the line without options request and hash if absent
//	stamp=none        the leader did not stamp it
type dialect struct {
	*stage
	requests map[string]fsm.RequestID
	words    []string
	options  map[string]string
	line     string
}

func newDialect(t testing.TB) *dialect {
	return &dialect{stage: newStage(t), requests: map[string]fsm.RequestID{}}
}

var (
	wordPattern = regexp.MustCompile(`[^\s"]*"[^"]*"|\S+`)
	hashPattern = regexp.MustCompile(`[0-9a-f]{56,}`)
)

// say plays one line and returns what is heard.
func (d *dialect) say(line string) string {
	d.words, d.options, d.line = nil, map[string]string{}, ""
	for _, word := range wordPattern.FindAllString(line, -1) {
		name, value, isOption := strings.Cut(word, "=")
		if !isOption {
			d.words = append(d.words, strings.Trim(word, `"`))
		} else {
			d.options[name] = strings.Trim(value, `"`)
		}
		if name != "request" && name != "hash" {
			d.line += word + " "
		}
	}
	if heard, ok := d.show(d.words[0]); ok {
		return heard
	}
	c := d.command(d.words[0])
	if c == nil {
		d.t.Fatalf("no verb %q", line)
	}
	return d.propose(c)
}

func (d *dialect) word(i int) string {
	if i < len(d.words) {
		return d.words[i]
	}
	return ""
}

func (d *dialect) option(name, otherwise string) string {
	if v, ok := d.options[name]; ok {
		return v
	}
	return otherwise
}

func (d *dialect) has(word string) bool { return slices.Contains(d.words[1:], word) }

func (d *dialect) list(name, otherwise string) []string {
	if v := d.option(name, otherwise); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func (d *dialect) number(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(d.option(name, fmt.Sprint(otherwise)), 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func (d *dialect) duration(name, otherwise string) time.Duration {
	v, err := time.ParseDuration(d.option(name, otherwise))
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

func (d *dialect) propose(c fsm.Command) string {
	e := fsm.Entry{Command: c, Actor: fsm.Actor("spiffe://demo/" + d.option("as", "administrator/alice")), RequestID: d.request()}
	e.RequestHash = [32]byte(digest(d.option("hash", d.line)))
	var heard strings.Builder
	var events []fsm.Event
	var r fsm.Result
	if d.option("stamp", "") == "none" {
		r, events = d.applyBytes(encode(d.t, e))
	} else {
		r, events = d.applyEntry(e)
	}
	heard.WriteString(showResult(r))
	for _, e := range events {
		heard.WriteString(showEvent(e))
	}
	return hashPattern.ReplaceAllStringFunc(heard.String(), func(h string) string { return h[:8] + "…" })
}

func (d *dialect) request() fsm.RequestID {
	label := d.option("request", "")
	switch {
	case label == "":
		return d.requestID()
	case label == "none":
		return ""
	case strings.Contains(label, "-"):
		return fsm.RequestID(label)
	}
	if d.requests[label] == "" {
		d.requests[label] = requestID(d.clock.Add(d.duration("ahead", "0s")), 1_000_000+len(d.requests))
	}
	return d.requests[label]
}

func showResult(r fsm.Result) string {
	out := fmt.Sprintf("%d %s", r.Index, r.Code)
	if r.Repeat {
		out += " repeated"
	}
	if r.Version != 0 {
		out += fmt.Sprintf(" version=%d", r.Version)
	}
	if r.Barrier != 0 {
		out += fmt.Sprintf(" barrier=%d", r.Barrier)
	}
	if r.Ceremony != "" {
		out += " ceremony=" + string(r.Ceremony[:8])
	}
	if r.Message != "" {
		out += ": " + r.Message
	}
	return out + "\n"
}

func showEvent(e fsm.Event) string {
	out := fmt.Sprintf("  %s %s", e.Action, e.Subject)
	if e.Version != 0 {
		out += fmt.Sprintf(" v%d", e.Version)
	}
	if e.From != "" || e.To != "" {
		out += fmt.Sprintf(" %s→%s", e.From, e.To)
	}
	if e.Reason != "" {
		out += fmt.Sprintf(" because %q", e.Reason)
	}
	if e.Detail != "" {
		out += " (" + e.Detail + ")"
	}
	return out + "\n"
}
