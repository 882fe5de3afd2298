package cli

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// hostile are texts that some reader of YAML takes for something else.
var hostile = []string{
	"", "on", "Off", "y", "N", "yes", "NO", "true", "False", "null", "Null", "~", "1e3", "0x10", "0o17", "017", "1_000", "1:30", "190:20:30",
	".inf", "-.INF", ".nan", "nan", "+1", "-0", "2026-01-31", "2026-01-31T17:00:00Z", " leading", "trailing ", "\ttab", "a: b", "a #b", "#a", "- a",
	"? a", "! a", "&a", "*a", "|", ">", "%a", "@a", "`a`", "'a'", `"a"`, "{a}", "[a]", "a,b", "<<", "=", "---", "...", "a\n", "\na", "a\nb", " a\nb", "a\n b",
	"a\n\nb", "a \nb", "a\r\nb", "a\u2028b", "a\u0085b", "\ufeffa", "\x00", "\x1b[2J", "\u009b", "é", "日本", "\xff\xfe", "a:", ":a", "a\\n", "😀",
	"-----BEGIN PUBLIC KEY-----\nMCow+/=\n-----END PUBLIC KEY-----\n", strings.Repeat("word ", 100), strings.Repeat("line\n", 3),
}

func stays(t *testing.T, text string) {
	t.Helper()
	out, err := encodeYAML(object{{"before", 1}, {text, []any{text, object{{"in", text}}}}, {"after", text}})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	want := string([]rune(text))
	var doc yaml.Node
	if err := yaml.Unmarshal(out, &doc); err != nil {
		t.Fatalf("%q: %v\n%s", text, err, out)
	}
	top := doc.Content[0].Content
	list := top[3].Content
	for place, n := range map[string]*yaml.Node{"key": top[2], "item": list[0], "inner": list[1].Content[1], "value": top[5]} {
		if n.ShortTag() != "!!str" || n.Value != want {
			t.Errorf("%q as %s came back as %s %q:\n%s", want, place, n.ShortTag(), n.Value, out)
		}
	}
	// Other readers know fewer characters than ours: nothing but plain ones may stand there raw.
	if raw := regexp.MustCompile(`[\x00-\x09\x0b-\x1f\x7f\x{80}-\x{9f}\x{2028}\x{2029}\x{feff}]`).FindString(string(out)); raw != "" {
		t.Errorf("%q: the text holds %q raw:\n%s", text, raw, out)
	}
}

func TestTextsStayTexts(t *testing.T) {
	for _, text := range hostile {
		stays(t, text)
	}
}

func FuzzTextsStayTexts(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(stays)
}

// TestPlainWordsOfEveryYAML checks the quoting itself, since our reader is of YAML 1.2 and others are not.
func TestPlainWordsOfEveryYAML(t *testing.T) {
	for text, want := range map[string]string{
		"active": "active", "ecdsa-p256": "ecdsa-p256", "payments/eu": "payments/eu", "on": `"on"`, "Y": `"Y"`, "NO": `"NO"`, "1:30": `"1:30"`,
		"0x10": `"0x10"`, "2026-01-31": `"2026-01-31"`, "a b": `"a b"`, "": `""`,
	} {
		if out, err := encodeYAML(text); err != nil || string(out) != want+"\n" {
			t.Errorf("%q is written as %s (%v), want %s", text, out, err, want)
		}
	}
	pem := "-----BEGIN X-----\nMCow\n-----END X-----\n"
	if out, err := encodeYAML(object{{"pem", pem}}); err != nil || string(out) != "pem: |\n  -----BEGIN X-----\n  MCow\n  -----END X-----\n" {
		t.Errorf("PEM is written as\n%s%v", out, err)
	}
}

func TestNumbersKeepTheirDigits(t *testing.T) {
	for v, want := range map[any]string{
		uint64(math.MaxUint64): "18446744073709551615\n", int64(math.MinInt64): "-9223372036854775808\n", true: "true\n", nil: "null\n", 1.5: "1.5\n",
	} {
		if out, err := encodeYAML(v); err != nil || string(out) != want {
			t.Errorf("%v is written as %s (%v)", v, out, err)
		}
	}
	if out, err := encodeYAML(struct{}{}); err == nil {
		t.Errorf("what is no part of a document was written as %s", out)
	}
	if out, err := encodeYAML(object{{"a", []any{}}, {"b", object{}}}); err != nil || string(out) != "a: []\nb: {}\n" {
		t.Errorf("what is empty is written as %s (%v)", out, err)
	}
}
