package fsm_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected answers in testdata (then read the diff)")

// TestDialogues runs testdata/*.txt: blocks of one command line, a line "----", and the expected answer: result, events or
// state. Lines that begin with # outside an answer are prose. dialect_test.go explains the commands.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runDialogue(t, file) })
	}
}

func runDialogue(t *testing.T, file string) {
	script, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := answerDialogue(newDialect(t), string(script))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(script), got); diff != "" && !*update {
		t.Errorf("the dialogue went otherwise (-written +heard):\n%s", diff)
	}
}

// answerDialogue returns the script with the answers as they are.
func answerDialogue(d *dialect, script string) string {
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n\n") {
		question, _, asked := strings.Cut(block, "\n----")
		out.WriteString(question + "\n")
		if asked {
			lines := strings.Split(question, "\n")
			out.WriteString("----\n" + d.say(lines[len(lines)-1]))
		}
		out.WriteString("\n")
	}
	return strings.TrimSuffix(out.String(), "\n")
}
