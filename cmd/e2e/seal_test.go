package e2e_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/vault/ceremony"
)

// TestSealedUntilCustodiansCome restarts a whole cluster: it comes back sealed, works as far as a sealed one does, refuses a wrong
// share, and is unsealed through any nodes.
func TestSealedUntilCustodiansCome(t *testing.T) {
	t.Parallel()
	c := own(t, "ceremony")
	m := file(t, []byte("before the restart"))
	c.admin.ok(t, "key", "create", "kept", "--algorithm", c.signer())
	signature := c.admin.field(t, "signature", "sign", "kept", "--in", m)
	c.equalDigests(t)

	c.restart(t)
	sealedEverywhere(t, c, m)
	worksWhileSealed(t, c)
	wrongShares(t, c)
	c.unseal(t, "carol", "alice")
	c.serving(t, 20*time.Second)
	for _, n := range c.nodes {
		c.admin.at(n.api).ok(t, "verify", "kept", "--in", m, "--signature", signature)
		c.admin.at(n.api).exits(t, 8, "sign", "kept", "--in", m) // suspended while sealed
	}
	c.admin.ok(t, "key", "resume", "kept", "--reason", "open again")
	c.admin.ok(t, "sign", "kept", "--in", m)

	c.admin.ok(t, "seal", "--reason", "the end of the day")
	sealedEverywhere(t, c, m)
	c.unseal(t, "bob", "alice")
	c.serving(t, 20*time.Second)
	c.admin.ok(t, "sign", "kept", "--in", m)
	c.healthy(t)
}

// sealedEverywhere demands exit 7 for what needs a key, on every node, and that status shows it.
func sealedEverywhere(t *testing.T, c *ownCluster, m string) {
	t.Helper()
	for _, n := range c.nodes {
		who := c.admin.at(n.api)
		who.refuses(t, 7, "unseal", "sign", "kept", "--in", m)
		who.exits(t, 7, "key", "create", "sealed/never", "--algorithm", c.signer())
		who.ok(t, "key", "get", "kept")
		who.ok(t, "key", "public", "kept")
	}
	for _, n := range c.status(t).Nodes {
		if !n.Sealed {
			t.Errorf("%s says that it is not sealed", n.ID)
		}
	}
}

// worksWhileSealed: a sealed cluster votes, replicates and logs.
func worksWhileSealed(t *testing.T, c *ownCluster) {
	t.Helper()
	who := c.issued(t, "user", "while-sealed")
	who.exits(t, 4, "sign", "kept", "--in", "-")
	c.admin.ok(t, "node", "token", "m9", "--out", filepath.Join(c.secrets, "m9.token"))
	c.admin.ok(t, "key", "suspend", "kept", "--reason", "while sealed")
	c.equalDigests(t)
	c.admin.ok(t, "log", "verify")
	log := c.admin.ok(t, "log", "list", "-o", "json").out
	for _, action := range []string{"certificate.issue", "node.token", "key.suspend"} {
		if !strings.Contains(log, action) {
			t.Errorf("the log lacks %s", action)
		}
	}
}

// wrongShares: a stranger's identity, and an identity with somebody else's share, are refused at once with the custodian's name.
func wrongShares(t *testing.T, c *ownCluster) {
	t.Helper()
	stranger := filepath.Join(c.secrets, "mallory.custodian")
	c.admin.ok(t, "custodian", "new", "--name", "mallory", "--out", stranger)
	o := c.admin.run(t, "ceremony", "unseal", "--identity", stranger)
	if o.code == 0 || !strings.Contains(o.errors, "mallory") {
		t.Errorf("a stranger's identity: %s: %s%s", o, o.out, o.errors)
	}
	honest := read(t, c.custodian("alice"))
	if err := os.WriteFile(c.custodian("alice"), withShareOf(t, c.custodian("alice"), c.custodian("bob")), 0o600); err != nil {
		t.Fatal(err)
	}
	o = c.admin.at(c.nodes[2].api).run(t, "ceremony", "unseal", "--identity", c.custodian("alice"))
	if o.code == 0 || !strings.Contains(o.errors, "alice") {
		t.Errorf("an identity with another's share: %s: %s%s", o, o.out, o.errors)
	}
	t.Logf("an identity with another's share: %s: %s", o, o.errors)
	if err := os.WriteFile(c.custodian("alice"), honest, 0o600); err != nil {
		t.Fatal(err)
	}
	if log := c.admin.ok(t, "log", "list", "-o", "json").out; !strings.Contains(log, "share.refuse") || !strings.Contains(log, "custodian/alice") {
		t.Errorf("the refusal is not in the log: %s", log)
	}
	for _, n := range c.status(t).Nodes {
		if !n.Sealed {
			t.Errorf("%s is unsealed by wrong shares", n.ID)
		}
	}
}

// withShareOf puts the share of another identity into an identity file, sealed as if it were the custodian's own.
func withShareOf(t *testing.T, path, other string) []byte {
	t.Helper()
	text := read(t, path)
	mine, theirs := openIdentity(t, path), openIdentity(t, other)
	kept := mine.Shares()[0]
	share, err := theirs.Share(kept.ClusterID, kept.Generation)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := ceremony.SealShareToCustodian(mine.Public().Recipient, share, ceremony.Info{
		ClusterID: kept.ClusterID, Ceremony: kept.Ceremony, Custodian: mine.Name(),
	})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	return bytes.Replace(text, []byte(encode(kept.Sealed)), []byte(encode(sealed)), 1)
}

func openIdentity(t *testing.T, path string) *ceremony.Identity {
	t.Helper()
	i, err := ceremony.LoadIdentity(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Wipe)
	return i
}

// TestPersistentMaster: with `seal: persistent` a restart needs the PIN alone, until somebody orders to seal.
func TestPersistentMaster(t *testing.T) {
	t.Parallel()
	persistentMaster(t, own(t, "persistent"))
}

func persistentMaster(t *testing.T, c *ownCluster) {
	t.Helper()
	m := file(t, []byte("persistent"))
	c.admin.ok(t, "key", "create", "kept", "--algorithm", "hmac-sha256")
	mac := c.admin.field(t, "mac", "mac", "kept", "--in", m)

	c.restart(t)
	c.serving(t, 30*time.Second)
	for _, n := range c.nodes {
		c.admin.at(n.api).ok(t, "verify-mac", "kept", "--in", m, "--mac", mac)
	}
	c.healthy(t)

	c.admin.ok(t, "seal", "--reason", "for good this time")
	for range 2 { // at once, and after a restart too: the kept master is forgotten
		for _, n := range c.nodes {
			c.admin.at(n.api).exits(t, 7, "mac", "kept", "--in", m)
		}
		c.restart(t)
	}
	c.unseal(t, "bob", "carol")
	c.serving(t, 20*time.Second)
	for _, n := range c.nodes {
		c.admin.at(n.api).ok(t, "verify-mac", "kept", "--in", m, "--mac", mac)
	}
	c.healthy(t)
}
