package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/pki"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// healthy is a checkup of a node whose folder and PIN are as they should be, on this host.
func healthy(t *testing.T) *checkup {
	t.Helper()
	dir := t.TempDir()
	c := &checkup{host: thisHost(), notMember: node.ErrNoCluster}
	c.cfg = config.Config{Node: "n1", DataDir: filepath.Join(dir, "data"), HSM: config.HSM{Type: "soft", PIN: config.PIN{File: filepath.Join(dir, "pin")}}}
	must(t, os.Mkdir(c.cfg.DataDir, 0o700))
	must(t, os.WriteFile(c.cfg.HSM.PIN.File, []byte("correct horse\n"), 0o600))
	c.lookup = func(context.Context, string) ([]net.IP, error) { return nil, errors.New("no names in tests") }
	return c
}

// files makes a tree of a kernel's files, by their paths.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range content {
		path = filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return root
}

// is checks a result: its status, words of what was found and, unless all is well, that it says what to do.
func is(t *testing.T, got Result, want Status, words ...string) {
	t.Helper()
	if got.Status != want {
		t.Errorf("%s is %s (%s), want %s", got.Name, got.Status, got.Found, want)
	}
	for _, w := range words {
		if !strings.Contains(got.Found+"\n"+got.Advice, w) {
			t.Errorf("%s does not say %q: %q, %q", got.Name, w, got.Found, got.Advice)
		}
	}
	if needs := want == Warn || want == Fail; needs != (got.Advice != "") {
		t.Errorf("%s is %s with the advice %q", got.Name, got.Status, got.Advice)
	}
}

// membership makes a node a member: of what issue signs for key. It returns the authority.
func (c *checkup) membership(t *testing.T, key any, at time.Time, alter func(*vault.Membership)) *pki.Authority {
	t.Helper()
	ca, err := pki.NewAuthority("c1", "node", at)
	must(t, err)
	if key == nil {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		key = private.Public()
	}
	cert, err := ca.IssueNode(pki.ID{Cluster: "c1", Role: "node", Name: c.cfg.Node}, key, nil, at)
	must(t, err)
	m := vault.Membership{ClusterID: "c1", Node: fsm.NodeID(c.cfg.Node), NodeCA: ca.Certificate.Raw, ClientCA: ca.Certificate.Raw, Certificate: cert.Raw, Secrets: []byte{1}}
	if alter != nil {
		alter(&m)
	}
	text, err := json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.cfg.DataDir, "membership.json"), text, 0o600))
	loaded, err := node.LoadMembership(c.cfg.DataDir)
	must(t, err)
	c.member, c.notMember = &loaded, nil
	return ca
}

// without runs f on a thread that lacks a capability, as an ordinary user's process does.
func without(t *testing.T, capability int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&head, &data[0])
		if err == nil {
			data[capability/32].Effective &^= 1 << (capability % 32)
			err = unix.Capset(&head, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	must(t, <-done)
}
