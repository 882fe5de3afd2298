package node_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/pki"
)

// place is a folder for a node and one for its administrator.
type place struct {
	t   testing.TB
	cfg config.Config
	out string
}

func newPlace(t testing.TB) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t: t, out: filepath.Join(dir, "out"), cfg: config.Config{
		Node: "n1", DataDir: filepath.Join(dir, "data"), HSM: config.HSM{Type: "soft", PIN: config.PIN{File: filepath.Join(dir, "pin")}},
		API: config.Endpoint{Bind: "127.0.0.1:1", Advertise: "127.0.0.1:1"}, Cluster: config.Endpoint{Bind: "127.0.0.1:2", Advertise: "127.0.0.1:2"},
	}}
	p.write(p.cfg.HSM.PIN.File, "123456\n")
	return p
}

// withToken is a place where a token is already, as after an interrupted founding: one whose PIN costs nothing to stretch.
func withToken(t testing.TB) *place {
	t.Helper()
	p := newPlace(t)
	must(t, os.MkdirAll(p.cfg.DataDir, 0o700))
	token, err := soft.Create(p.file("token.keystore"), []byte("123456"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	must(t, err)
	must(t, token.Close())
	return p
}

func (p *place) serial() string {
	p.t.Helper()
	token, err := soft.Open(p.file("token.keystore"), []byte("123456"), soft.Options{})
	must(p.t, err)
	defer token.Close()
	return token.Info().Serial
}

func (p *place) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) file(name string) string { return filepath.Join(p.cfg.DataDir, name) }

func (p *place) found() (node.Credentials, error) {
	p.t.Helper()
	return node.Found(p.cfg, true, "root", time.Hour, p.out)
}

func (p *place) founded() node.Credentials {
	p.t.Helper()
	files, err := p.found()
	if err != nil {
		p.t.Fatal(err)
	}
	return files
}

// start runs a node that cannot come far enough to listen.
func (p *place) start() error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	return node.Run(ctx, p.cfg, "test", slog.New(slog.DiscardHandler))
}

// contents are all files below both folders.
func (p *place) contents() map[string]string {
	p.t.Helper()
	all := map[string]string{}
	for _, dir := range []string{p.cfg.DataDir, p.out} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) || (err == nil && d.IsDir()) {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			all[path] = string(b)
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return all
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) != 0 {
		t.Fatalf("%s is no certificate", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFound(t *testing.T) {
	p := newPlace(t)
	files := p.founded()
	if _, err := tls.LoadX509KeyPair(files.Certificate, files.Key); err != nil {
		t.Error(err)
	}
	id, err := pki.ParseID(certificate(t, files.Certificate))
	if err != nil || id.Role != "administrator" || id.Name != "root" {
		t.Errorf("%v, %v", id, err)
	}
	if ca := certificate(t, files.CA); ca.Subject.CommonName != "Conclave node CA" {
		t.Errorf("clients verify nodes with %s", ca.Subject)
	}
	for path, text := range p.contents() {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		public := path == files.CA || path == files.Certificate
		if info.Mode().Perm()&0o077 != 0 && !public {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.Contains(text, "123456") || (strings.Contains(text, "PRIVATE KEY") && path != files.Key) {
			t.Errorf("%s holds a secret", path)
		}
	}
	for _, name := range []string{"token.keystore", "founding.entry", "membership.json"} {
		if _, err := os.Stat(p.file(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestFoundTwice changes nothing, wherever the second one's files would go.
func TestFoundTwice(t *testing.T) {
	p := withToken(t)
	p.founded()
	before, first := p.contents(), p.out
	for _, out := range []string{first, filepath.Join(t.TempDir(), "other")} {
		p.out = out
		if _, err := p.found(); err == nil || !strings.Contains(err.Error(), "belongs to a cluster already; nothing was changed") {
			t.Errorf("%v", err)
		}
	}
	if _, err := os.Stat(p.out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
	p.out = first
	if diff := cmp.Diff(before, p.contents()); diff != "" {
		t.Error("files changed") // the difference holds a key
	}
}

// TestFoundOverwritesNothing and has done nothing when it refuses: a cluster whose administrator's certificate could not be written
// would be nobody's.
func TestFoundOverwritesNothing(t *testing.T) {
	for _, name := range []string{"root.key", "root.crt", "ca.crt"} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			if err := os.MkdirAll(p.out, 0o700); err != nil {
				t.Fatal(err)
			}
			p.write(filepath.Join(p.out, name), "of another cluster")
			if _, err := p.found(); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "nothing was overwritten") {
				t.Errorf("%v", err)
			}
			if all := p.contents(); len(all) != 1 || all[filepath.Join(p.out, name)] != "of another cluster" {
				t.Errorf("there are %d files", len(all))
			}
		})
	}
}

func TestFoundRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*place)
		admin  string
		life   time.Duration
		says   string
	}{
		"a name that is a path":    {func(*place) {}, "../root", time.Hour, "name \"../root\""},
		"no name":                  {func(*place) {}, "", time.Hour, "name \"\""},
		"a life of decades":        {func(*place) {}, "root", 20 * 365 * 24 * time.Hour, "398 days"},
		"a node that is to join":   {func(p *place) { p.cfg.Join.TokenFile = "token" }, "root", time.Hour, "join.token_file is set"},
		"a PIN that others read":   {func(p *place) { must(p.t, os.Chmod(p.cfg.HSM.PIN.File, 0o644)) }, "root", time.Hour, "chmod 600"},
		"a short PIN":              {func(p *place) { p.write(p.cfg.HSM.PIN.File, "12\n") }, "root", time.Hour, "4 to 1024"},
		"a membership in the way":  {func(p *place) { must(p.t, os.MkdirAll(p.file("membership.json"), 0o700)) }, "root", time.Hour, "belongs to a cluster already"},
		"a damaged membership":     {func(p *place) { must(p.t, os.MkdirAll(p.cfg.DataDir, 0o700)); p.write(p.file("membership.json"), "{") }, "root", time.Hour, "is damaged"},
		"a file instead of a data": {func(p *place) { p.write(p.cfg.DataDir, "x") }, "root", time.Hour, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			c.change(p)
			if _, err := node.Found(p.cfg, true, c.admin, c.life, p.out); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			left, err := filepath.Glob(filepath.Join(p.out, "*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(p.out), "root.key")); err == nil {
				t.Error("a key was written outside the folder")
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnInterruptedFoundingIsTakenUp wherever it ended; its token is kept, and opened with the same PIN.
func TestAnInterruptedFoundingIsTakenUp(t *testing.T) {
	p := withToken(t)
	serial := p.serial()
	if err := p.start(); !errors.Is(err, node.ErrNoCluster) || !strings.Contains(err.Error(), "conclave init") {
		t.Errorf("starting it as it is: %v", err)
	}
	p.write(p.cfg.HSM.PIN.File, "654321\n")
	if _, err := p.found(); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("with another PIN: %v", err)
	}
	p.write(p.cfg.HSM.PIN.File, "123456\n")
	p.write(p.file("founding.entry"), "of the interrupted one")
	p.founded()
	if p.serial() != serial {
		t.Error("the token was made anew")
	}
	if entry, err := os.ReadFile(p.file("founding.entry")); err != nil || bytes.Contains(entry, []byte("interrupted")) {
		t.Errorf("the first entry is the old one: %v", err)
	}
	if c := p.contents()[p.file("membership.json")]; !strings.Contains(c, `"node": "n1"`) {
		t.Errorf("the membership is %.100s", c)
	}
}

// TestTheMembershipComesLast: until it is there the founding can be repeated, so all else must be there before it.
func TestTheMembershipComesLast(t *testing.T) {
	p := withToken(t)
	full := errors.New("disk full")
	key := newECKey(t)
	err := node.Init(p.cfg, true, "root", key.Public(), time.Hour, func(c *x509.Certificate, ca []byte) error {
		if _, err := os.Stat(p.file("founding.entry")); err != nil || c == nil || len(ca) == 0 {
			t.Errorf("delivered before the first entry: %v", err)
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(p.file("membership.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a membership without an administrator: %v", err)
	}
	p.founded()
}

func TestAMembershipMustBeWhole(t *testing.T) {
	p := withToken(t)
	p.founded()
	whole := p.contents()[p.file("membership.json")]
	for name, c := range map[string]struct{ text, says string }{
		"empty":                    {"", "membership.json is damaged"},
		"cut":                      {whole[:len(whole)/2], "membership.json is damaged"},
		"more":                     {whole + "{}", "membership.json is damaged"},
		"an object":                {"{}", "membership.json is damaged"},
		"no cluster":               {strings.Replace(whole, "cluster_id", "cluster_no", 1), "membership.json is damaged"},
		"no secrets":               {strings.Replace(whole, `"secrets"`, `"secret"`, 1), "membership.json is damaged"},
		"no base64":                {strings.Replace(whole, `"node_ca": "`, `"node_ca": "*`, 1), "membership.json is damaged"},
		"no certificate authority": {strings.Replace(whole, `"node_ca": "`, `"node_ca": "AAAA`, 1), "authority in membership.json"},
	} {
		t.Run(name, func(t *testing.T) {
			p.write(p.file("membership.json"), c.text)
			if err := p.start(); err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, node.ErrNoCluster) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestANodeKeepsItsName(t *testing.T) {
	p := withToken(t)
	p.founded()
	p.cfg.Node = "n2"
	if err := p.start(); err == nil || !strings.Contains(err.Error(), `is node "n1"'s and the configuration says "n2"`) {
		t.Errorf("%v", err)
	}
}

func TestAStartBeforeTheFounding(t *testing.T) {
	p := newPlace(t)
	err := p.start()
	if !errors.Is(err, node.ErrNoCluster) || !strings.Contains(err.Error(), "conclave init") || !strings.Contains(err.Error(), "join.token_file") {
		t.Errorf("%v", err)
	}
	if all := p.contents(); len(all) != 0 {
		t.Errorf("a refused start left %d files", len(all))
	}
}

// TestJoiningNeedsItsOwnToken: every mistake with the token is found before anything is sent.
func TestJoiningNeedsItsOwnToken(t *testing.T) {
	token := vault.JoinToken{
		Cluster: "c1", Node: "n2", ID: "id", Secret: bytes.Repeat([]byte{7}, 32), Fingerprint: make([]byte, 32), Addresses: []string{"127.0.0.1:1"},
	}
	text, err := token.Reveal()
	must(t, err)
	p := withToken(t)
	p.cfg.Join.TokenFile = filepath.Join(filepath.Dir(p.cfg.DataDir), "token")
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		is         error
		says       string
	}{
		{"of another node", text + "\n", 0o600, nil, `the join token is for node "n2" and this is "n1"`},
		{"cut", text[:len(text)-5], 0o600, vault.ErrToken, "join.token_file"},
		{"empty", "", 0o600, vault.ErrToken, "join.token_file"},
		{"of endless length", strings.Repeat(text, 100), 0o600, nil, "more than"},
		{"that others read", text, 0o644, nil, "chmod 600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.write(p.cfg.Join.TokenFile, c.text)
			must(t, os.Chmod(p.cfg.Join.TokenFile, c.mode))
			err := p.start()
			if err == nil || !strings.Contains(err.Error(), c.says) || (c.is != nil && !errors.Is(err, c.is)) || strings.Contains(err.Error(), text) {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(p.file("membership.json")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is a member: %v", err)
			}
			must(t, os.Chmod(p.cfg.Join.TokenFile, 0o600))
		})
	}
	must(t, os.Remove(p.cfg.Join.TokenFile))
	if err := p.start(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "join.token_file") {
		t.Errorf("without the file: %v", err)
	}
}

// TestCredentialsVerifyEachOther: what Found writes is what a client needs to verify the node that it founded.
func TestCredentialsVerifyEachOther(t *testing.T) {
	p := withToken(t)
	files := p.founded()
	admin, ca := certificate(t, files.Certificate), certificate(t, files.CA)
	if err := admin.CheckSignatureFrom(ca); err == nil {
		t.Error("the nodes' authority signed a client")
	}
	if !slices.Equal(admin.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || time.Until(admin.NotAfter) > time.Hour {
		t.Errorf("%v until %v", admin.ExtKeyUsage, admin.NotAfter)
	}
	if _, ok := admin.PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("its key is %T", admin.PublicKey)
	}
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}
