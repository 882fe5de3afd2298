package config

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// checkPINShape refuses, without repeating it, what stands under hsm.pin and is not one of its sources: whoever writes the PIN itself
// there would otherwise find it in the decoder's error and so in the service's log. What is no YAML at all is left to the decoder.
func checkPINShape(b []byte) error {
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || len(doc.Content) == 0 {
		return nil
	}
	pin := field(field(doc.Content[0], "hsm"), "pin")
	if pin == nil || pin.Tag == "!!null" {
		return nil
	}
	if line := wrongSource(pin); line != 0 {
		return fmt.Errorf("line %d: hsm.pin takes file (a path), fd (a number) or prompt (true); the PIN itself never stands in this file", line)
	}
	return nil
}

// field is the value of a mapping's key, or nil.
func field(n *yaml.Node, key string) *yaml.Node {
	if n = resolved(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolved(n.Content[i+1])
		}
	}
	return nil
}

func resolved(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// sourceTags are the sources of a PIN, and the type of each.
var sourceTags = map[string]string{"file": "!!str", "fd": "!!int", "prompt": "!!bool"}

// wrongSource is the first line that is no source; 0 if there is none.
func wrongSource(pin *yaml.Node) int {
	if pin.Kind != yaml.MappingNode {
		return pin.Line
	}
	for i := 0; i+1 < len(pin.Content); i += 2 {
		value := resolved(pin.Content[i+1])
		want, known := sourceTags[pin.Content[i].Value]
		// A path may look like a number; the decoder takes any scalar for a string.
		fits := value.ShortTag() == want || value.ShortTag() == "!!null" || (want == "!!str" && value.Kind == yaml.ScalarNode)
		if !known || !fits {
			return pin.Content[i].Line
		}
	}
	return 0
}
