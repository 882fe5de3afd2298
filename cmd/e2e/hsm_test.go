package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// softHSM is the module that Debian's package softhsm2 installs.
func softHSM(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("SoftHSM 2 is missing: install Debian's package softhsm2")
	return ""
}

// signers are the signing algorithms that every node of the cluster can use: Debian's SoftHSM 2.6.1 cannot wrap Ed25519 keys.
func (c *cluster) signers() []string {
	all := []string{"ed25519", "ecdsa-p256", "ecdsa-secp256k1", "rsa-3072"}
	if slices.ContainsFunc(c.nodes, func(n *member) bool { return n.hsm == "softhsm" }) {
		return all[1:]
	}
	return all
}

// signer is an algorithm for tests that need a signing key and care for nothing else.
func (c *cluster) signer() string { return c.signers()[0] }

// pkcs11Section is a node's token in its configuration.
type pkcs11Section struct {
	Module      string            `yaml:"module"`
	Token       string            `yaml:"token"`
	Serial      string            `yaml:"serial,omitempty"`
	Environment map[string]string `yaml:"environment"`
}

// equip gives a node a SoftHSM token in a folder of its own, and initialises it as an operator would.
func (c *ownCluster) equip(t *testing.T, n *member) {
	t.Helper()
	tokens, conf := filepath.Join(n.dir, "softhsm", "tokens"), filepath.Join(n.dir, "softhsm", "softhsm2.conf")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.hsm = "softhsm"
	doc := c.docs[slices.Index(c.nodes, n)]
	doc.HSM.Type = "pkcs11"
	doc.HSM.PKCS11 = &pkcs11Section{Module: softHSM(t), Token: "token of " + n.id, Environment: map[string]string{"SOFTHSM2_CONF": conf}}
	doc.write(t, n)
	so := c.secret(t, n.id+".so-pin", "the officer's pin of "+n.id)
	c.admin.ok(t, "hsm", "init", "--config", n.config(), "--so-pin-file", so)
	c.admin.refuses(t, 1, "exists", "hsm", "init", "--config", n.config(), "--so-pin-file", so)
}

// TestDevices: status shows each node's model and library; an algorithm that a device lacks is refused by every node, with the node and
// the mechanism that stand in its way, and the list of nodes has them; nothing of the embedded token is beside a device.
func TestDevices(t *testing.T) {
	t.Parallel()
	softHSM(t)
	c := dev(t, "--hsm", "soft,softhsm,softhsm")
	for _, n := range c.status(t).Nodes {
		device := n.ID != "n1"
		if strings.Contains(n.HSM, "SoftHSM") != device || strings.Contains(n.Library, "libsofthsm2.so") != device || n.Library == "" {
			t.Errorf("%s has the HSM %q, library %q", n.ID, n.HSM, n.Library)
		}
	}
	for _, n := range c.nodes {
		o := c.admin.at(n.api).refuses(t, 2, "CKM_AES_KEY_WRAP_PAD", "key", "create", "no/ed25519", "--algorithm", "ed25519")
		if !strings.Contains(o.errors, "node n2") && !strings.Contains(o.errors, "node n3") {
			t.Errorf("asked %s, the refusal names no node: %s", n.id, o.errors)
		}
		keystores, err := filepath.Glob(filepath.Join(n.data(), "*keystore*"))
		if err != nil || (len(keystores) != 0) != (n.hsm != "softhsm") {
			t.Errorf("%s (%s) has the keystores %q, %v", n.id, n.hsm, keystores, err)
		}
	}
	list := c.admin.ok(t, "node", "list", "-o", "json").out
	if strings.Count(list, `{"algorithm":"ed25519","why":"CKM_AES_KEY_WRAP_PAD`) != 2 || strings.Count(list, `{"algorithm":"rsa-3072-oaep","why":"CKM_RSA_PKCS_OAEP`) != 2 {
		t.Errorf("the list of nodes does not say what two devices lack: %s", list)
	}
	for capability, nodes := range map[string]int{
		`{"algorithm":"ed25519","operations":["generate"],"missing":["import","wrap","unwrap","sign"],"why":"CKM_AES_KEY_WRAP_PAD`: 2,
		`{"algorithm":"ed25519","operations":["generate","import","wrap","unwrap","sign"],"missing":[],"why":""}`:                  1,
		`{"algorithm":"ecdh-p256","operations":["generate","import","wrap","unwrap","agree"],"missing":[],"why":""}`:               3,
		`{"algorithm":"ml-kem-768","operations":[],"missing":["generate","import","wrap","unwrap","decapsulate"]`:                  2,
	} {
		if got := strings.Count(list, capability); got != nodes {
			t.Errorf("%d nodes have %s, want %d: %s", got, capability, nodes, list)
		}
	}
}

// TestPersistentMasterOnSoftHSM: the masters stay on the tokens, and a restart needs the PINs only.
func TestPersistentMasterOnSoftHSM(t *testing.T) {
	t.Parallel()
	persistentMaster(t, own(t, "persistent", 0, 1, 2))
}

// TestSealAndUnsealOnSoftHSM: sealed by an order and by a kill, unsealed by custodians, with one embedded token among the devices.
func TestSealAndUnsealOnSoftHSM(t *testing.T) {
	t.Parallel()
	c := own(t, "ceremony", 0, 2)
	m := file(t, []byte("before"))
	c.admin.ok(t, "key", "create", "kept", "--algorithm", c.signer())
	signature := c.admin.field(t, "signature", "sign", "kept", "--in", m)
	c.admin.ok(t, "seal", "--reason", "the end of the day")
	sealedEverywhere(t, c, m)
	c.unseal(t, "bob", "alice")
	c.serving(t, 20*time.Second)
	victim := c.nodes[2]
	if err := c.servers[victim.id].signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := c.servers[victim.id].ended(stopTime); err != nil || code != -1 {
		t.Fatalf("killed, the server ended with %d, %v", code, err)
	}
	c.start(t, victim)
	c.back(t)
	c.admin.at(victim.api).refuses(t, 7, "unseal", "sign", "kept", "--in", m)
	c.unseal(t, "carol", "alice")
	c.serving(t, 20*time.Second)
	for _, n := range c.nodes {
		c.admin.at(n.api).ok(t, "verify", "kept", "--in", m, "--signature", signature)
		c.admin.at(n.api).ok(t, "sign", "kept", "--in", m)
	}
	c.healthy(t)
}

// TestNoFallback: a node whose device does not open does not start, says why, and makes no token of another kind.
func TestNoFallback(t *testing.T) {
	t.Parallel()
	module := softHSM(t)
	c := unfounded(t, "ceremony")
	n := c.nodes[0]
	c.equip(t, n)
	c.secret(t, "wrong.pin", "not the pin of this token")
	c.admin.refuses(t, 1, "no keys of a node", "hsm", "probe", "--config", n.config())
	c.admin.ok(t, "init", "--config", n.config(), "--out", c.secrets)
	type probed struct {
		Algorithm   string
		Usable      bool
		Can, Cannot []string
		Missing     string
	}
	var found struct {
		Backend    string
		Model      string
		Algorithms []probed
	}
	c.admin.document(t, &found, "hsm", "probe", "--config", n.config())
	for _, row := range found.Algorithms {
		lacks := strings.Contains(row.Missing, "CKR_KEY_NOT_WRAPPABLE")
		if lacks != (row.Algorithm == "ed25519") || (len(row.Cannot) == 0) != (row.Missing == "") || !row.Usable && slices.Contains(c.signers(), row.Algorithm) {
			t.Errorf("the probe says %+v", row)
		}
	}
	i := slices.IndexFunc(found.Algorithms, func(row probed) bool { return row.Algorithm == "ed25519" })
	if ed := found.Algorithms[max(i, 0)]; strings.Join(ed.Can, " ") != "generate" || strings.Join(ed.Cannot, " ") != "import wrap unwrap sign" {
		t.Errorf("of Ed25519 the probe says %+v", ed)
	}
	if found.Backend != "pkcs11" || !strings.Contains(found.Model, "SoftHSM") || len(found.Algorithms) == 0 {
		t.Errorf("the probe says %+v", found)
	}
	good := read(t, n.config())
	for name, test := range map[string]struct{ old, with, says string }{
		"no module":       {module, "/nowhere/libcard.so", "/nowhere/libcard.so"},
		"no PKCS#11":      {module, "/etc/hostname", "/etc/hostname"},
		"no such token":   {"token: token of m1", "token: another", "another"},
		"a wrong PIN":     {"m1.pin", "wrong.pin", "PIN"},
		"another serial":  {"token: token of m1", "token: token of m1\n        serial: \"0000000000000000\"", "0000000000000000"},
		"the other token": {"type: pkcs11", "type: soft", "hsm.pkcs11"},
	} {
		c.replaced(t, test.old, test.with)
		c.admin.refuses(t, 1, test.says, "server", "--config", n.config())
		if name == "a wrong PIN" {
			c.admin.refuses(t, 1, "do not try others: devices lock themselves", "hsm", "probe", "--config", n.config())
		}
		if keystores, err := filepath.Glob(filepath.Join(n.data(), "*keystore*")); err != nil || len(keystores) != 0 {
			t.Errorf("%s: a soft token was made: %q, %v", name, keystores, err)
		}
		if err := os.WriteFile(n.config(), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
