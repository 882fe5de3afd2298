package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/pki"
)

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der
}

func TestNodeCertificate(t *testing.T) {
	c := healthy(t)
	is(t, c.nodeCertificate(), NotApplicable, "no cluster yet")
	c.membership(t, nil, time.Now(), nil)
	is(t, c.nodeCertificate(), OK, "spiffe://c1/node/n1", "valid until")

	c.membership(t, nil, time.Now().Add(-pki.NodeLife-time.Hour), nil)
	is(t, c.nodeCertificate(), Fail, "expired at")
	c.membership(t, nil, time.Now().Add(time.Hour), nil)
	is(t, c.nodeCertificate(), Fail, "not valid before")
	c.membership(t, nil, time.Now().Add(-pki.NodeLife+20*24*time.Hour), nil)
	is(t, c.nodeCertificate(), Warn, "19 days more")

	other, err := pki.NewAuthority("c1", "node", time.Now())
	must(t, err)
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.NodeCA = other.Certificate.Raw })
	is(t, c.nodeCertificate(), Fail, "unknown authority")
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.ClusterID = "c2" })
	is(t, c.nodeCertificate(), Fail, "spiffe://c1/node/n1", "spiffe://c2/node/n1")
	c.cfg.Node = "n2"
	is(t, c.nodeCertificate(), Fail, "correct node:")
	c.cfg.Node = "n1"
	_, der := selfSigned(t)
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.Certificate = der })
	is(t, c.nodeCertificate(), Fail, "spiffe://")
	c.membership(t, nil, time.Now(), func(m *vault.Membership) { m.Certificate = []byte{1, 2} })
	is(t, c.nodeCertificate(), Fail)

	must(t, os.WriteFile(filepath.Join(c.cfg.DataDir, "membership.json"), []byte("{"), 0o600))
	_, c.notMember = node.LoadMembership(c.cfg.DataDir)
	c.member = nil
	is(t, c.nodeCertificate(), Fail, "damaged")
	is(t, c.joinToken(), NotApplicable, "cannot be read")
}

func TestValidity(t *testing.T) {
	now := time.Now()
	for name, k := range map[string]struct {
		life, left time.Duration
		want       Status
	}{
		"new": {90 * 24 * time.Hour, 80 * 24 * time.Hour, OK}, "a month left": {90 * 24 * time.Hour, 29 * 24 * time.Hour, Warn},
		"short, new": {3 * time.Hour, 2 * time.Hour, OK}, "short, a third": {3 * time.Hour, 59 * time.Minute, Warn},
		"years left": {5 * 365 * 24 * time.Hour, 365 * 24 * time.Hour, OK}, "over": {time.Hour, 0, Fail}, "to come": {time.Hour, 2 * time.Hour, Fail},
	} {
		end := now.Add(k.left)
		if got, text := validity(&x509.Certificate{NotBefore: end.Add(-k.life), NotAfter: end}, now); got != k.want {
			t.Errorf("%s: %s (%s), want %s", name, got, text, k.want)
		}
	}
}

func TestClientCredentials(t *testing.T) {
	c := healthy(t)
	only := func() Result {
		t.Helper()
		all := c.clientCredentials()
		if len(all) != 1 {
			t.Fatalf("%+v", all)
		}
		return all[0]
	}
	is(t, only(), NotApplicable)
	dir, ca := t.TempDir(), clienttest.NewCA(t, "c1")
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	pair := ca.Issue(t, ca.URI("user", "ada"))
	c.caller = Credentials{Addresses: []string{"127.0.0.1:1"}, CA: write("ca", ca.PEM()), Cert: write("cert", clienttest.CertificatePEM(pair))}
	is(t, only(), Fail, "CONCLAVE_KEY not set")
	c.caller.Key = write("key", clienttest.KeyPEM(t, pair))
	for _, r := range c.clientCredentials() {
		is(t, r, OK)
	}

	key := c.caller.Key
	c.caller.Key = filepath.Join(dir, "pipe")
	must(t, unix.Mkfifo(c.caller.Key, 0o600))
	is(t, only(), Fail, "no regular file")
	if got := c.reach(t.Context()); len(got) != 1 || got[0].Status != NotApplicable {
		t.Errorf("with a pipe for a key: %+v", got)
	}
	c.caller.Key, c.unusable = key, false

	must(t, os.Chmod(c.caller.Key, 0o640))
	is(t, c.clientKey(), Fail, "0640", "chmod 600")
	must(t, os.Chmod(c.caller.Key, 0o600))
	write("key", clienttest.KeyPEM(t, ca.Issue(t)))
	is(t, c.clientKey(), Fail, "is not the key of")
	must(t, os.Remove(c.caller.Key))
	is(t, c.clientKey(), Fail, "no such file")

	write("cert", clienttest.CertificatePEM(ca.IssueUntil(t, time.Now().Add(-time.Minute), ca.URI("user", "ada"))))
	is(t, c.clientCertificate(), Fail, "expired", "--role user --name ada")
	write("cert", clienttest.CertificatePEM(ca.IssueUntil(t, time.Now().Add(3*time.Hour), ca.URI("user", "ada"))))
	is(t, c.clientCertificate(), Fail, "not valid before")
	write("cert", clienttest.CertificatePEM(ca.IssueUntil(t, time.Now().Add(time.Minute), ca.URI("user", "ada"))))
	is(t, c.clientCertificate(), Warn, "--role user --name ada")
	write("cert", clienttest.CertificatePEM(ca.Issue(t)))
	is(t, c.clientCertificate(), Fail, "spiffe://")
	write("cert", []byte("nonsense"))
	is(t, c.clientCertificate(), Fail, "no PEM certificate")
	must(t, os.Remove(c.caller.Cert))
	is(t, c.clientCertificate(), Fail, "no such file")

	c.membership(t, nil, time.Now(), nil)
	is(t, c.clientAuthority(), Warn, "another cluster's")
	write("ca", []byte("nonsense"))
	is(t, c.clientAuthority(), Fail, "no PEM certificate")
	must(t, os.Remove(c.caller.CA))
	is(t, c.clientAuthority(), Fail, "no such file")
}

var cheap = soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 8, Threads: 1}}

func TestHSM(t *testing.T) {
	c := healthy(t)
	path := node.TokenPath(c.cfg.DataDir)
	is(t, checkHSM(t.Context(), c.cfg), NotApplicable, "no token yet")
	token, err := soft.Create(path, []byte("correct horse"), cheap)
	must(t, err)
	is(t, checkHSM(t.Context(), c.cfg), OK, "in use by a running node (pid ")
	serial, public := token.Info().Serial, token.Identity().Public()
	must(t, token.Close())
	is(t, checkHSM(t.Context(), c.cfg), OK, "conclave soft token", serial, "memory", "can: aes-128-gcm")

	c.membership(t, public, time.Now(), nil)
	is(t, checkHSM(t.Context(), c.cfg), OK, serial)
	c.membership(t, nil, time.Now(), nil)
	is(t, checkHSM(t.Context(), c.cfg), Fail, "not that of the node's certificate")

	pin := c.cfg.HSM.PIN.File
	must(t, os.WriteFile(pin, []byte("another one"), 0o600))
	is(t, checkHSM(t.Context(), c.cfg), Fail, "does not open the token")
	must(t, os.Remove(pin))
	is(t, checkHSM(t.Context(), c.cfg), Fail, "no such file")
	must(t, os.WriteFile(pin, []byte("correct horse"), 0o600))
	must(t, os.WriteFile(path, []byte("CNCLVSFT"), 0o600))
	is(t, checkHSM(t.Context(), c.cfg), Fail, "keystore")
	if os.Geteuid() == 0 {
		must(t, os.Remove(path+".lock"))
		must(t, os.Chown(path, 65534, 65534))
		is(t, checkHSM(t.Context(), c.cfg), NotApplicable, "user 65534")
		if _, err := os.Stat(path + ".lock"); err == nil {
			t.Error("a lock file was made that its owner cannot open")
		}
	}
	fd := 3
	c.cfg.HSM.PIN.File, c.cfg.HSM.PIN.FD = "", &fd
	is(t, checkHSM(t.Context(), c.cfg), NotApplicable, "unattended")
}

// lesser is a token that lacks something, as devices do.
type lesser struct{ hsm.Token }

func (l lesser) Capabilities() []hsm.Capability {
	rows := l.Token.Capabilities()
	rows[0].Can, rows[0].Missing = hsm.CanGenerate, "key wrap of aes-128-gcm: no mechanism"
	return rows
}

func TestHSMNamesWhatIsMissing(t *testing.T) {
	c := healthy(t)
	token, err := soft.Create(node.TokenPath(c.cfg.DataDir), []byte("correct horse"), cheap)
	must(t, err)
	defer token.Close()
	is(t, tokenResult(lesser{token}, c.cfg), Warn, "cannot: aes-128-gcm (key wrap of aes-128-gcm: no mechanism)")
}

func TestJoinToken(t *testing.T) {
	c := healthy(t)
	is(t, c.joinToken(), NotApplicable, "conclave init")
	path := filepath.Join(filepath.Dir(c.cfg.DataDir), "token")
	c.cfg.Join.TokenFile = path
	is(t, c.joinToken(), Fail, "no such file", "conclave node token n1")
	for node, want := range map[string]Status{"n1": OK, "n2": Fail} {
		token := vault.JoinToken{
			Cluster: "c1", Node: fsm.NodeID(node), ID: "t", Secret: make([]byte, 32), Fingerprint: make([]byte, 32), Addresses: []string{"192.0.2.1:7444"},
		}
		text, err := token.Reveal()
		must(t, err)
		must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		is(t, c.joinToken(), want, "for ")
	}
	must(t, os.WriteFile(path, []byte("conclave-join"), 0o600))
	is(t, c.joinToken(), Fail, "no join token")
	must(t, os.Chmod(path, 0o644))
	is(t, c.joinToken(), Fail, "0644")
}
