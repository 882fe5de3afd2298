package doctor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
)

const hsmName = "HSM"

// checkHSM opens the node's token once, as the server does, and says what it is and what it cannot do. A PIN is tried once: a device
// counts. A token that a running server holds is not a failure.
func checkHSM(ctx context.Context, cfg config.Config) Result {
	if cfg.HSM.Type == config.PKCS11Type {
		return checkDevice(cfg)
	}
	path := node.TokenPath(cfg.DataDir)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return absent(hsmName, "there is no token yet: init or join makes it")
	}
	if cfg.HSM.PIN.File == "" {
		return absent(hsmName, unattended)
	}
	if why := notOurs(path); why != "" {
		return absent(hsmName, "%s", why)
	}
	if pid := thisHost().lockHolder(path + ".lock"); pid != 0 {
		return inUse(pid)
	}
	pin, err := cfg.HSM.PIN.Read()
	if err != nil {
		return fail(hsmName, err.Error(), "see the check of the PIN")
	}
	defer clear(pin)
	t, err := soft.Open(path, pin, soft.Options{})
	switch {
	case errors.Is(err, soft.ErrInUse):
		return inUse(thisHost().lockHolder(path + ".lock"))
	case errors.Is(err, hsm.ErrPIN):
		return fail(hsmName, "the PIN does not open the token "+path,
			"give hsm.pin.file the PIN that the token was made with; without it the node must be joined anew, with an empty data directory")
	case err != nil:
		return fail(hsmName, err.Error(), "restore the token's file from a copy, or join the node anew with an empty data directory")
	}
	result := tokenResult(t, cfg)
	if err := t.Close(); err != nil {
		return fail(hsmName, err.Error(), "try again; the token is closed by the end of this program")
	}
	return result
}

const unattended = "its PIN comes from a file descriptor or a person: not opened unattended"

// checkDevice opens a PKCS#11 token as the server would, its start-up tests included. Beside a running server it does not: a device may
// have few sessions, and the server has tested it.
func checkDevice(cfg config.Config) Result {
	if pid := thisHost().serverOf(cfg.DataDir); pid != 0 {
		return inUse(pid)
	}
	if cfg.HSM.PIN.File == "" {
		return absent(hsmName, unattended)
	}
	device := cfg.HSM.PKCS11.Module
	t, err := token.Look(cfg, false)
	switch {
	case errors.Is(err, pkcs11.ErrNoKeys):
		return absent(hsmName, "%s: the token has no keys of a node yet: init or join makes them", device)
	case errors.Is(err, fs.ErrNotExist):
		return fail(hsmName, device+": "+err.Error(), "correct hsm.pkcs11, or make the token with: conclave hsm init --config FILE")
	case errors.Is(err, hsm.ErrPIN):
		return fail(hsmName, device+": "+err.Error(), "give hsm.pin.file the token's user PIN, and do not try others: devices lock themselves")
	case err != nil:
		return fail(hsmName, device+": "+err.Error(), "look at the vendor's tools and logs whether the device and its library are well")
	}
	result := tokenResult(t, cfg)
	if err := t.Close(); err != nil {
		return fail(hsmName, device+": closing: "+err.Error(), "look at the vendor's tools and logs whether the device and its library are well")
	}
	return result
}

// notOurs says why opening would leave traces that the server stumbles over: as root it would make a lock file that only root may open.
func notOurs(path string) string {
	owner, err := ownerOf(path)
	if _, missing := os.Stat(path + ".lock"); err == nil && missing != nil && owner != os.Geteuid() {
		return fmt.Sprintf("the token is user %d's and has no lock file yet: run this as that user", owner)
	}
	return ""
}

func inUse(pid int) Result {
	if pid == 0 {
		return good(hsmName, "in use by a running node (the kernel does not show its pid)")
	}
	return good(hsmName, "in use by a running node (pid %d)", pid)
}

// tokenResult describes an opened token of any backend.
func tokenResult(t hsm.Token, cfg config.Config) Result {
	info := t.Info()
	found := fmt.Sprintf("%s (%s), serial %s", info.Model, info.Library, info.Serial)
	var usable, missing []string
	for _, row := range t.Capabilities() {
		if row.Usable() {
			usable = append(usable, string(row.Algorithm))
		} else {
			missing = append(missing, fmt.Sprintf("%s (%s)", row.Algorithm, row.Missing))
		}
	}
	found += "; can: " + strings.Join(usable, ", ")
	if err := identityMatches(t, cfg.DataDir); err != nil {
		return fail(hsmName, found+"; "+err.Error(),
			"put the token that belongs to this data directory back; they are one node's only together")
	}
	if len(missing) > 0 {
		return warn(hsmName, found+"; cannot: "+strings.Join(missing, ", "),
			"keys of these algorithms can be made only where every node can use them: update the device or its library, or do without them")
	}
	return good(hsmName, "%s", found)
}

// identityMatches compares the token's identity key with the node's certificate, if there is one.
func identityMatches(token hsm.Token, dir string) error {
	m, err := node.LoadMembership(dir)
	if err != nil {
		return nil // the check of the certificate says so
	}
	return sameKey(token, m)
}

func sameKey(token hsm.Token, m vault.Membership) error {
	cert, err := x509.ParseCertificate(m.Certificate)
	if err != nil {
		return nil // as above
	}
	mine, ok := token.Identity().Public().(*ecdsa.PublicKey)
	if !ok {
		return errors.New("its identity key is no ECDSA key")
	}
	der, err := x509.MarshalPKIXPublicKey(mine)
	if err != nil || !bytes.Equal(der, cert.RawSubjectPublicKeyInfo) {
		return errors.New("its identity key is not that of the node's certificate")
	}
	return nil
}
