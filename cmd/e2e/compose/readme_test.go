package compose_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// section of the README that this test follows.
const section = "## Run it in containers"

// chapters are the blocks of commands of that section.
type chapters struct{ bringUp, ceremonies, drills string }

// readme reads the commands that the README gives to people.
func readme(t *testing.T) chapters {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "\n"+section+"\n")
	if !found {
		t.Fatalf("the README has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	parts := strings.Split(text, "```\n")
	if len(parts) != 7 { // words around three blocks
		t.Fatalf("section %q has %d parts; three blocks of commands are needed", section, len(parts))
	}
	return chapters{parts[1], parts[3], parts[5]}
}

// drill checks that the README has a command of scripts/compose.sh, for some node or for all, and returns it for a given node.
func (c chapters) drill(t *testing.T, command, node string) string {
	t.Helper()
	for line := range strings.Lines(c.drills) {
		words := strings.Fields(strings.SplitN(line, "#", 2)[0])
		if len(words) < 2 || words[1] != command || (len(words) == 3) != (node != "") {
			continue
		}
		if node != "" {
			words[2] = node
		}
		return strings.Join(words, " ")
	}
	t.Fatalf("the README does not say how to %s (a node: %t)", command, node != "")
	return ""
}
