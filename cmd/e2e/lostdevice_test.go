package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTokenTakenOutOfANode: a node whose token goes away says that it is sealed and why, and the others serve; when the token is
// back it refuses as a sealed node does and custodians unseal it, and the process was never restarted.
func TestTokenTakenOutOfANode(t *testing.T) {
	t.Parallel()
	softHSM(t)
	c := own(t, "ceremony", 0, 2)
	m := file(t, []byte("before"))
	c.admin.ok(t, "key", "create", "kept", "--algorithm", c.signer())
	c.serving(t, 20*time.Second)
	victim := c.nodes[2]
	c.admin.at(victim.api).ok(t, "sign", "kept", "--in", m)
	tokens, away := filepath.Join(victim.dir, "softhsm", "tokens"), filepath.Join(victim.dir, "softhsm", "away")
	if err := os.Rename(tokens, away); err != nil {
		t.Fatal(err)
	}
	seen := func(says string) func() error {
		return func() error {
			for _, n := range c.status(t).Nodes {
				if n.ID == victim.id && (!n.Sealed || !strings.Contains(n.Error, says)) {
					return fmt.Errorf("sealed %v, error %q", n.Sealed, n.Error)
				}
			}
			return nil
		}
	}
	eventually(t, 30*time.Second, "status says that the token is lost", seen("the token is lost"))
	// The key of its certificate is on the token too: no new connection can be made to it, and status comes over an old one.
	c.admin.at(victim.api).refuses(t, 6, "tls", "sign", "kept", "--in", m)
	c.admin.at(c.nodes[0].api).ok(t, "sign", "kept", "--in", m)
	if err := os.Rename(away, tokens); err != nil {
		t.Fatal(err)
	}
	eventually(t, 90*time.Second, "status says that the token is back", seen("is back"))
	c.admin.at(victim.api).refuses(t, 7, "lost its master", "sign", "kept", "--in", m)
	c.unseal(t, "carol", "alice")
	c.serving(t, 20*time.Second)
	c.admin.at(victim.api).ok(t, "sign", "kept", "--in", m)
	if code, err := c.servers[victim.id].ended(0); !errors.Is(err, errSlow) {
		t.Errorf("the process ended with %d, %v", code, err)
	}
	c.healthy(t)
}
