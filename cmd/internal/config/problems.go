package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Problems loads a file like Load and lists every complaint by itself, with its line where the file has one for it. Without
// problems it returns the configuration.
func Problems(path string) ([]string, Config) {
	text, err := readFile(path)
	if err != nil {
		return []string{err.Error()}, Config{}
	}
	c, err := Parse(text)
	if err == nil {
		c, err = c.relativeTo(filepath.Dir(path))
	}
	if err == nil {
		return nil, c
	}
	var doc yaml.Node
	_ = yaml.Unmarshal(text, &doc) // what is no YAML has no lines to offer; the complaint names one itself
	var all []string
	for _, e := range apart(err) {
		all = append(all, withLine(&doc, e))
	}
	return all, Config{}
}

// apart lists joined errors, and those that the decoder collects.
func apart(err error) []string {
	var many interface{ Unwrap() []error }
	var types *yaml.TypeError
	switch {
	case errors.As(err, &types):
		return types.Errors
	case errors.As(err, &many):
		var all []string
		for _, e := range many.Unwrap() {
			all = append(all, apart(e)...)
		}
		return all
	}
	return []string{err.Error()}
}

// fieldPath is how a complaint names its field: first.
var fieldPath = regexp.MustCompile(`^([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::| )`)

// withLine puts the line of the field that a complaint begins with before it; of the nearest field above if it is missing.
func withLine(doc *yaml.Node, complaint string) string {
	m := fieldPath.FindStringSubmatch(complaint)
	if m == nil || len(doc.Content) == 0 || strings.HasPrefix(complaint, "line ") {
		return complaint
	}
	line := 0
	for n, names := doc.Content[0], strings.Split(m[1], "."); n != nil && len(names) > 0; names = names[1:] {
		key, value := entry(n, names[0])
		if key != nil {
			line = key.Line
		}
		n = value
	}
	if line == 0 {
		return complaint
	}
	return fmt.Sprintf("line %d: %s", line, complaint)
}

// entry is the key and value of a mapping's member, or nil.
func entry(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n = resolved(n); n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], resolved(n.Content[i+1])
		}
	}
	return nil, nil
}
