package cli

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// bashWords replaces the one function of the script for bash that needs the package bash-completion: hosts of vaults are often
// installed without it, and a Tab key that prints "command not found" is worse than none.
//
//go:embed words.bash
var bashWords string

// addCompletion adds the command "completion", and what the flags of every command offer.
func (e *Env) addCompletion(root *cobra.Command) {
	complete(root, "output", formats...)
	e.completeOthers(root)
	withoutFiles(root)
	root.InitDefaultCompletionCmd()
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.Name() != "bash" {
		panic(fmt.Sprintf("cobra has no completion for bash: %v", err))
	}
	bash.Long = strings.ReplaceAll(bash.Long, `This script depends on the 'bash-completion' package.
If it is not installed already, you can install it via your OS's package manager.`,
		"The script uses the package bash-completion where it is installed, and does without where it is not.")
	descriptions := bash.Flag("no-descriptions")
	bash.RunE = func(*cobra.Command, []string) error {
		var script bytes.Buffer
		if err := root.GenBashCompletionV2(&script, descriptions.Value.String() != "true"); err != nil {
			return fmt.Errorf("making the script: %w", err)
		}
		return e.write(script.String() + bashWords)
	}
}
