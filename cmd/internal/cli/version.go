package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionCommand says what was built, from what the Go tool stamped into the binary.
func (e *Env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show what this program was built from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.Print(cmd, build()) },
	}
}

func build() object {
	o := object{{"version", "unknown"}, {"commit", ""}, {"modified", false}, {"go", runtime.Version()}, {"platform", runtime.GOOS + "/" + runtime.GOARCH}, {"cgo", false}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return o
	}
	o[0].value = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			o[1].value = s.Value
		case "vcs.modified":
			o[2].value = s.Value == "true"
		case "CGO_ENABLED":
			o[5].value = s.Value == "1"
		}
	}
	return o
}

// Version names the program: its module version, or "(devel)".
func Version() string {
	v, _ := build()[0].value.(string)
	return v
}
