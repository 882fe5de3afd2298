package vault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/pki"
)

// newToken is an HSM whose PIN nobody attacks.
func newToken(t testing.TB) *soft.Token {
	t.Helper()
	token, err := soft.Create(filepath.Join(t.TempDir(), "token"), []byte("1234"), soft.Options{Argon2: soft.Argon2{Time: 1, MemoryKiB: 64, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

func someSecrets() *clusterSecrets {
	return &clusterSecrets{NodeCAKey: []byte("node authority"), ClientCAKey: []byte("client authority"), GossipKey: bytes.Repeat([]byte{7}, gossipKeySize)}
}

func TestSecretsOpenOnTheirNodeOnly(t *testing.T) {
	here, elsewhere := newToken(t), newToken(t)
	sealed, err := someSecrets().seal("c1", "n1", here.Exchange().PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{[]byte("node authority"), []byte("client authority"), bytes.Repeat([]byte{7}, gossipKeySize)} {
		if bytes.Contains(sealed, secret) || bytes.Contains(sealed, []byte(base64.StdEncoding.EncodeToString(secret))) {
			t.Errorf("the seal shows %q", secret)
		}
	}
	got, err := openSecrets(here, "c1", "n1", sealed)
	if err != nil {
		t.Fatal(err)
	}
	want := someSecrets()
	if !bytes.Equal(got.NodeCAKey, want.NodeCAKey) || !bytes.Equal(got.ClientCAKey, want.ClientCAKey) || !bytes.Equal(got.GossipKey, want.GossipKey) {
		t.Error("the secrets changed")
	}
	changed := slices.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, c := range map[string]struct {
		token   hsm.Token
		cluster string
		node    fsm.NodeID
		sealed  []byte
	}{
		"another node's token": {elsewhere, "c1", "n1", sealed}, "another node's name": {here, "c1", "n2", sealed}, "another cluster": {here, "c2", "n1", sealed},
		"changed": {here, "c1", "n1", changed}, "cut": {here, "c1", "n1", sealed[:len(sealed)-1]}, "nothing": {here, "c1", "n1", nil},
	} {
		if s, err := openSecrets(c.token, c.cluster, c.node, c.sealed); !errors.Is(err, ceremony.ErrOpen) || s != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealedGarbageIsNoSecrets(t *testing.T) {
	token := newToken(t)
	for _, inside := range []string{"garbage", `{"gossip_key":"***"}`, `["a"]`} {
		sealed, err := ceremony.SealToNode(token.Exchange().PublicKey().Bytes(), secretsInfo("c1", "n1"), []byte(inside))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openSecrets(token, "c1", "n1", sealed); err == nil || err.Error() != "opening the cluster's secrets: malformed" {
			t.Errorf("%s: %v", inside, err)
		}
	}
}

func TestWipeLeavesNothing(t *testing.T) {
	s := someSecrets()
	views := [][]byte{s.NodeCAKey, s.ClientCAKey, s.GossipKey}
	s.wipe()
	for _, v := range views {
		if !bytes.Equal(v, make([]byte, len(v))) {
			t.Errorf("%q is left", v)
		}
	}
}

// founded is a new cluster on node n1.
func founded(t *testing.T, token hsm.Token, now time.Time) (Founding, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := Description{ID: "n1", Datacenter: "eu", ClusterAddr: "10.0.0.1:7000", APIAddr: "vault.example:7001"}
	f, cert, err := Found(d, token, true, Administrator{Name: "root", Key: key.Public(), Life: time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	return f, cert
}

func TestFound(t *testing.T) {
	token, now := newToken(t), time.Now()
	f, admin := founded(t, token, now)
	entry, err := fsm.DecodeEntry(f.Entry)
	if err != nil {
		t.Fatal(err)
	}
	start, ok := entry.Command.(fsm.InitCluster)
	if !ok {
		t.Fatalf("the first entry is %T", entry.Command)
	}
	n := start.Node
	m := Membership{ClusterID: start.ClusterID, Node: "n1", NodeCA: start.NodeCA, ClientCA: start.ClientCA, Certificate: n.Certificate, Secrets: n.Secrets}
	if diff := cmp.Diff(m, f.Membership); diff != "" {
		t.Errorf("the membership is not what the entry says:\n%s", diff)
	}
	if !start.Dev || start.FeatureLevel != fsm.FeatureLevel || n.Datacenter != "eu" || n.ClusterAddr != "10.0.0.1:7000" || n.APIAddr != "vault.example:7001" || len(n.Device.Algorithms) == 0 {
		t.Errorf("%+v", n)
	}
	want := []fsm.Certificate{{Serial: pki.Serial(admin), Role: fsm.RoleAdministrator, Name: "root", NotBefore: admin.NotBefore, NotAfter: admin.NotAfter}}
	if diff := cmp.Diff(want, start.Certificates); diff != "" {
		t.Errorf("the administrator's record:\n%s", diff)
	}
	node, err := x509.ParseCertificate(n.Certificate)
	if err != nil || node.VerifyHostname("10.0.0.1") != nil || node.VerifyHostname("vault.example") != nil || !token.Identity().Public().(*ecdsa.PublicKey).Equal(node.PublicKey) {
		t.Errorf("the node's certificate: %v, %v, %v", err, node.IPAddresses, node.DNSNames)
	}
	r, _, err := fsm.New().Apply(1, f.Entry)
	if err != nil || r.Code != fsm.CodeOK {
		t.Errorf("the state machine says %v, %v", r, err)
	}
}

// TestTheAuthoritiesKeysLeaveSealedOnly: what a founding returns holds both keys, but only for the node's HSM.
func TestTheAuthoritiesKeysLeaveSealedOnly(t *testing.T) {
	token := newToken(t)
	f, _ := founded(t, token, time.Now())
	secrets, err := openSecrets(token, f.Membership.ClusterID, "n1", f.Membership.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	membership, err := json.Marshal(f.Membership)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ certificate, key []byte }{
		"node": {f.Membership.NodeCA, secrets.NodeCAKey}, "client": {f.Membership.ClientCA, secrets.ClientCAKey},
	} {
		a, err := pki.LoadAuthority(c.certificate, c.key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d, err := a.Key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for where, b := range map[string][]byte{"entry": f.Entry, "membership": membership} {
			if bytes.Contains(b, d) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString(c.key))) {
				t.Errorf("the %s shows the %s authority's key", where, name)
			}
		}
	}
	gossip, err := f.Membership.GossipKey(token)
	if err != nil || len(gossip) != gossipKeySize || !bytes.Equal(gossip, secrets.GossipKey) || bytes.Equal(gossip, make([]byte, gossipKeySize)) {
		t.Errorf("the gossip key has %d bytes: %v", len(gossip), err)
	}
	if _, err := f.Membership.GossipKey(newToken(t)); !errors.Is(err, ceremony.ErrOpen) {
		t.Errorf("another token opens the gossip key: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		api, cluster string
		want         []string
	}{
		{"a:1", "b:2", []string{"a", "b"}}, {"a:1", "a:2", []string{"a"}}, {"[::1]:1", "10.0.0.1:2", []string{"::1", "10.0.0.1"}}, {"", "b:2", []string{"b"}}, {"nonsense", "", nil},
	} {
		if got := hosts(fsm.Node{APIAddr: c.api, ClusterAddr: c.cluster}); !slices.Equal(got, c.want) {
			t.Errorf("%q and %q: %q", c.api, c.cluster, got)
		}
	}
}

// TestFoundRefusesWhatTheStateMachineWould: a first entry that is refused would be a cluster that never begins.
func TestFoundRefusesWhatTheStateMachineWould(t *testing.T) {
	token := newToken(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Description, *Administrator){
		"an administrator without a name":       func(_ *Description, a *Administrator) { a.Name = "" },
		"an administrator with a path":          func(_ *Description, a *Administrator) { a.Name = "a/b" },
		"a certificate for a decade":            func(_ *Description, a *Administrator) { a.Life = 10 * 365 * 24 * time.Hour },
		"a certificate that has ended":          func(_ *Description, a *Administrator) { a.Life = -time.Minute },
		"a node with a capital":                 func(d *Description, _ *Administrator) { d.ID = "N1" },
		"a node without an address for clients": func(d *Description, _ *Administrator) { d.APIAddr = "" },
		"a long datacenter":                     func(d *Description, _ *Administrator) { d.Datacenter = strings.Repeat("x", 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			d, a := Description{ID: "n1", ClusterAddr: "a:1", APIAddr: "a:2"}, Administrator{Name: "root", Key: key.Public(), Life: time.Hour}
			change(&d, &a)
			if f, cert, err := Found(d, token, true, a, time.Now()); !errors.Is(err, ErrInvalid) || f.Entry != nil || cert != nil {
				t.Errorf("%v", err)
			}
		})
	}
}
