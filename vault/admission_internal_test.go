package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

func someToken() JoinToken {
	return JoinToken{
		Cluster: "c1", Node: "n2", ID: "token-1", Secret: bytes.Repeat([]byte{1}, tokenSecretSize), Fingerprint: bytes.Repeat([]byte{2}, 32),
		Addresses: []string{"10.0.0.1:7000", "n3.example:7000"},
	}
}

func reveal(t testing.TB, token JoinToken) string {
	t.Helper()
	text, err := token.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestJoinTokenIsStable: a token made by one release may be used with the next.
func TestJoinTokenIsStable(t *testing.T) {
	body := `{"cluster":"c1","node":"n2","id":"token-1","secret":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)) +
		`","ca":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32)) + `","addresses":["10.0.0.1:7000","n3.example:7000"]}`
	want := "conclave-join-1." + base64.RawURLEncoding.EncodeToString([]byte(body))
	if got := reveal(t, someToken()); got != want {
		t.Errorf("the text is %s, want %s", got, want)
	}
}

func TestJoinTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := someToken()
		want.Cluster = rapid.StringN(1, 20, -1).Draw(t, "cluster")
		want.Node = fsm.NodeID(rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`).Draw(t, "node"))
		want.Secret = rapid.SliceOfN(rapid.Byte(), tokenSecretSize, tokenSecretSize).Draw(t, "secret")
		want.Addresses = rapid.SliceOfN(rapid.StringMatching(`[a-z.]{1,40}:[0-9]{1,5}`), 1, 10).Draw(t, "addresses")
		text, err := want.Reveal()
		if err != nil {
			t.Fatal(err)
		}
		space := rapid.SampledFrom([]string{"", "\n", "\r\n", "  "}).Draw(t, "space")
		got, err := ParseJoinToken(space + text + space)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := got.Reveal(); err != nil || again != text {
			t.Fatalf("%s became %s, %v", text, again, err)
		}
	})
}

// TestACutTokenIsRefused: people copy tokens by hand.
func TestACutTokenIsRefused(t *testing.T) {
	text := reveal(t, someToken())
	for n := range len(text) {
		if got, err := ParseJoinToken(text[:n]); !errors.Is(err, ErrToken) || got.Secret != nil {
			t.Fatalf("cut to %d of %d: %v", n, len(text), err)
		}
	}
}

func TestAChangedTokenIsRefusedOrAnother(t *testing.T) {
	text := reveal(t, someToken())
	for i := range len(text) {
		for _, b := range []byte("A_.\x00=") {
			changed := []byte(text)
			if changed[i] == b {
				continue
			}
			changed[i] = b
			got, err := ParseJoinToken(string(changed))
			if err != nil {
				if !errors.Is(err, ErrToken) || strings.Contains(err.Error(), text[len(tokenPrefix):]) {
					t.Fatalf("byte %d: %v", i, err)
				}
				continue
			}
			// It reads as a token: then something that the cluster checks differs.
			if again := reveal(t, got); again == text {
				t.Fatalf("byte %d changed to %q and nothing differs", i, b)
			}
		}
	}
}

func TestAnIncompleteTokenIsRefused(t *testing.T) {
	for name, change := range map[string]func(*JoinToken){
		"no cluster": func(j *JoinToken) { j.Cluster = "" }, "no node": func(j *JoinToken) { j.Node = "" }, "no id": func(j *JoinToken) { j.ID = "" },
		"no secret": func(j *JoinToken) { j.Secret = nil }, "a short secret": func(j *JoinToken) { j.Secret = j.Secret[1:] },
		"no authority": func(j *JoinToken) { j.Fingerprint = nil }, "a long authority": func(j *JoinToken) { j.Fingerprint = make([]byte, 33) },
		"no address": func(j *JoinToken) { j.Addresses = nil },
	} {
		token := someToken()
		change(&token)
		if got, err := ParseJoinToken(reveal(t, token)); !errors.Is(err, ErrToken) || got.Secret != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "a newer form": strings.Replace(reveal(t, someToken()), "join-1", "join-2", 1), "no JSON": tokenPrefix + "AAAA",
		"too long": tokenPrefix + strings.Repeat("A", maxTokenText+1),
	} {
		if _, err := ParseJoinToken(text); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheLargestClusterMakesATokenThatParses: a token that its own node would refuse is worse than one that knows fewer addresses.
func TestTheLargestClusterMakesATokenThatParses(t *testing.T) {
	var nodes []fsm.Node
	for i := range fsm.MaxNodes {
		nodes = append(nodes, fsm.Node{ID: fsm.NodeID(fmt.Sprint("n", i)), ClusterAddr: strings.Repeat("x", 253) + ":65535"})
	}
	token := someToken()
	token.Addresses = tokenAddresses(nodes)
	got, err := ParseJoinToken(reveal(t, token))
	if err != nil || len(got.Addresses) == 0 {
		t.Fatalf("%d addresses: %v", len(token.Addresses), err)
	}
	if diff := cmp.Diff([]string{"a:1", "b:1"}, tokenAddresses([]fsm.Node{{ClusterAddr: "a:1"}, {ClusterAddr: "b:1"}})); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(reveal(f, someToken()))
	f.Add(tokenPrefix)
	f.Add(tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(`{"secret":7}`)))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again, err := ParseJoinToken(reveal(t, token)); err != nil || !bytes.Equal(again.Secret, token.Secret) || again.Node != token.Node {
			t.Errorf("%q became %v, %v", text, again, err)
		}
	})
}

func TestJoinRequest(t *testing.T) {
	token := newToken(t)
	d := Description{ID: "n2", Datacenter: "eu", ClusterAddr: "10.0.0.2:7000", APIAddr: "10.0.0.2:7001"}
	raw, err := JoinRequest(someToken(), d, token, []byte("csr"))
	if err != nil {
		t.Fatal(err)
	}
	var got joinRequest
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	n, err := d.Describe(token)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(joinRequest{TokenID: "token-1", Secret: someToken().Secret, Node: n, Request: []byte("csr")}, got); diff != "" {
		t.Error(diff)
	}
}

func TestJoinReply(t *testing.T) {
	want := Membership{ClusterID: "c1", Node: "n2", NodeCA: []byte{1}, ClientCA: []byte{2}, Certificate: []byte{3}, Secrets: []byte{4}, Peers: []string{"a:1"}}
	raw, err := serve([]byte("{}"), func(struct{}) (Membership, error) { return want, nil })
	if err != nil {
		t.Fatal(err)
	}
	got, err := JoinReply(raw)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	refusal, err := serve([]byte("{}"), func(struct{}) (Membership, error) { return Membership{}, fmt.Errorf("%w: used", ErrToken) })
	if err != nil {
		t.Fatal(err)
	}
	if m, err := JoinReply(refusal); !errors.Is(err, ErrToken) || m.ClusterID != "" {
		t.Errorf("%+v, %v", m, err)
	}
}
