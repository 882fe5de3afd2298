package token

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// Probe is what a token says of itself after its start-up tests.
type Probe struct {
	Backend      string     `json:"backend"`
	Model        string     `json:"model"`
	Library      string     `json:"library"`
	Serial       string     `json:"serial"`
	HardwareSafe bool       `json:"hardware_safe"`
	Algorithms   []ProbeRow `json:"algorithms"`
}

// ProbeRow is what a token can do with an algorithm: the names of hsm.Ability. Missing explains what it cannot.
type ProbeRow struct {
	Algorithm string   `json:"algorithm"`
	Usable    bool     `json:"usable"` // keys that are made there can live their whole life there
	Can       []string `json:"can"`
	Cannot    []string `json:"cannot"`
	Missing   string   `json:"missing"`
}

func probe(t hsm.Token) Probe {
	info := t.Info()
	p := Probe{Backend: info.Backend, Model: info.Model, Library: info.Library, Serial: info.Serial, HardwareSafe: info.HardwareSafe}
	for _, c := range t.Capabilities() {
		p.Algorithms = append(p.Algorithms, ProbeRow{
			Algorithm: string(c.Algorithm), Usable: c.Usable(), Can: c.Can.Names(), Cannot: c.Lacks().Names(), Missing: c.Missing,
		})
	}
	return p
}

func (p Probe) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "backend\t%s\nmodel\t%s\nlibrary\t%s\nserial\t%s\nhardware_safe\t%t\n\n", p.Backend, p.Model, p.Library, p.Serial, p.HardwareSafe)
	fmt.Fprintln(w, "ALGORITHM\tUSABLE\tCAN\tCANNOT\tMISSING")
	for _, r := range p.Algorithms {
		fmt.Fprintf(w, "%s\t%t\t%s\t%s\t%s\n", r.Algorithm, r.Usable, dash(strings.Join(r.Can, ",")), dash(strings.Join(r.Cannot, ",")), dash(r.Missing))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// dash stands for nothing: a blank cell would shift the columns for eyes and awk.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// advised says what to do next about a token that did not open.
func advised(cfg config.Config, file string, err error) error {
	switch {
	case errors.Is(err, hsm.ErrPIN) && cfg.HSM.Type == config.PKCS11Type:
		return fmt.Errorf("%w; put the token's user PIN where hsm.pin of %s says, and do not try others: devices lock themselves. After a wrong one this "+
			"command tries none until somebody has logged in: conclave server does, with the right PIN, or the vendor's tool", err, file)
	case errors.Is(err, hsm.ErrPIN):
		return fmt.Errorf("%w; put the PIN that the token was made with where hsm.pin of %s says", err, file)
	case errors.Is(err, pkcs11.ErrNoKeys), errors.Is(err, fs.ErrNotExist) && cfg.HSM.Type == config.SoftType:
		return fmt.Errorf("%w; the keys of a node are made by conclave init, or by joining with conclave server", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; correct hsm.pkcs11 of %s, or make the token: conclave hsm init --config %s", err, file, file)
	}
	return err
}

func probeCommand(env Env) *cobra.Command {
	var file string
	var thorough bool
	cmd := &cobra.Command{
		Use:   "probe --config node.yaml",
		Short: "Open the node's token, test it as the server does at its start, and show what it can do",
		Long: "Opens the token that the configuration names and runs the tests that the server runs at its start: known answers, every algorithm\n" +
			"from generation to use, and, for a PKCS#11 module, whether it enforces what it promises. It needs the node's keys on the token\n" +
			"(conclave init, or joining, makes them) and, for the embedded token, that the server does not run. It changes nothing on the token; the\n" +
			"PIN is tried once, and not where a device says that a wrong one was given before.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			t, err := Look(cfg, thorough)
			if err != nil {
				return advised(cfg, file, err)
			}
			p := probe(t)
			if err := t.Close(); err != nil {
				return err
			}
			if env.Structured() {
				return env.Print(cmd, p)
			}
			return env.Text(p.text())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration `file` (YAML)")
	cmd.Flags().BoolVar(&thorough, "thorough", false, "let a device generate RSA keys of every size, which may take minutes; the server believes the range that it names")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}
