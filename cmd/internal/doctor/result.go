package doctor

import (
	"fmt"
	"strings"
)

// Status of a check.
type Status string

// The statuses, from good to bad. NotApplicable: there was nothing to look at, or no way to.
const (
	OK            Status = "ok"
	NotApplicable Status = "not applicable"
	Warn          Status = "warn"
	Fail          Status = "fail"
)

// Result of one check. Advice says what to do; it is empty where nothing is to be done.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice"`
}

func good(name, format string, args ...any) Result {
	return Result{Name: name, Status: OK, Found: fmt.Sprintf(format, args...)}
}

func absent(name, format string, args ...any) Result {
	return Result{Name: name, Status: NotApplicable, Found: fmt.Sprintf(format, args...)}
}

func warn(name, found, advice string) Result { return Result{name, Warn, found, advice} }

func fail(name, found, advice string) Result { return Result{name, Fail, found, advice} }

// Report of a checkup. OK: nothing failed; with Strict, nothing warned either.
type Report struct {
	OK      bool     `json:"ok"`
	Strict  bool     `json:"strict"`
	Node    string   `json:"node"`
	Config  string   `json:"config"`
	Summary Summary  `json:"summary"`
	Checks  []Result `json:"checks"`
}

// Summary counts results by status.
type Summary struct {
	OK            int `json:"ok"`
	NotApplicable int `json:"not_applicable"`
	Warn          int `json:"warn"`
	Fail          int `json:"fail"`
}

func newReport(config, node string, strict bool, checks []Result) Report {
	r := Report{Strict: strict, Node: node, Config: config, Checks: checks}
	for _, c := range checks {
		switch c.Status {
		case OK:
			r.Summary.OK++
		case NotApplicable:
			r.Summary.NotApplicable++
		case Warn:
			r.Summary.Warn++
		case Fail:
			r.Summary.Fail++
		}
	}
	r.OK = r.Summary.Fail == 0 && (!strict || r.Summary.Warn == 0)
	return r
}

// err is why the program's exit code is not 0.
func (r Report) err() error {
	if r.OK {
		return nil
	}
	text := fmt.Sprintf("%d of %d checks failed", r.Summary.Fail, len(r.Checks))
	if r.Strict && r.Summary.Warn > 0 {
		text += fmt.Sprintf(", %d warned, and --strict wants none", r.Summary.Warn)
	}
	return fmt.Errorf("%s", text)
}

// marks are the statuses in the table, of one width.
var marks = map[Status]string{OK: "ok  ", NotApplicable: "-   ", Warn: "WARN", Fail: "FAIL"}

// text is the report for people: a line for each check, and below it what to do.
func (r Report) text() string {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s  %-*s  %s\n", marks[c.Status], width, c.Name, oneLine(c.Found))
		if c.Advice != "" {
			fmt.Fprintf(&b, "      %-*s  → %s\n", width, "", oneLine(c.Advice))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d warnings, %d failed, %d not applicable\n", r.Summary.OK, r.Summary.Warn, r.Summary.Fail, r.Summary.NotApplicable)
	return b.String()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
