package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lone is a cluster of one node that was founded, and runs.
func lone(t *testing.T) *ownCluster {
	t.Helper()
	c := unfounded(t, "ceremony")
	c.found(t)
	return c
}

// replaced rewrites part of the first node's configuration.
func (c *ownCluster) replaced(t *testing.T, old, with string) {
	t.Helper()
	path := c.nodes[0].config()
	b := read(t, path)
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q:\n%s", path, old, b)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(with), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConfigurationIsStrict: each mistake is refused with what to do about it, and makes nothing.
func TestConfigurationIsStrict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ old, with, says string }{
		"an unknown field":       {"node: m1\n", "node: m1\ncolour: blue\n", "line 2"},
		"a wrong type":           {"node: m1\n", "node: [m1]\n", "line 1"},
		"a PIN in the file":      {"    pin:\n", "    pin:\n        value: 1234\n", "line"},
		"no node":                {"node: m1\n", "", "node"},
		"a name that is none":    {"node: m1\n", "node: M_1\n", "node"},
		"no port":                {"bind: 127.0.0.1:", "bind: 127.0.0.1 ", "bind"},
		"an address for nobody":  {"bind: 127.0.0.1:", "bind: 0.0.0.0:", "advertise"},
		"an HSM of another kind": {"    pin:\n", "    type: pkcs11\n    pin:\n", "pkcs11"},
		"another network":        {"node: m1\n", "node: m1\nnetwork: none\n", "network"},
		"no source for the PIN":  {"        file: ", "        # file: ", "pin"},
	} {
		t.Run(name, func(t *testing.T) {
			c := unfounded(t, "ceremony")
			c.replaced(t, test.old, test.with)
			for _, args := range [][]string{{"init", "--config", c.nodes[0].config(), "--out", c.secrets}, {"server", "--config", c.nodes[0].config()}} {
				o := c.admin.run(t, args...)
				if (o.code != 1 && o.code != 2) || !strings.Contains(o.errors, test.says) {
					t.Errorf("%s: want the word %q in: %s", o, test.says, o.errors)
				}
			}
			if _, err := os.Stat(c.nodes[0].data()); err == nil {
				t.Error("a refused configuration made a data directory")
			}
		})
	}
}

// TestPINs: who may read the file, where else a PIN comes from, and a wrong one.
func TestPINs(t *testing.T) {
	t.Parallel()
	c := unfounded(t, "ceremony")
	n := c.nodes[0]
	pin := filepath.Join(c.secrets, n.id+".pin")
	if err := os.Chmod(pin, 0o644); err != nil {
		t.Fatal(err)
	}
	initialise := []string{"init", "--config", n.config(), "--out", c.secrets}
	c.admin.refuses(t, 1, "chmod 600 "+pin, initialise...)
	if err := os.Chmod(pin, 0o600); err != nil {
		t.Fatal(err)
	}
	c.admin.ok(t, initialise...)
	before := read(t, filepath.Join(c.secrets, "admin.key"))
	c.admin.exits(t, 1, initialise...)
	c.admin.exits(t, 1, "init", "--config", n.config(), "--out", filepath.Join(c.secrets, "elsewhere"))
	if err := os.RemoveAll(filepath.Join(c.secrets, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, read(t, filepath.Join(c.secrets, "admin.key"))) {
		t.Error("a second init changed the administrator's key")
	}
	right := string(read(t, pin))
	c.secret(t, n.id+".pin", "not the pin of this node")
	c.admin.refuses(t, 1, "PIN", "server", "--config", n.config())
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	c.admin.refuses(t, 1, pin, "server", "--config", n.config())

	c.replaced(t, "file: "+pin, "fd: 3")
	serveWithPIN(t, n, right)
	c.search(t, []canary{{"the PIN", []byte(strings.TrimSpace(right))}})
}

// serveWithPIN starts a node that reads its PIN from descriptor 3, and stops it once it runs.
func serveWithPIN(t *testing.T, n *member, pin string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(pin); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd := exec.Command(program, "server", "--config", n.config())
	cmd.ExtraFiles = []*os.File{r}
	s, err := spawn("a server with its PIN on a descriptor", cmd)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the node leads", func() error {
		if strings.Contains(s.err.String(), `"leading"`) || !s.running() {
			return nil
		}
		return errSlow
	})
	if err := s.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := s.ended(stopTime); err != nil || code != 0 {
		t.Errorf("with the PIN on a descriptor: exit %d, %v\n%s", code, err, s.err)
	}
}

// TestOneServerPerDataDirectory: a second one is refused, and the first goes on. Without init there is no server at all.
func TestOneServerPerDataDirectory(t *testing.T) {
	t.Parallel()
	c := unfounded(t, "ceremony")
	n := c.nodes[0]
	c.admin.refuses(t, 1, "conclave init", "server", "--config", n.config())
	c.found(t)
	c.admin.exits(t, 1, "server", "--config", n.config())
	if err := c.answers(t, 1); err != nil {
		t.Errorf("after a second server: %v", err)
	}
	moved := strings.Replace(string(read(t, n.config())), "node: "+n.id, "node: other", 1)
	c.stop(t, n)
	if err := os.WriteFile(n.config(), []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	c.admin.refuses(t, 1, "keeps its name", "server", "--config", n.config())
}

// joinToken is the text of a token, taken apart.
type joinToken map[string]any

const tokenPrefix = "conclave-join-1."

func parseToken(t *testing.T, text string) joinToken {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), tokenPrefix))
	token := joinToken{}
	if err == nil {
		err = json.Unmarshal(b, &token)
	}
	if err != nil {
		t.Fatalf("the token %q: %v", text, err)
	}
	return token
}

// with is the token's text with one field changed.
func (j joinToken) with(t *testing.T, field string, value any) string {
	t.Helper()
	if _, ok := j[field]; !ok {
		t.Fatalf("a token has no %q: %v", field, j)
	}
	changed := joinToken{}
	for k, v := range j {
		changed[k] = v
	}
	changed[field] = value
	b, err := json.Marshal(changed)
	if err != nil {
		t.Fatal(err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// joinRefusals: only an unused, unchanged token of this cluster for this name lets a node in.
func joinRefusals(t *testing.T, c *devCluster) {
	fresh := func(node string) string { return c.admin.revealing().field(t, "token", "node", "token", node) }
	foreign := lone(t)
	theirs := parseToken(t, foreign.admin.revealing().field(t, "token", "node", "token", "n8"))
	own := parseToken(t, fresh("n8"))
	other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	for name, token := range map[string]string{
		"a used token":                    string(read(t, filepath.Join(c.secrets, "n2.token"))),
		"another node's token":            fresh("n7"),
		"another cluster's token":         theirs.with(t, "addresses", own["addresses"]),
		"a token with another secret":     own.with(t, "secret", other),
		"an expired token":                expiredToken(t, c, "n8"),
		"a token that was cut":            fresh("n8")[:60],
		"no token":                        "once upon a time",
		"a token for another of its name": own.with(t, "node", "n6"),
	} {
		node := "n8"
		if name == "a used token" {
			node = "n2"
		}
		t.Run(name, func(t *testing.T) { refusedJoin(t, node, token) })
	}
	// The other cluster's administrator is a stranger here, too.
	visitor := c.admin.with("CONCLAVE_CERT", foreign.admin.env["CONCLAVE_CERT"]).with("CONCLAVE_KEY", foreign.admin.env["CONCLAVE_KEY"])
	visitor.refuses(t, 4, "certificate", "key", "list", "--timeout", "10s")
	c.admin.with("CONCLAVE_CACERT", foreign.admin.env["CONCLAVE_CACERT"]).refuses(t, 4, "certificate", "key", "list", "--timeout", "10s")
	if n := len(c.status(t).Nodes); n != 3 {
		t.Errorf("the cluster has %d nodes", n)
	}
}

// expiredToken makes a token that is good for a second, and lets that pass.
func expiredToken(t *testing.T, c *devCluster, node string) string {
	t.Helper()
	var made struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	c.admin.revealing().document(t, &made, "node", "token", node, "--ttl", "1s")
	eventually(t, 10*time.Second, "the token expires", func() error {
		if left := time.Until(made.ExpiresAt); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	return made.Token
}

// refusedJoin starts a node with the token and demands that it gives up with a reason, and without a word of the token.
func refusedJoin(t *testing.T, node, token string) {
	t.Helper()
	c := unfounded(t, "ceremony")
	n := &member{id: node, dir: filepath.Join(c.dir, node)}
	addrs := free(t, 2)
	doc := nodeConfig{Node: node, DataDir: "data", API: bind{addrs[0]}, Cluster: bind{addrs[1]}}
	doc.HSM.PIN.File = c.secret(t, node+".pin", "a pin that is long enough")
	doc.Join.TokenFile = c.secret(t, node+".token", token)
	doc.write(t, n)
	o := c.admin.run(t, "server", "--config", n.config())
	if (o.code != 1 && o.code != 4) || !strings.Contains(o.errors, "token") && !strings.Contains(o.errors, "fingerprint") {
		t.Errorf("exit %d: %s", o.code, o.errors)
	}
	if strings.Contains(o.errors, strings.TrimSpace(token)) {
		t.Errorf("the token is in the message: %s", o.errors)
	}
	t.Log(o.errors)
}
