package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// encodeYAML writes the same tree that encode writes as JSON: the names, the types and the order are the document's, so the two
// forms cannot drift apart. The result is one document and ends with a line break.
func encodeYAML(v any) ([]byte, error) {
	node, err := yamlNode(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return nil, fmt.Errorf("encoding YAML: %w", err)
	}
	return b.Bytes(), enc.Close()
}

func yamlNode(v any) (*yaml.Node, error) {
	switch v := v.(type) {
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	case string:
		return yamlText(v), nil
	case object:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, m := range v {
			value, err := yamlNode(m.value)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, yamlText(m.name), value)
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, item := range v {
			value, err := yamlNode(item)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, value)
		}
		return n, nil
	}
	return yamlLiteral(v)
}

// yamlLiteral is a truth value or a number, in the digits that JSON gives it.
func yamlLiteral(v any) (*yaml.Node, error) {
	text, err := encode(v)
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: string(text)}
	if _, ok := v.(bool); ok {
		n.Tag = "!!bool"
	} else if !json.Valid(text) || strings.ContainsAny(n.Value, `"{[`) {
		return nil, fmt.Errorf("encoding YAML: a %T has no place in a document", v)
	} else if strings.ContainsAny(n.Value, ".eE") {
		n.Tag = "!!float"
	}
	return n, nil
}

// plainText is what no version of YAML reads as anything but text: a word that begins with a letter, without a colon or a
// comment's sign. misread are the words among these that some version takes for a truth value, null or a number.
var (
	plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./+-]*$`)
	misread   = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan|inf|infinity)$`)
	blockText = regexp.MustCompile(`^([!-~][ -~]*\n)*[!-~][ -~]*\n?$`)
)

// yamlText is a text that stays one: quoted unless it is a plain word, because readers of YAML 1.1 take "on" for true, "1:30" for 90
// and "0x10" for 16. Lines of plain characters, such as PEM, are a literal block.
func yamlText(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle}
	n.Value = string([]rune(s)) // what is no UTF-8 becomes U+FFFD, as in JSON
	switch {
	case plainText.MatchString(s) && !misread.MatchString(s):
		n.Style = 0
	case strings.Contains(s, "\n") && blockText.MatchString(s):
		n.Style = yaml.LiteralStyle
	}
	return n
}
