package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/pki"
)

func csr(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCheckIssue(t *testing.T) {
	good := csr(t)
	for name, c := range map[string]struct {
		role fsm.Role
		who  string
		csr  []byte
		life time.Duration
		want time.Duration // 0: refused
	}{
		"default life":     {fsm.RoleUser, "ada", good, 0, pki.DefaultClientLife},
		"administrator":    {fsm.RoleAdministrator, "root", good, time.Hour, time.Hour},
		"the longest":      {fsm.RoleUser, "ada", good, pki.MaxClientLife, pki.MaxClientLife},
		"the shortest":     {fsm.RoleUser, "ada", good, time.Minute, time.Minute},
		"too long":         {fsm.RoleUser, "ada", good, pki.MaxClientLife + 1, 0},
		"too short":        {fsm.RoleUser, "ada", good, time.Minute - 1, 0},
		"negative":         {fsm.RoleUser, "ada", good, -time.Hour, 0},
		"a node":           {"node", "n4", good, time.Hour, 0},
		"no role":          {"", "ada", good, time.Hour, 0},
		"no name":          {fsm.RoleUser, "", good, time.Hour, 0},
		"a name of a path": {fsm.RoleUser, "ada/root", good, time.Hour, 0},
		"no request":       {fsm.RoleUser, "ada", nil, time.Hour, 0},
		"a cut request":    {fsm.RoleUser, "ada", good[:len(good)-1], time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, life, err := checkIssue(c.role, c.who, c.csr, c.life)
			if c.want == 0 {
				if !errors.Is(err, ErrInvalid) || r != nil {
					t.Errorf("%v", err)
				}
			} else if err != nil || life != c.want || r == nil {
				t.Errorf("%v for %s", err, life)
			}
		})
	}
}

// TestARepeatedRequestHasTheSameSerial: otherwise a retry would leave a second certificate that no log entry names.
func TestARepeatedRequestHasTheSameSerial(t *testing.T) {
	a, b := csr(t), csr(t)
	if first, again := serialFor("id", a), serialFor("id", a); first != again {
		t.Error("the same request has two serials")
	}
	seen := map[[16]byte]string{}
	for name, s := range map[string][16]byte{"id a": serialFor("id", a), "id b": serialFor("id", b), "other a": serialFor("other", a), "shifted": serialFor("id/", a[1:])} {
		if before, twice := seen[s]; twice {
			t.Errorf("%s and %s have the same serial", name, before)
		}
		seen[s] = name
	}
}
