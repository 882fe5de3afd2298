package soft_test

import (
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/soft"
)

var pin = []byte("0000-test-pin")

// cheap makes tests fast; the cost of a PIN is not what they are about.
func cheap() soft.Options {
	return soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}}
}

func create(t testing.TB, opt soft.Options) (*soft.Token, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	token, err := soft.Create(path, pin, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Errorf("closing the token: %v", err)
		}
	})
	return token, path
}

func openForSuite(t *testing.T) (hsm.Token, keyuse.Port) {
	token, _ := create(t, cheap())
	return token, token
}

func TestConformance(t *testing.T) { hsmtest.Run(t, openForSuite) }

func TestTransport(t *testing.T) {
	defer soft.PublishedImportPair()()
	hsmtest.RunTransport(t, openForSuite)
}

func TestMaterial(t *testing.T) { hsmtest.RunMaterial(t, openForSuite) }

// TestEveryAlgorithmIsUsable: the embedded token lacks nothing, and a failed probe shows here.
func TestEveryAlgorithmIsUsable(t *testing.T) {
	token, _ := create(t, cheap())
	for _, row := range token.Capabilities() {
		if !row.Usable() {
			t.Errorf("%s: %s", row.Algorithm, row.Missing)
		}
	}
}
