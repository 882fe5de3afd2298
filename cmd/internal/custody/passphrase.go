package custody

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/conclave-vault/conclave/vault/ceremony"
)

// maxPassphraseBytes is far above what people type and what generators make.
const maxPassphraseBytes = 1024

// passphraseFlags say where a passphrase comes from. It is never an argument or in the environment: other processes see those.
type passphraseFlags struct {
	file string
	fd   int
}

const noDescriptor = -1

func (f *passphraseFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "passphrase-file", "", "`file` (mode 0600) with the passphrase of the identity")
	cmd.Flags().IntVar(&f.fd, "passphrase-fd", noDescriptor, "file `descriptor` from which the passphrase is read")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-fd")
}

func (f *passphraseFlags) given() bool { return f.file != "" || f.fd != noDescriptor }

// read returns the passphrase of the flags. One line break at its end is not part of it. The caller wipes it.
func (f *passphraseFlags) read() ([]byte, error) {
	content, err := f.content()
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	phrase := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(phrase) == 0 {
		return nil, badUsage("the passphrase is empty")
	}
	return phrase, nil
}

func (f *passphraseFlags) content() ([]byte, error) {
	if f.file != "" {
		return ceremony.ReadPrivate(f.file, maxPassphraseBytes)
	}
	if f.fd < 0 {
		return nil, badUsage("--passphrase-fd %d is no file descriptor", f.fd)
	}
	d := os.NewFile(uintptr(f.fd), "passphrase")
	defer d.Close()
	content, err := io.ReadAll(io.LimitReader(d, maxPassphraseBytes+1))
	if err == nil && len(content) > maxPassphraseBytes {
		clear(content)
		err = badUsage("a passphrase has at most %d bytes", maxPassphraseBytes)
	}
	return content, err
}

// source returns a function that yields a fresh copy of the passphrase for each identity: the flags' one is read once, since a
// descriptor gives it only once. wipe ends it.
func (f *passphraseFlags) source(env Env, path func() string) (ask func() ([]byte, error), wipe func()) {
	var kept []byte
	ask = func() ([]byte, error) {
		if !f.given() {
			return env.Prompt("passphrase of " + path())
		}
		if kept == nil {
			phrase, err := f.read()
			if err != nil {
				return nil, err
			}
			kept = phrase
		}
		return bytes.Clone(kept), nil
	}
	return ask, func() { clear(kept) }
}

// choose gets the passphrase for a new identity: from the flags, from a person at the terminal, or none.
func (f *passphraseFlags) choose(cmd *cobra.Command, env Env) ([]byte, error) {
	if f.given() {
		return f.read()
	}
	if !interactive(cmd) {
		return nil, nil
	}
	first, err := env.Prompt("passphrase for the new identity (empty: none)")
	if err != nil || len(first) == 0 {
		return nil, err
	}
	again, err := env.Prompt("the same again")
	defer clear(again)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, again) {
		clear(first)
		return nil, errors.New("the two passphrases differ: nothing was written")
	}
	return first, nil
}

// interactive reports whether a person can answer: scripts have their input somewhere else.
func interactive(cmd *cobra.Command) bool {
	f, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
