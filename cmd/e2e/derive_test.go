package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// serves reports whether every node of the cluster can use an algorithm, by its own word.
func (c *cluster) serves(t *testing.T, algorithm string) bool {
	t.Helper()
	var list struct {
		Items []struct{ Algorithms []string }
	}
	c.admin.document(t, &list, "node", "list")
	for _, n := range list.Items {
		if !slices.Contains(n.Algorithms, algorithm) {
			return false
		}
	}
	return len(list.Items) != 0
}

// creates makes a key of the algorithm, or checks that it is refused because a node lacks it. It reports which.
func (c *cluster) creates(t *testing.T, name, algorithm string) bool {
	t.Helper()
	if !c.serves(t, algorithm) {
		o := c.admin.refuses(t, 2, algorithm, "key", "create", name, "--algorithm", algorithm)
		if !strings.Contains(o.errors, "node n") {
			t.Errorf("the refusal of %s names no node: %s", algorithm, o.errors)
		}
		return false
	}
	c.admin.ok(t, "key", "create", name, "--algorithm", algorithm)
	return true
}

// withOpenssl runs openssl and demands success.
func withOpenssl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %q (Debian package openssl): %v\n%s", args, err, out)
	}
}

// agreements: openssl, which knows nothing of us, agrees with every node on the same secret.
func agreements(t *testing.T, c *devCluster) {
	dir := t.TempDir()
	agreed := 0
	for algorithm, generate := range map[string][]string{
		"ecdh-p256":   {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"ecdh-x25519": {"genpkey", "-algorithm", "X25519"},
	} {
		name := "agree/" + algorithm
		if !c.creates(t, name, algorithm) {
			continue
		}
		agreed++
		private, public, theirs := filepath.Join(dir, algorithm+".key"), filepath.Join(dir, algorithm+".pub"), filepath.Join(dir, algorithm+".secret")
		withOpenssl(t, append(generate, "-out", private)...)
		withOpenssl(t, "pkey", "-in", private, "-pubout", "-out", public)
		withOpenssl(t, "pkeyutl", "-derive", "-inkey", private, "-peerkey", file(t, []byte(c.admin.ok(t, "key", "public", name).out)), "-out", theirs)
		want := read(t, theirs)
		for _, n := range c.nodes {
			out := filepath.Join(dir, algorithm+"."+n.id)
			c.admin.at(n.api).ok(t, "agree", name, "--peer", public, "--out", out)
			if got := read(t, out); !bytes.Equal(got, want) || len(got) != 32 {
				t.Errorf("%s on %s: %x, openssl has %x", algorithm, n.id, got, want)
			}
			mode(t, out, 0o600)
		}
		own := file(t, []byte(c.admin.ok(t, "key", "public", name).out))
		c.admin.exits(t, 2, "agree", name, "--peer", own)
		c.admin.exits(t, 2, "agree", name, "--peer", private)
		c.admin.exits(t, 2, "sign", name)
		c.user.exits(t, 4, "agree", name, "--peer", public)
		c.user.exits(t, 4, "agree", "no/such/key", "--peer", public)
		c.admin.ok(t, "key", "suspend", name, "--reason", "test")
		c.admin.exits(t, 8, "agree", name, "--peer", public)
		c.search(t, []canary{{"an agreed secret", want}})
	}
	if agreed == 0 {
		t.Error("no algorithm of agreement can be used")
	}
}

// encapsulations: what is made for the holder, every node opens, and openssl's answer to a wrong use is ours.
func encapsulations(t *testing.T, c *devCluster) {
	if !c.creates(t, "kem/a", "ml-kem-768") {
		return
	}
	dir := t.TempDir()
	ciphertext, shared := filepath.Join(dir, "ciphertext"), filepath.Join(dir, "shared")
	version := c.admin.field(t, "version", "encapsulate", "kem/a", "--out", ciphertext, "--key-out", shared)
	c.admin.ok(t, "key", "rotate", "kem/a")
	want := read(t, shared)
	for _, n := range c.nodes {
		out := filepath.Join(dir, n.id)
		c.admin.at(n.api).ok(t, "decapsulate", "kem/a", "--version", version, "--in", ciphertext, "--out", out)
		if got := read(t, out); !bytes.Equal(got, want) || len(got) != 32 {
			t.Errorf("%s decapsulates %x, want %x", n.id, got, want)
		}
	}
	c.admin.ok(t, "decapsulate", "kem/a", "--version", "2", "--in", ciphertext, "--out", shared+".2")
	if bytes.Equal(read(t, shared+".2"), want) {
		t.Error("another version leads to the same key")
	}
	c.user.exits(t, 4, "decapsulate", "kem/a", "--version", version, "--in", ciphertext)
	c.user.exits(t, 4, "encapsulate", "kem/a")
	c.admin.exits(t, 2, "decapsulate", "kem/a", "--version", version, "--in", shared)
	c.admin.exits(t, 2, "encrypt", "kem/a", "--in", shared)
	c.search(t, []canary{{"an encapsulated key", want}})
}

// decryptionKeys: openssl encrypts with the public half, every node decrypts; and the other way round what encrypt makes is a plain
// ciphertext of the standard.
func decryptionKeys(t *testing.T, c *devCluster) {
	if !c.creates(t, "oaep/a", "rsa-2048-oaep") {
		return
	}
	plain := []byte("a key for somebody who is away")
	public, sealed := file(t, []byte(c.admin.ok(t, "key", "public", "oaep/a").out)), filepath.Join(t.TempDir(), "sealed")
	withOpenssl(t, "pkeyutl", "-encrypt", "-pubin", "-inkey", public, "-in", file(t, plain), "-out", sealed,
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	c.admin.ok(t, "key", "rotate", "oaep/a")
	ours := sealed + ".ours"
	c.admin.ok(t, "encrypt", "oaep/a", "--in", file(t, plain), "--out", ours)
	for _, n := range c.nodes {
		for path, version := range map[string]string{sealed: "1", ours: "2"} {
			for _, asked := range []string{"0", version} {
				if o := c.admin.at(n.api).revealing().ok(t, "decrypt", "oaep/a", "--in", path, "--version", asked); o.out != string(plain) {
					t.Errorf("%s decrypts %s to %q", n.id, path, o.out)
				}
			}
		}
	}
	c.user.exits(t, 4, "decrypt", "oaep/a", "--in", sealed)
	c.user.exits(t, 4, "encrypt", "oaep/a", "--in", public)
	c.admin.exits(t, 9, "decrypt", "oaep/a", "--in", sealed, "--version", "2")
	changed := read(t, sealed)
	changed[9] ^= 1
	c.admin.exits(t, 9, "decrypt", "oaep/a", "--in", file(t, changed))
	c.admin.exits(t, 2, "decrypt", "oaep/a", "--in", sealed, "--context", "a=b")
	c.admin.exits(t, 2, "encrypt", "oaep/a", "--in", file(t, make([]byte, 191)))
	c.admin.exits(t, 2, "datakey", "oaep/a")
	if info, err := os.Stat(ours); err != nil || info.Size() != 256 {
		t.Errorf("a ciphertext of %v bytes, %v", info, err)
	}
}
