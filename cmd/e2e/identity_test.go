package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// usersSeeTheirKeys: a user gets what the label gives, and cannot tell the forbidden from the absent.
func usersSeeTheirKeys(t *testing.T, c *devCluster) {
	m := file(t, []byte("whose is it"))
	c.admin.ok(t, "key", "create", "mine/a", "--algorithm", "ecdsa-p256", "--label", "users=demo,other")
	c.admin.ok(t, "key", "create", "theirs/a", "--algorithm", "ecdsa-p256", "--label", "users=other")
	for _, n := range c.nodes {
		user := c.user.at(n.api)
		user.ok(t, "sign", "mine/a", "--in", m)
		user.ok(t, "key", "get", "mine/a")
		for _, args := range [][]string{{"sign", "NAME", "--in", m}, {"key", "get", "NAME"}, {"key", "public", "NAME"}, {"key", "history", "NAME"}, {"mac", "NAME", "--in", m}} {
			forbidden := user.exits(t, 4, named(args, "theirs/a")...)
			absent := user.exits(t, 4, named(args, "nobodys/a")...)
			if strings.ReplaceAll(forbidden.errors, "theirs/a", "X") != strings.ReplaceAll(absent.errors, "nobodys/a", "X") || forbidden.out != absent.out {
				t.Errorf("%s: forbidden and absent differ:\n%s%s", n.id, forbidden.errors, absent.errors)
			}
		}
	}
	if list := c.user.ok(t, "key", "list").out; !strings.Contains(list, "mine/a") || strings.Contains(list, "theirs/a") {
		t.Errorf("the user's list:\n%s", list)
	}
	for _, args := range [][]string{
		{"key", "create", "user/x", "--algorithm", c.signer()}, {"key", "rotate", "mine/a"}, {"key", "suspend", "mine/a", "--reason", "x"},
		{"key", "destroy", "mine/a"}, {"seal"}, {"node", "token", "n9"}, {"log", "list"}, {"pki", "issue", "--role", "administrator", "--name", "me", "--out", t.TempDir()},
	} {
		c.user.exits(t, 4, args...)
	}
	wantState(t, c.admin, "mine/a", "active")
}

func named(args []string, name string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = strings.Replace(a, "NAME", name, 1)
	}
	return out
}

// issued is a caller with a new certificate of the cluster.
func (c *cluster) issued(t *testing.T, role, name string) caller {
	t.Helper()
	dir := t.TempDir()
	c.admin.ok(t, "pki", "issue", "--role", role, "--name", name, "--out", dir)
	mode(t, filepath.Join(dir, name+".key"), 0o600)
	return c.admin.with("CONCLAVE_CERT", filepath.Join(dir, name+".crt")).with("CONCLAVE_KEY", filepath.Join(dir, name+".key"))
}

// rolesAreTakenAway: once the revocation is acknowledged, no node serves the certificate, not even on an open connection.
func rolesAreTakenAway(t *testing.T, c *devCluster) {
	m := file(t, []byte("for a while"))
	user, admin := c.issued(t, "user", "leaver"), c.issued(t, "administrator", "second")
	admin.ok(t, "key", "create", "leaver/a", "--algorithm", c.signer(), "--label", "users=leaver")
	open := c.sdk(t, user, c.nodes[2].api)
	if err := signsAt(t.Context(), open, c.nodes[2].id, "leaver/a"); err != nil {
		t.Fatal(err)
	}
	admin.ok(t, "pki", "revoke", "--role", "user", "--name", "leaver", "--reason", "left")
	if err := signsAt(t.Context(), open, c.nodes[2].id, "leaver/a"); err == nil {
		t.Error("a connection that was open before the revocation still signs")
	}
	c.admin.ok(t, "pki", "revoke", "--role", "administrator", "--name", "second", "--reason", "left too")
	for _, n := range c.nodes {
		user.at(n.api).exits(t, 4, "sign", "leaver/a", "--in", m)
		admin.at(n.api).exits(t, 4, "key", "get", "leaver/a")
	}
	again := c.issued(t, "user", "leaver") // a new certificate is a new start
	again.ok(t, "sign", "leaver/a", "--in", m)
}

// authority is a certificate authority that is none of the cluster's.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{sign(t, template, template, key, key), key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, subject, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), signer)
	var cert *x509.Certificate
	if err == nil {
		cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a client of it with the URI name.
func (a authority) issue(t *testing.T, who caller, id string, notAfter time.Time) caller {
	t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	cert := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return presents(t, who, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func presents(t *testing.T, who caller, cert, key []byte) caller {
	t.Helper()
	return who.with("CONCLAVE_CERT", file(t, cert)).with("CONCLAVE_KEY", file(t, key))
}

// strangersAreRefused: who is not of this cluster, or is no client, gets exit 4 and a reason.
func strangersAreRefused(t *testing.T, c *devCluster) {
	id := c.status(t).Cluster
	a := newAuthority(t, "a stranger's authority")
	later := time.Now().Add(time.Hour)
	nobody := c.admin.with("CONCLAVE_CERT", "").with("CONCLAVE_KEY", "")
	for name, who := range map[string]caller{
		"no certificate":             nobody,
		"a stranger's administrator": a.issue(t, c.admin, "spiffe://"+id+"/administrator/admin", later),
		"a self-made node":           a.issue(t, c.admin, "spiffe://"+id+"/node/n1", later),
		"a stranger that expired":    a.issue(t, c.admin, "spiffe://"+id+"/administrator/admin", time.Now().Add(-time.Minute)),
	} {
		for _, args := range [][]string{{"status"}, {"key", "list"}, {"sign", "dev/probe", "--in", "-"}, {"key", "create", "stranger/a", "--algorithm", c.signer()}} {
			o := who.run(t, append(args, "--timeout", "10s")...)
			if o.code != 4 || !strings.Contains(o.errors, "certificate") {
				t.Errorf("%s: %s, stderr %s", name, o, o.errors)
			}
		}
	}
	c.admin.exits(t, 3, "key", "get", "stranger/a")
	mixed := presents(t, c.admin, read(t, c.admin.env["CONCLAVE_CERT"]), read(t, c.user.env["CONCLAVE_KEY"]))
	mixed.exits(t, 2, "key", "list") // a certificate with another's key
	c.admin.with("CONCLAVE_CACERT", file(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))).
		refuses(t, 4, "certificate", "key", "list", "--timeout", "10s") // whom the client does not trust
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oldTLS: nothing below TLS 1.3 is spoken on any port.
func oldTLS(t *testing.T, c *devCluster) {
	pair, err := tls.LoadX509KeyPair(c.admin.env["CONCLAVE_CERT"], c.admin.env["CONCLAVE_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		for port, addr := range c.ports(t, n) {
			if port == "gossip" {
				continue // no TLS there; packets are sealed with the cluster's gossip key
			}
			conn, err := tls.Dial("tcp", addr, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err == nil {
				conn.Close()
				t.Errorf("%s speaks TLS 1.2 on its %s port", n.id, port)
			}
			if alert := tls.AlertError(0); err != nil && !errors.As(err, &alert) && !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("%s, %s port: TLS 1.2 ends with %v", n.id, port, err)
			}
		}
	}
}
