package e2e_test

import (
	"bytes"
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inAndOut: a key of openssl's comes in through one node, is used at another, and leaves through a third, to openssl, which finds the key that it made.
func inAndOut(t *testing.T, c *devCluster) {
	i := slices.IndexFunc(c.nodes, func(n *member) bool { return n.hsm != "softhsm" })
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	withOpenssl(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", path("bank.key"))
	withOpenssl(t, "pkey", "-in", path("bank.key"), "-pubout", "-out", path("bank.pem"))
	if i < 0 { // no token here takes or hands out material, and each says why
		c.admin.ok(t, "key", "create", "moved/a", "--algorithm", "ecdsa-p256", "--exportable")
		o := c.admin.refuses(t, 2, "CKM_RSA_AES_KEY_WRAP", "key", "export", "moved/a", "--to", path("bank.pem"), "--out", path("w"))
		for _, n := range c.nodes {
			if !strings.Contains(o.errors, "node "+n.id) {
				t.Errorf("the refusal does not name %s: %s", n.id, o.errors)
			}
		}
		return
	}
	at := func(k int) caller { return c.admin.at(c.nodes[(i+k)%len(c.nodes)].api) }
	withOpenssl(t, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path("key.pem"))
	withOpenssl(t, "pkey", "-in", path("key.pem"), "-pubout", "-outform", "DER", "-out", path("pub.der"))
	at(0).ok(t, "key", "import", "moved/a", "--algorithm", "ecdsa-p256", "--plain-file", path("key.pem"), "--form", "ecdh", "--exportable")

	message := file(t, []byte("moved"))
	signature := file(t, b64(t, at(1).field(t, "signature", "sign", "moved/a", "--in", message)))
	withOpenssl(t, "dgst", "-sha256", "-prverify", path("key.pem"), "-signature", signature, message)

	at(2).ok(t, "key", "export", "moved/a", "--version", "1", "--to", path("bank.pem"), "--out", path("w"))
	mode(t, path("w"), 0o600)
	wrapped := read(t, path("w"))
	withOpenssl(t, "pkeyutl", "-decrypt", "-inkey", path("bank.key"), "-in", file(t, wrapped[:384]), "-out", path("kek"),
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	withOpenssl(t, "enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(read(t, path("kek"))), "-iv", "A65959A6", "-in", file(t, wrapped[384:]), "-out", path("out.der"))
	withOpenssl(t, "pkey", "-inform", "DER", "-in", path("out.der"), "-pubout", "-outform", "DER", "-out", path("again.der"))
	if !bytes.Equal(read(t, path("again.der")), read(t, path("pub.der"))) {
		t.Error("another key came out than went in")
	}

	c.user.exits(t, 4, "key", "export", "moved/a", "--to", path("bank.pem"), "--out", path("never"))
	at(1).ok(t, "key", "update", "moved/a", "--never-exportable")
	at(2).refuses(t, 8, "never to be exported", "key", "export", "moved/a", "--to", path("bank.pem"), "--out", path("never"))
	wantHistory(t, c.admin, "moved/a", "key.import", "key.export", "key.update")
}
