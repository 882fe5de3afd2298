package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// Env is what the command line gives this command.
type Env interface {
	// Print writes v to stdout in the format that the user chose.
	Print(cmd *cobra.Command, v any) error
	// Structured reports whether the user wants the object and not what is easiest to read.
	Structured() bool
	// Text writes lines for people to stdout, without what could steer a terminal.
	Text(text string) error
	// Stderr is where progress goes.
	Stderr() io.Writer
}

// Report is the result.
type Report struct {
	Model      string `json:"model"`
	Library    string `json:"library"`
	Bytes      int    `json:"bytes"` // of the message, and of the associated data
	Algorithms []Row  `json:"algorithms"`
}

// Command is `conclave bench`.
func Command(env Env) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure on this machine"}
	cmd.AddCommand(hsmCommand(env))
	return cmd
}

// Limits of the time that one algorithm is measured.
const (
	minEach = 50 * time.Millisecond
	maxEach = 10 * time.Minute
)

func hsmCommand(env Env) *cobra.Command {
	var kind, module string
	var each time.Duration
	cmd := &cobra.Command{
		Use:   "hsm [--hsm soft|softhsm]",
		Short: "Measure a token beside the bare primitives, in one run",
		Long: `Makes a token of its own in a temporary folder, measures each algorithm with messages of 32 bytes, and the bare primitive of Go's
libraries in turns with it. Rates are operations per second of processor time; the memory and the eviction are of keys that
a node keeps open in its cache. A module that keeps what was freed for later shows it with the first algorithms only. Nothing of a node is touched.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if each < minEach || each > maxEach {
				return fmt.Errorf("--time %s: from %s to %s are", each, minEach, maxEach)
			}
			dir, err := os.MkdirTemp("", "conclave-bench-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			t, err := scratch(dir, kind, module)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, t.Close()) }()
			return run(cmd, env, t, each)
		},
	}
	cmd.Flags().StringVar(&kind, "hsm", "soft", "soft, or softhsm for a PKCS#11 token of SoftHSM 2")
	cmd.Flags().StringVar(&module, "softhsm-module", "", "path of SoftHSM's `libsofthsm2.so` (default: where distributions put it)")
	cmd.Flags().DurationVar(&each, "time", time.Second, "how long each algorithm is measured")
	_ = cmd.RegisterFlagCompletionFunc("hsm", cobra.FixedCompletions([]string{"soft", "softhsm"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func scratch(dir, kind, module string) (token.Token, error) {
	switch kind {
	case "soft":
		pin := make([]byte, 16)
		defer clear(pin)
		if _, err := rand.Read(pin); err != nil {
			return nil, err
		}
		t, err := soft.Create(filepath.Join(dir, token.SoftFile), pin, soft.Options{})
		if err != nil {
			return nil, err
		}
		return t, nil
	case "softhsm":
		if module == "" {
			var err error
			if module, err = token.FindSoftHSM(token.SoftHSMModules); err != nil {
				return nil, err
			}
		}
		module, err := filepath.Abs(module)
		if err != nil {
			return nil, err
		}
		return token.Scratch(dir, module, func(b []byte) error { _, err := rand.Read(b); return err })
	}
	return nil, fmt.Errorf("--hsm %q; use soft or softhsm", kind)
}

func run(cmd *cobra.Command, env Env, t token.Token, each time.Duration) error {
	report := Report{Model: t.Info().Model, Library: t.Info().Library, Bytes: size}
	total := len(t.Capabilities())
	err := measureAll(cmd.Context(), t, each, func(r Row) {
		report.Algorithms = append(report.Algorithms, r)
		fmt.Fprintf(env.Stderr(), "[%d/%d] %s\n", len(report.Algorithms), total, r.Algorithm)
	})
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if env.Structured() {
		return env.Print(cmd, report)
	}
	return env.Text(report.text())
}

func (r Report) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "model\t%s\nlibrary\t%s\n\n", r.Model, r.Library)
	fmt.Fprintln(w, "ALGORITHM\tOPERATION\tTOKEN /CPU-S\tWALL US\tOPEN US\tCOPY BYTES\tEVICT US\tBARE /CPU-S\tRATIO\tMISSING")
	for _, a := range r.Algorithms {
		if a.Missing != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\t-\t-\t-\t%s\n", a.Algorithm, a.Missing)
			continue
		}
		bare, ratio, memory := "-", "-", "-"
		if a.Memory > 0 {
			memory = fmt.Sprintf("%.0f", a.Memory)
		}
		if a.Bare > 0 {
			bare, ratio = fmt.Sprintf("%.0f", a.Bare), fmt.Sprintf("%.2f", a.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.1f\t%.1f\t%s\t%.1f\t%s\t%s\t-\n", a.Algorithm, a.Operation, a.Token, a.Wall, a.Open, memory, a.Evict, bare, ratio)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}
