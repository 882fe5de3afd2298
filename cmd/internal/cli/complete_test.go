package cli_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// TestCompletingNeverHangs: a node that accepts connections and says nothing costs a person about a second, and a second node that
// answers is reached all the same.
func TestCompletingNeverHangs(t *testing.T) {
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
	const patience = 5 * time.Second // far above the bound, far below the 30 s of other commands
	for _, c := range []struct{ addr, want string }{
		{silent.Addr().String(), ":4\n"}, {silent.Addr().String() + "," + server.Addr, "payments\n:4\n"},
	} {
		env["CONCLAVE_ADDR"] = c.addr
		start := time.Now()
		got := run(env, nil, "__complete", "key", "get", "")
		if took := time.Since(start); took > patience || got.stdout != c.want || got.code != 0 {
			t.Errorf("%s: after %v: %+v, want %q", c.addr, took, got, c.want)
		}
	}
}
