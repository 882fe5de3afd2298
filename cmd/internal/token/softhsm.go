package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/conclave-vault/conclave/hsm/pkcs11"
)

// SoftHSMModules is where distributions put SoftHSM 2's library.
var SoftHSMModules = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// FindSoftHSM returns the first of paths that is there.
func FindSoftHSM(paths []string) (string, error) {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("SoftHSM 2 is not installed: install it (Debian: apt-get install softhsm2), or give --softhsm-module")
}

// SoftHSM prepares dir, which is made if missing (0700), to hold tokens of SoftHSM, and returns the environment with which the module
// finds them.
func SoftHSM(dir string) (map[string]string, error) {
	tokens, conf := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens)
	if old, err := os.ReadFile(conf); err != nil || string(old) != text {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return map[string]string{"SOFTHSM2_CONF": conf}, nil
}

// Scratch makes a token of SoftHSM in dir, with keys of its own and random PINs that nobody learns: for measuring and trying.
func Scratch(dir, module string, random func([]byte) error) (Token, error) {
	env, err := SoftHSM(dir)
	if err != nil {
		return nil, err
	}
	so, pin := make([]byte, 16), make([]byte, 16)
	defer clear(so)
	defer clear(pin)
	if err := errors.Join(printable(so, random), printable(pin, random)); err != nil {
		return nil, err
	}
	opt := pkcs11.Options{Module: module, Label: "scratch", Environment: env}
	if err := pkcs11.Initialize(opt, so, pin); err != nil {
		return nil, err
	}
	return found(pkcs11.Create(opt, pin))
}

// printable fills b with random letters and digits, which every device takes for a PIN.
func printable(b []byte, random func([]byte) error) error {
	const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789" // 32, so that a byte's lowest five bits choose one
	err := random(b)
	for i := range b {
		b[i] = alphabet[b[i]%byte(len(alphabet))]
	}
	return err
}
