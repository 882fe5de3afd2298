package ceremony_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/vault/ceremony"
)

func exchangeKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var shareInfo = ceremony.Info{ClusterID: "c1", Ceremony: "id", Node: "n1", Custodian: "alice", Purpose: ceremony.PurposeShare}

func TestSealToNodeRoundTrip(t *testing.T) {
	key := exchangeKey(t)
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 1, 4096).Draw(t, "plaintext")
		sealed, err := ceremony.SealToNode(key.PublicKey().Bytes(), shareInfo, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ceremony.OpenAtNode(key, shareInfo, sealed)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened %d of %d bytes: %v", len(got), len(plaintext), err)
		}
		bit := rapid.IntRange(0, len(sealed)*8-1).Draw(t, "bit")
		sealed[bit/8] ^= 1 << (bit % 8)
		if _, err := ceremony.OpenAtNode(key, shareInfo, sealed); err != ceremony.ErrOpen {
			t.Fatalf("bit %d turned: %v", bit, err)
		}
	})
}

func TestSealedOpensOnlyUnderItsInfo(t *testing.T) {
	key := exchangeKey(t)
	sealed, err := ceremony.SealToNode(key.PublicKey().Bytes(), shareInfo, []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ceremony.Info){
		"cluster":   func(i *ceremony.Info) { i.ClusterID = "c2" },
		"ceremony":  func(i *ceremony.Info) { i.Ceremony = "id2" },
		"node":      func(i *ceremony.Info) { i.Node = "n2" },
		"custodian": func(i *ceremony.Info) { i.Custodian = "bob" },
		"purpose":   func(i *ceremony.Info) { i.Purpose = ceremony.PurposeEntropy },
		"empty":     func(i *ceremony.Info) { *i = ceremony.Info{} },
		"shifted":   func(i *ceremony.Info) { i.Node, i.Custodian = "n1a", "lice" },
		"secrets": func(i *ceremony.Info) {
			i.Purpose, i.Ceremony, i.Custodian = ceremony.PurposeClusterSecrets, "", ""
		},
	} {
		info := shareInfo
		change(&info)
		if got, err := ceremony.OpenAtNode(key, info, sealed); got != nil || err != ceremony.ErrOpen {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ceremony.OpenAtNode(exchangeKey(t), shareInfo, sealed); err != ceremony.ErrOpen {
		t.Errorf("another node: %v", err)
	}
	p384, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ceremony.OpenAtNode(p384, shareInfo, sealed); err != ceremony.ErrOpen {
		t.Errorf("a key of another curve: %v", err)
	}
}

func TestClusterSecretsRoundTrip(t *testing.T) {
	key := exchangeKey(t)
	info := ceremony.Info{ClusterID: "c1", Node: "n1", Purpose: ceremony.PurposeClusterSecrets}
	sealed, err := ceremony.SealToNode(key.PublicKey().Bytes(), info, []byte("ca and gossip"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ceremony.OpenAtNode(key, info, sealed); err != nil || string(got) != "ca and gossip" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSealToNodeRefuses(t *testing.T) {
	key := exchangeKey(t).PublicKey().Bytes()
	offCurve := bytes.Clone(key)
	offCurve[64] ^= 1
	incomplete := shareInfo
	incomplete.Custodian = ""
	for name, c := range map[string]struct {
		key       []byte
		info      ceremony.Info
		plaintext []byte
	}{
		"short key":  {key[:64], shareInfo, []byte("v")},
		"off curve":  {offCurve, shareInfo, []byte("v")},
		"infinity":   {make([]byte, 65), shareInfo, []byte("v")},
		"incomplete": {key, incomplete, []byte("v")},
		"no purpose": {key, ceremony.Info{ClusterID: "c", Node: "n"}, []byte("v")},
		"empty":      {key, shareInfo, nil},
		"large":      {key, shareInfo, make([]byte, 16<<10+1)},
	} {
		if _, err := ceremony.SealToNode(c.key, c.info, c.plaintext); !errors.Is(err, ceremony.ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpenAtNodeNeverPanics(f *testing.F) {
	key := exchangeKey(f)
	sealed, err := ceremony.SealToNode(key.PublicKey().Bytes(), shareInfo, []byte("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed[:len(sealed)-1])
	f.Add(append(bytes.Clone(sealed), 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ceremony.OpenAtNode(key, shareInfo, b); err != ceremony.ErrOpen && !bytes.Equal(b, sealed) {
			t.Fatalf("opened what was not sealed: %v", err)
		}
	})
}

func TestShareToCustodian(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	shares, commitments := deal(t, newSecret(t), 2, 2)
	info := ceremony.Info{ClusterID: "c1", Ceremony: "id", Custodian: "alice"}
	sealed, err := ceremony.SealShareToCustodian(alice.Public().Recipient, shares[0], info)
	if err != nil {
		t.Fatal(err)
	}
	got, err := alice.OpenShare(sealed, info)
	if err != nil || got.Verify(commitments, 2) != nil || got.Number != 1 {
		t.Fatalf("share %d: %v", got.Number, err)
	}
	if _, err := bob.OpenShare(sealed, info); err != ceremony.ErrOpen {
		t.Errorf("bob opens alice's share: %v", err)
	}
	for name, change := range map[string]func(*ceremony.Info){
		"cluster":   func(i *ceremony.Info) { i.ClusterID = "c2" },
		"ceremony":  func(i *ceremony.Info) { i.Ceremony = "id2" },
		"custodian": func(i *ceremony.Info) { i.Custodian = "bob" },
	} {
		other := info
		change(&other)
		if _, err := alice.OpenShare(sealed, other); err != ceremony.ErrOpen {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := alice.OpenShare(bad, info); err != ceremony.ErrOpen {
			t.Fatalf("byte %d turned: %v", i, err)
		}
	}
	if _, err := alice.OpenShare(make([]byte, 5000), info); err != ceremony.ErrOpen {
		t.Errorf("oversized: %v", err)
	}
}

// What a node seals to a custodian is a plain age file: the library itself opens it with the key of the identity's file, and the
// share is at the end.
func TestShareAtRestIsAnAgeFile(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	shares, _ := deal(t, newSecret(t), 1, 1)
	sealed, err := ceremony.SealShareToCustodian(key.Recipient().String(), shares[0], shareInfo)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), key)
	if err != nil {
		t.Fatal(err)
	}
	plaintext, err := io.ReadAll(r)
	if err != nil || !bytes.HasSuffix(plaintext, shares[0].Encode()) {
		t.Fatalf("age read %d bytes: %v", len(plaintext), err)
	}
}

func TestSealShareToCustodianRefuses(t *testing.T) {
	shares, _ := deal(t, newSecret(t), 1, 1)
	to := newIdentity(t, "alice").Public().Recipient
	for name, c := range map[string]struct {
		to    string
		share ceremony.Share
		info  ceremony.Info
	}{
		"recipient":   {"age1nobody", shares[0], shareInfo},
		"no share":    {to, ceremony.Share{}, shareInfo},
		"no context":  {to, shares[0], ceremony.Info{}},
		"no ceremony": {to, shares[0], ceremony.Info{ClusterID: "c1", Custodian: "alice"}},
	} {
		if _, err := ceremony.SealShareToCustodian(c.to, c.share, c.info); !errors.Is(err, ceremony.ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBundleSignature(t *testing.T) {
	alice := newIdentity(t, "alice")
	key := alice.Public().SigningKey
	shares := []ceremony.NodeShare{{Node: "n1", Sealed: []byte("a")}, {Node: "n2", Sealed: []byte("b")}}
	signature := alice.Sign(ceremony.BundleMessage("id", "alice", shares))
	if err := ceremony.VerifyBundle(key, "id", "alice", shares, signature); err != nil {
		t.Fatal(err)
	}
	swapped := []ceremony.NodeShare{{Node: "n1", Sealed: []byte("b")}, {Node: "n2", Sealed: []byte("a")}}
	for name, err := range map[string]error{
		"ceremony":  ceremony.VerifyBundle(key, "id2", "alice", shares, signature),
		"custodian": ceremony.VerifyBundle(key, "id", "bob", shares, signature),
		"dropped":   ceremony.VerifyBundle(key, "id", "alice", shares[:1], signature),
		"swapped":   ceremony.VerifyBundle(key, "id", "alice", swapped, signature),
		"reordered": ceremony.VerifyBundle(key, "id", "alice", []ceremony.NodeShare{shares[1], shares[0]}, signature),
		"other key": ceremony.VerifyBundle(newIdentity(t, "alice").Public().SigningKey, "id", "alice", shares, signature),
		"short key": ceremony.VerifyBundle(key[:31], "id", "alice", shares, signature),
		"truncated": ceremony.VerifyBundle(key, "id", "alice", shares, signature[:63]),
		"none":      ceremony.VerifyBundle(key, "id", "alice", shares, nil),
	} {
		if !errors.Is(err, ceremony.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
