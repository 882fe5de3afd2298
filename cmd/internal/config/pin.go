package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Limits of a PIN.
const (
	minPIN = 4
	maxPIN = 1024
)

// Read gets the PIN from its source. The caller wipes it.
func (p PIN) Read() ([]byte, error) {
	pin, err := p.read()
	if err != nil {
		return nil, fmt.Errorf("the token's PIN: %w", err)
	}
	pin = bytes.TrimRight(pin, "\r\n")
	if len(pin) < minPIN || len(pin) > maxPIN {
		clear(pin)
		return nil, fmt.Errorf("the token's PIN has %d bytes; %d to %d are needed", len(pin), minPIN, maxPIN)
	}
	return pin, nil
}

func (p PIN) read() ([]byte, error) {
	switch {
	case p.File != "":
		return ReadPrivate(p.File, maxPIN)
	case p.FD != nil:
		f := os.NewFile(uintptr(*p.FD), "pin")
		if f == nil {
			return nil, fmt.Errorf("file descriptor %d is not open", *p.FD)
		}
		defer f.Close()
		return readLimited(f, maxPIN)
	default:
		return prompt()
	}
}

func prompt() ([]byte, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("hsm.pin.prompt needs a terminal; use file or fd")
	}
	fmt.Fprint(os.Stderr, "PIN of this node's token: ")
	defer fmt.Fprintln(os.Stderr)
	return term.ReadPassword(fd)
}

// ReadPrivate reads a small secret from a file that only its owner may read: at most limit bytes and a line's end.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK opening a FIFO would wait for a writer, before anything could say that it is none of ours.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mode := info.Mode()
	if !mode.IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and others can read it; run: chmod 600 %s", path, mode.Perm(), path)
	}
	return readLimited(f, limit)
}

// readLimited refuses what is longer than limit and a line's end, because a secret that is cut off is another secret.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	most := limit + int64(len("\r\n"))
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if err != nil {
		clear(b)
		return nil, err
	}
	return b, nil
}
