//go:build cgo

package doctor

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
)

// TestDevice: a PKCS#11 token is opened as the server would open it.
func TestDevice(t *testing.T) {
	c := healthy(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	must(t, os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\n"), 0o600))
	c.cfg.HSM.Type, c.cfg.HSM.PKCS11 = config.PKCS11Type, config.PKCS11{
		Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "doctor", Environment: map[string]string{"SOFTHSM2_CONF": conf},
	}
	t.Setenv("SOFTHSM2_CONF", conf) // the environment of the process is as before when the test ends
	is(t, checkHSM(t.Context(), c.cfg), Fail, "doctor", "conclave hsm init")
	quiet := slog.New(slog.DiscardHandler)
	must(t, token.Initialize(c.cfg, []byte("the officer's"), quiet))
	is(t, checkHSM(t.Context(), c.cfg), NotApplicable, "no keys of a node yet")
	made, err := token.OpenOrCreate(c.cfg, quiet)
	must(t, err)
	serial, public := made.Info().Serial, made.Identity().Public()
	must(t, made.Close())
	is(t, checkHSM(t.Context(), c.cfg), Warn, "SoftHSM", serial, "cannot: ed25519 (CKM_AES_KEY_WRAP_PAD", "update the device")
	c.membership(t, public, time.Now(), nil)
	is(t, checkHSM(t.Context(), c.cfg), Warn, serial)
	c.membership(t, nil, time.Now(), nil)
	is(t, checkHSM(t.Context(), c.cfg), Fail, "not that of the node's certificate")
	must(t, os.WriteFile(c.cfg.HSM.PIN.File, []byte("another one"), 0o600))
	is(t, checkHSM(t.Context(), c.cfg), Fail, "do not try others")
	c.cfg.HSM.PKCS11.Module = "/nowhere.so"
	is(t, checkHSM(t.Context(), c.cfg), Fail, "/nowhere.so")
}
