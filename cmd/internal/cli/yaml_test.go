package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"gopkg.in/yaml.v3"
)

// same [-shape] ARG… runs conclave twice, with -o json and -o yaml, and compares the two objects: names, order, types and values.
// -shape leaves the values of texts out, for results that are random. Exit codes must be equal too.
func same(ts *testscript.TestScript, neg bool, args []string) {
	shape := len(args) > 0 && args[0] == "-shape"
	if shape {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: same [-shape] ARG…")
	}
	var lines [2][]string
	var codes [2]string
	for i, format := range []string{"json", "yaml"} {
		err := ts.Exec("conclave", append(slices.Clone(args), "-o", format)...)
		codes[i] = fmt.Sprint(err)
		out := ts.ReadFile("stdout")
		var failed error
		if format == "json" {
			lines[i], failed = jsonLines(out, shape)
		} else {
			lines[i], failed = yamlLines(out, shape)
		}
		if failed != nil || len(lines[i]) == 0 {
			ts.Fatalf("-o %s: %v\n%s%s", format, failed, out, ts.ReadFile("stderr"))
		}
	}
	if diff := cmp.Diff(lines[0], lines[1]); diff != "" || codes[0] != codes[1] {
		ts.Fatalf("json (-) and yaml (+) differ, %s, %s:\n%s", codes[0], codes[1], diff)
	}
}

// jsonLines is a document as a flat list of what is where; numbers keep their digits.
func jsonLines(text string, shape bool) ([]string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var lines []string
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return lines, err
		}
		switch t := token.(type) {
		case json.Delim:
			if depth--; t == '{' || t == '[' {
				depth += 2
			}
			lines = append(lines, t.String())
		case string:
			lines = append(lines, textLine(t, shape))
		default:
			lines = append(lines, fmt.Sprintf("%T %v", token, token))
		}
		if depth == 0 {
			break
		}
	}
	if dec.More() {
		return nil, fmt.Errorf("more than one document")
	}
	return lines, nil
}

func textLine(text string, shape bool) string {
	if shape {
		return "text"
	}
	return fmt.Sprintf("text %q", text)
}

func yamlLines(text string, shape bool) ([]string, error) {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if dec.Decode(&more) == nil {
		return nil, fmt.Errorf("more than one document")
	}
	return nodeLines(doc.Content[0], shape)
}

func nodeLines(n *yaml.Node, shape bool) ([]string, error) {
	var lines []string
	open, end := "{", "}"
	switch n.Kind {
	case yaml.ScalarNode:
		return scalarLine(n, shape)
	case yaml.SequenceNode:
		open, end = "[", "]"
	case yaml.MappingNode:
	default:
		return nil, fmt.Errorf("a node of kind %d", n.Kind)
	}
	lines = append(lines, open)
	for _, c := range n.Content {
		inner, err := nodeLines(c, shape)
		if err != nil {
			return nil, err
		}
		lines = append(lines, inner...)
	}
	return append(lines, end), nil
}

// scalarLine decodes a scalar into whatever it says it is: a text that reads as something else shows.
func scalarLine(n *yaml.Node, shape bool) ([]string, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case string:
		return []string{textLine(v, shape)}, nil
	case int, int64, uint64:
		return []string{fmt.Sprintf("json.Number %v", v)}, nil
	}
	return []string{fmt.Sprintf("%T %v", v, v)}, nil
}
