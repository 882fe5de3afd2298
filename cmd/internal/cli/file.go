package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
	f, err := os.CreateTemp(filepath.Dir(path), ".conclave-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing the output: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// createFile writes a file that must not exist yet: a private key or token is never overwritten.
func createFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return badArgument(path+" exists already and is not overwritten", "another --out, or move the file away")
	}
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
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
