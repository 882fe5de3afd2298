package e2e_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// signDocument is `conclave sign -o json`.
type signDocument struct {
	Key       string `json:"key"`
	Version   int    `json:"version"`
	Algorithm string `json:"algorithm"`
	Signature string `json:"signature"`
	Node      string `json:"node"`
	Index     uint64 `json:"index"`
}

// signatures: openssl, which knows nothing of us, verifies what every node signs.
func signatures(t *testing.T, c *devCluster) {
	for _, algorithm := range c.signers() {
		name, m := "sig/"+algorithm, file(t, []byte("signed with "+algorithm))
		c.admin.ok(t, "key", "create", name, "--algorithm", algorithm)
		pem := file(t, []byte(c.admin.ok(t, "key", "public", name).out))
		for _, n := range c.nodes {
			who := c.admin.at(n.api)
			var s signDocument
			who.document(t, &s, "sign", name, "--in", m)
			if s.Key != name || s.Version != 1 || s.Algorithm != algorithm || s.Node != n.id || s.Index == 0 {
				t.Errorf("asked %s: %+v", n.id, s)
			}
			openssl(t, algorithm, pem, m, file(t, b64(t, s.Signature)))
			who.ok(t, "verify", name, "--in", m, "--signature", s.Signature)
			who.exits(t, 9, "verify", name, "--in", file(t, []byte("another message")), "--signature", s.Signature)
			who.exits(t, 9, "verify", name, "--in", m, "--signature", base64.StdEncoding.EncodeToString(make([]byte, 64)))
		}
	}
}

// openssl verifies, and refuses another message.
func openssl(t *testing.T, algorithm, pem, message, signature string) {
	t.Helper()
	verify := func(message string) ([]byte, error) {
		switch algorithm {
		case "rsa-3072":
			return exec.Command("openssl", "dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest",
				"-verify", pem, "-signature", signature, message).CombinedOutput()
		case "ed25519":
			return exec.Command("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", pem, "-rawin", "-in", message, "-sigfile", signature).CombinedOutput()
		}
		return exec.Command("openssl", "dgst", "-sha256", "-verify", pem, "-signature", signature, message).CombinedOutput()
	}
	if out, err := verify(message); err != nil {
		t.Errorf("openssl (Debian package openssl) does not verify %s: %v\n%s", algorithm, err, out)
	}
	if out, err := verify(pem); err == nil {
		t.Errorf("openssl verifies %s over another message: %s", algorithm, out)
	}
}

// schemes: one RSA key signs by the newer scheme unless the older is asked for, and each verifies as itself only.
func schemes(t *testing.T, c *devCluster) {
	c.admin.ok(t, "key", "create", "scheme/rsa", "--algorithm", "rsa-3072")
	m, pem := file(t, []byte("by an older scheme")), file(t, []byte(c.admin.ok(t, "key", "public", "scheme/rsa").out))
	for _, n := range c.nodes {
		who := c.admin.at(n.api)
		older := who.field(t, "signature", "sign", "scheme/rsa", "--in", m, "--scheme", "rsa-pkcs1-sha256")
		openssl(t, "rsa-3072 by PKCS #1 v1.5", pem, m, file(t, b64(t, older)))
		who.ok(t, "verify", "scheme/rsa", "--in", m, "--signature", older, "--scheme", "rsa-pkcs1-sha256")
		who.exits(t, 9, "verify", "scheme/rsa", "--in", m, "--signature", older)
		who.exits(t, 2, "sign", "scheme/rsa", "--in", m, "--scheme", "ecdsa-sha256")
	}
}

// digests: a digest that the caller made is signed like the message.
func digests(t *testing.T, c *devCluster) {
	message := []byte("digested by the caller")
	sum := sha256.Sum256(message)
	m, digest := file(t, message), file(t, sum[:])
	for _, algorithm := range []string{"ecdsa-p256", "ecdsa-secp256k1", "rsa-3072"} {
		name := "digest/" + algorithm
		c.admin.ok(t, "key", "create", name, "--algorithm", algorithm)
		signature := c.admin.field(t, "signature", "sign", name, "--in", digest, "--raw-digest")
		c.admin.ok(t, "verify", name, "--in", m, "--signature", signature)
		c.admin.ok(t, "verify", name, "--in", digest, "--raw-digest", "--signature", signature)
		c.admin.exits(t, 2, "sign", name, "--in", m, "--raw-digest")
		c.admin.exits(t, 2, "sign", name, "--in", m, "--scheme", "rsa-pss")
	}
	long := sha512.Sum384(message)
	c.admin.ok(t, "key", "create", "digest/p384", "--algorithm", "ecdsa-p384")
	signature := c.admin.field(t, "signature", "sign", "digest/p384", "--in", file(t, long[:]), "--raw-digest")
	c.admin.ok(t, "verify", "digest/p384", "--in", m, "--signature", signature)
	c.admin.exits(t, 2, "sign", "digest/p384", "--in", digest, "--raw-digest")
	if slices.Contains(c.signers(), "ed25519") {
		c.admin.ok(t, "key", "create", "digest/ed", "--algorithm", "ed25519")
		c.admin.exits(t, 2, "sign", "digest/ed", "--in", digest, "--raw-digest")
	}
}

// rotated: signatures of an old version verify under the key.
func rotated(t *testing.T, c *devCluster) {
	m := file(t, []byte("before the rotation"))
	c.admin.ok(t, "key", "create", "rot/s", "--algorithm", "ecdsa-p256")
	old := c.admin.field(t, "signature", "sign", "rot/s", "--in", m)
	before := c.admin.ok(t, "key", "public", "rot/s").out
	c.admin.ok(t, "key", "rotate", "rot/s")
	if v := c.admin.field(t, "version", "sign", "rot/s", "--in", m); v != "2" {
		t.Errorf("signed with version %s", v)
	}
	if v := c.admin.field(t, "version", "verify", "rot/s", "--in", m, "--signature", old); v != "1" {
		t.Errorf("the old signature verifies under version %s", v)
	}
	if first := c.admin.ok(t, "key", "public", "rot/s", "--version", "1").out; first != before {
		t.Errorf("the public key of version 1 was %q and is %q", before, first)
	}
	if second := c.admin.ok(t, "key", "public", "rot/s").out; second == before {
		t.Error("version 2 has the public key of version 1")
	}
}

// encryption: files, streams, contexts, and what was changed on the way.
func encryption(t *testing.T, c *devCluster) {
	who, plain := c.admin, []byte("for your eyes only, and for those who may decrypt")
	who.ok(t, "key", "create", "enc/a", "--algorithm", "aes-256-gcm")
	who.ok(t, "key", "create", "enc/b", "--algorithm", "aes-256-gcm")
	sealed := filepath.Join(t.TempDir(), "sealed")
	who.ok(t, "encrypt", "enc/a", "--in", file(t, plain), "--out", sealed, "--context", "tenant=7", "--context", "use=test")
	b, err := os.ReadFile(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, plain) {
		t.Error("the ciphertext holds the plaintext")
	}
	context := []string{"--context", "use=test", "--context", "tenant=7"}
	for _, n := range c.nodes {
		o := who.revealing().at(n.api).input(b).ok(t, append([]string{"decrypt", "enc/a", "--in", "-", "--out", "-"}, context...)...)
		if o.out != string(plain) {
			t.Errorf("%s decrypts to %q", n.id, o.out)
		}
	}
	who.exits(t, 9, "decrypt", "enc/a", "--in", sealed)
	who.exits(t, 9, "decrypt", "enc/a", "--in", sealed, "--context", "tenant=8", "--context", "use=test")
	who.exits(t, 9, append([]string{"decrypt", "enc/b", "--in", sealed}, context...)...)
	for i := range b {
		if i%7 != 0 && i != len(b)-1 {
			continue // every seventh byte is enough to meet each field
		}
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if o := who.input(changed).run(t, append([]string{"decrypt", "enc/a", "--in", "-"}, context...)...); o.code != 9 || o.out != "" {
			t.Errorf("byte %d changed: exit %d, %q, %s", i, o.code, o.out, o.errors)
		}
	}
	who.input(b[:len(b)/2]).exits(t, 9, append([]string{"decrypt", "enc/a", "--in", "-"}, context...)...)
	who.input(nil).exits(t, 9, "decrypt", "enc/a", "--in", "-")
	c.search(t, []canary{{"what was encrypted", plain}})
}

// sizes: a mebibyte is in, a byte more is out, and nothing is too.
func sizes(t *testing.T, c *devCluster) {
	const limit = 1 << 20
	big := make([]byte, limit+1)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	who, dir := c.admin, t.TempDir()
	who.ok(t, "key", "create", "size/enc", "--algorithm", "aes-256-gcm")
	who.ok(t, "key", "create", "size/sig", "--algorithm", c.signer())
	who.ok(t, "key", "create", "size/mac", "--algorithm", "hmac-sha256")
	over, whole := file(t, big), file(t, big[:limit])
	out := filepath.Join(dir, "out")
	who.ok(t, "encrypt", "size/enc", "--in", whole, "--out", out)
	who.ok(t, "decrypt", "size/enc", "--in", out, "--out", out+".plain")
	back, err := os.ReadFile(out + ".plain")
	if err != nil || !bytes.Equal(back, big[:limit]) {
		t.Errorf("a mebibyte comes back as %d bytes, %v", len(back), err)
	}
	mode(t, out+".plain", 0o600)
	who.ok(t, "sign", "size/sig", "--in", whole)
	who.ok(t, "mac", "size/mac", "--in", whole)
	who.exits(t, 2, "encrypt", "size/enc", "--in", over, "--out", out+".never")
	who.exits(t, 2, "sign", "size/sig", "--in", over)
	who.exits(t, 2, "mac", "size/mac", "--in", over)
	if _, err := os.Stat(out + ".never"); err == nil {
		t.Error("a refused encryption left a file")
	}
	who.input(nil).ok(t, "encrypt", "size/enc", "--in", "-", "--out", out+".empty")
	if o := who.ok(t, "decrypt", "size/enc", "--in", out+".empty"); o.out != "" {
		t.Errorf("nothing comes back as %q", o.out)
	}
}

// dataKeys: what is made for use outside comes back from its ciphertext, on every node.
func dataKeys(t *testing.T, c *devCluster) {
	c.admin.ok(t, "key", "create", "dk/a", "--algorithm", "aes-256-gcm")
	var dk struct{ Plaintext, Ciphertext, Node string }
	c.admin.revealing().document(t, &dk, "datakey", "dk/a", "--context", "a=b")
	plain := b64(t, dk.Plaintext)
	if len(plain) != 32 || dk.Node != "n1" {
		t.Fatalf("a data key of %d bytes by %s", len(plain), dk.Node)
	}
	for _, n := range c.nodes {
		o := c.admin.at(n.api).revealing().input(b64(t, dk.Ciphertext)).ok(t, "decrypt", "dk/a", "--in", "-", "--context", "a=b")
		if o.out != string(plain) {
			t.Errorf("%s decrypts another data key", n.id)
		}
	}
	c.search(t, []canary{{"a data key", plain}})
}

// macs: made on one node, verified on all.
func macs(t *testing.T, c *devCluster) {
	m := file(t, []byte("authentic"))
	c.admin.ok(t, "key", "create", "mac/a", "--algorithm", "hmac-sha256")
	mac := c.admin.field(t, "mac", "mac", "mac/a", "--in", m)
	if len(b64(t, mac)) != sha256.Size {
		t.Errorf("a MAC of %d bytes", len(b64(t, mac)))
	}
	for _, n := range c.nodes {
		who := c.admin.at(n.api)
		who.ok(t, "verify-mac", "mac/a", "--in", m, "--mac", mac)
		who.exits(t, 9, "verify-mac", "mac/a", "--in", file(t, []byte("not authentic")), "--mac", mac)
		who.exits(t, 9, "verify-mac", "mac/a", "--in", m, "--mac", base64.StdEncoding.EncodeToString([]byte("short")))
	}
}

// wrongKind: an operation that does not fit the key is an argument's fault.
func wrongKind(t *testing.T, c *devCluster) {
	c.admin.ok(t, "key", "create", "kind/aes", "--algorithm", "aes-256-gcm")
	for _, args := range [][]string{
		{"sign", "kind/aes"}, {"mac", "kind/aes"}, {"key", "public", "kind/aes"}, {"encrypt", "dev/probe"}, {"datakey", "dev/probe"}, {"mac", "dev/probe"},
	} {
		if o := c.admin.exits(t, 2, args...); strings.TrimSpace(o.out) != "" {
			t.Errorf("%s says %q", o, o.out)
		}
	}
}
