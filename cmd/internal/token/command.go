package token

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

// maxSOPIN bounds the security officer's PIN, in bytes; devices have limits of their own.
const maxSOPIN = 1024

// Env is what the command line gives these commands.
type Env interface {
	// Print writes v to stdout in the format that the user chose.
	Print(cmd *cobra.Command, v any) error
	// Structured reports whether the user wants the object and not what is easiest to read.
	Structured() bool
	// Text writes lines for people to stdout, without what could steer a terminal.
	Text(text string) error
}

// Command is `conclave hsm`.
func Command(env Env) *cobra.Command {
	cmd := &cobra.Command{Use: "hsm", Short: "Prepare and examine the token of a node"}
	cmd.AddCommand(initCommand(), probeCommand(env))
	return cmd
}

func initCommand() *cobra.Command {
	var file, soPIN string
	cmd := &cobra.Command{
		Use:   "init --config node.yaml [--so-pin-file FILE]",
		Short: "Initialise a PKCS#11 token for a node",
		Long: "Make a token in the first free slot of the configured PKCS#11 module, with the label hsm.pkcs11.token and the user PIN of hsm.pin.\n" +
			"It never touches a token that exists. A device that is managed with its vendor's tools does not need this command.\n" +
			"The security officer's PIN comes from a file (mode 0600) or is asked for; keep it away from the node.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			so, err := readSOPIN(soPIN)
			if err != nil {
				return fmt.Errorf("the security officer's PIN: %w", err)
			}
			defer clear(so)
			if err := Initialize(cfg, so, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Token %q is initialised. On the cluster's first node go on with: conclave init --config %s --out DIR\n"+
				"on any other with: conclave server --config %s\n", cfg.HSM.PKCS11.Token, file, file)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (YAML)")
	cmd.Flags().StringVar(&soPIN, "so-pin-file", "", "file with the security officer's PIN (mode 0600); without it the PIN is asked for")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// readSOPIN asks twice, because nobody could ever administer a token whose SO PIN was mistyped.
func readSOPIN(file string) ([]byte, error) {
	if file != "" {
		b, err := config.ReadPrivate(file, maxSOPIN)
		return bytes.TrimRight(b, "\r\n"), err
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("there is no terminal to ask on; use --so-pin-file FILE")
	}
	first, err := ask(fd, "New PIN of the security officer: ")
	if err != nil {
		return nil, err
	}
	again, err := ask(fd, "The same PIN again: ")
	defer clear(again)
	if err == nil && !bytes.Equal(first, again) {
		err = errors.New("the two differ; nothing was changed")
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}

func ask(fd int, text string) ([]byte, error) {
	fmt.Fprint(os.Stderr, text)
	defer fmt.Fprintln(os.Stderr)
	return term.ReadPassword(fd)
}
