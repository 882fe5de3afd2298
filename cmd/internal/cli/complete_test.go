package cli_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// TestCompletingNeverHangs: a node that accepts connections and says nothing costs a person no more than a Tab key may take, and a second node that
// answers is reached all the same.
func TestCompletingNeverHangs(t *testing.T) {
	t.Parallel() // it waits
	ca := clienttest.NewCA(t, "c1")
	pair, dir := ca.Issue(t, ca.URI("administrator", "ada")), t.TempDir()
	silent := clienttest.Listen(t)
	defer silent.Close()
	n := &node{catalog: newCatalog(), name: "n1", ca: ca}
	n.keys["payments"] = &vaultpb.Key{Name: "payments"}
	server := ca.Serve(t, clienttest.Listen(t), ca.Issue(t, ca.URI("node", "n1")), n.register)
	env := map[string]string{}
	for name, content := range map[string][]byte{"CONCLAVE_CACERT": ca.PEM(), "CONCLAVE_CERT": clienttest.CertificatePEM(pair), "CONCLAVE_KEY": clienttest.KeyPEM(t, pair)} {
		env[name] = filepath.Join(dir, name)
		if err := os.WriteFile(env[name], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		addr, want string
		may        time.Duration
	}{
		{silent.Addr().String(), ":4\n", 100 * time.Millisecond}, {silent.Addr().String() + "," + server.Addr, "payments\n:4\n", 10 * time.Second},
	} {
		env["CONCLAVE_ADDR"] = c.addr
		start := time.Now()
		got := runWithin(c.may, env, nil, "__complete", "key", "get", "")
		if got.stdout != c.want || got.code != 0 {
			t.Errorf("%s: %+v, want %q", c.addr, got, c.want)
		}
		if took := time.Since(start); took > client.DefaultTimeout/2 { // it did not give up when it should, but when other commands do
			t.Errorf("%s: after %v", c.addr, took)
		}
	}
}
