package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/conclave-vault/conclave/vault/wholefile"
)

const (
	// maxMessage is what the cluster accepts in one call: the HSM sees the whole message.
	maxMessage = 1 << 20
	// maxCiphertext adds room for what a ciphertext carries: key id, version, nonce, tag.
	maxCiphertext = maxMessage + 4096
	// standard input and output by the name that users know.
	standardStream = "-"
)

// readInput reads a file or stdin, at most limit bytes; instead says what to do with more.
func (e *Env) readInput(path string, limit int, instead string) ([]byte, error) {
	in := e.deps.Stdin
	if path != standardStream {
		f, err := os.Open(path)
		if err != nil {
			return nil, badArgument(fmt.Sprintf("reading the input: %v", err), "")
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, badArgument(fmt.Sprintf("reading the input: %v", err), "")
	}
	if len(data) > limit {
		clear(data)
		return nil, badArgument(fmt.Sprintf("the input is larger than the limit of %d bytes", limit), instead)
	}
	return data, nil
}

// writeOutput writes data to a file or stdout. A file is replaced in one step and only its owner may read it: half a plaintext,
// or one that others can read, must never be there.
func (e *Env) writeOutput(path string, data []byte) error {
	if path == standardStream {
		return e.write(string(data))
	}
	if err := wholefile.Replace(path, data); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// createFile writes a file that must not exist yet: a private key or token is never overwritten.
func createFile(path string, data []byte, mode fs.FileMode) error {
	err := wholefile.Create(path, data, mode)
	if errors.Is(err, fs.ErrExist) {
		return badArgument(path+" exists already and is not overwritten", "another --out, or move the file away")
	}
	return err
}

// decodeBase64 reads an argument in the form in which the program prints bytes.
func decodeBase64(flag, text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, badArgument(fmt.Sprintf("--%s is not standard padded base64: %v", flag, err), "")
	}
	if len(data) == 0 {
		return nil, badArgument(fmt.Sprintf("--%s is empty", flag), "")
	}
	return data, nil
}
