package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// keyDocument is `conclave key get -o json`.
type keyDocument struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	Algorithm      string            `json:"algorithm"`
	Class          string            `json:"class"`
	State          string            `json:"state"`
	PrimaryVersion uint32            `json:"primary_version"`
	Labels         map[string]string `json:"labels"`
	CreatedAt      time.Time         `json:"created_at"`
	Versions       []struct {
		Version       uint32     `json:"version"`
		State         string     `json:"state"`
		Reason        string     `json:"reason"`
		CompromisedAt *time.Time `json:"compromised_at"`
		OccurredAt    *time.Time `json:"occurred_at"`
		DestroyAt     *time.Time `json:"destroy_at"`
	} `json:"versions"`
	Barrier *struct {
		State     string   `json:"state"`
		WaitedFor []string `json:"waited_for"`
	} `json:"barrier"`
	Index uint64 `json:"index"`
}

func key(t *testing.T, who caller, name string) keyDocument {
	t.Helper()
	var k keyDocument
	who.document(t, &k, "key", "get", name)
	return k
}

// wantState demands the states of all versions, from 1 on.
func wantState(t *testing.T, who caller, name string, states ...string) keyDocument {
	t.Helper()
	k := key(t, who, name)
	var got []string
	for _, v := range k.Versions {
		got = append(got, v.State)
	}
	if !slices.Equal(got, states) {
		t.Fatalf("the versions of %s are %q, want %q", name, got, states)
	}
	return k
}

// lifeOfAKey goes through the states of NIST SP 800-57 as an officer would.
func lifeOfAKey(t *testing.T, c *devCluster) {
	who, m := c.admin, file(t, []byte("life"))
	who.ok(t, "key", "create", "life/a", "--algorithm", "ecdsa-p256", "--label", "team=red", "--label", "tier=1")
	k := wantState(t, who, "life/a", "active")
	if k.Class != "standard" || k.Labels["team"] != "red" || k.Labels["tier"] != "1" || time.Since(k.CreatedAt).Abs() > time.Minute || k.Index == 0 {
		t.Errorf("a new key: %+v", k)
	}
	signature := who.field(t, "signature", "sign", "life/a", "--in", m)

	who.refuses(t, 8, "key deactivate", "key", "destroy", "life/a")
	who.ok(t, "key", "suspend", "life/a", "--reason", "a look at it")
	k = wantState(t, who, "life/a", "suspended")
	if k.Versions[0].Reason != "a look at it" || k.Barrier == nil || k.Barrier.State != "done" {
		t.Errorf("a suspended key: %+v", k)
	}
	who.refuses(t, 8, "suspended", "sign", "life/a", "--in", m)
	if warned := who.ok(t, "verify", "life/a", "--in", m, "--signature", signature, "--field", "warning"); strings.TrimSpace(warned.out) == "" {
		t.Error("verifying under a suspended key warns of nothing")
	}
	who.ok(t, "key", "resume", "life/a", "--reason", "it is fine")
	who.ok(t, "sign", "life/a", "--in", m)

	who.ok(t, "key", "deactivate", "life/a", "--reason", "its time is over")
	who.refuses(t, 8, "deactivated", "sign", "life/a", "--in", m)
	who.ok(t, "verify", "life/a", "--in", m, "--signature", signature)
	who.refuses(t, 8, "", "key", "resume", "life/a", "--reason", "again")

	who.ok(t, "key", "destroy", "life/a", "--after", "169h", "--reason", "enough")
	k = wantState(t, who, "life/a", "destroy-scheduled")
	if at := k.Versions[0].DestroyAt; at == nil || time.Until(*at) < 168*time.Hour || time.Until(*at) > 170*time.Hour {
		t.Errorf("destruction is due at %v", at)
	}
	who.ok(t, "key", "cancel-destroy", "life/a", "--reason", "wait")
	wantState(t, who, "life/a", "deactivated")
	wantHistory(t, who, "life/a", "key.create", "key.activate", "key.suspend", "key.resume", "key.deactivate", "key.destroy", "key.cancel")
}

// wantHistory demands that the history has these actions in this order; others may lie between.
func wantHistory(t *testing.T, who caller, name string, actions ...string) {
	t.Helper()
	var history struct {
		Items []struct {
			Action, Subject, Actor, To, Reason string
			Index, Leaf                        uint64
			Time                               time.Time
		} `json:"items"`
	}
	who.document(t, &history, "key", "history", name)
	var seen []string
	for _, e := range history.Items {
		seen = append(seen, e.Action)
		if e.Subject != "key/"+name || e.Actor == "" || e.Index == 0 || e.Time.IsZero() {
			t.Errorf("event %+v", e)
		}
		if len(actions) > 0 && strings.HasPrefix(e.Action, actions[0]) {
			actions = actions[1:]
		}
	}
	if len(actions) > 0 {
		t.Errorf("the history of %s is %q; %q is missing", name, seen, actions)
	}
}

// destroyWait: a class has a minimum, and a shorter wait is refused.
func destroyWait(t *testing.T, c *devCluster) {
	who := c.admin
	who.ok(t, "key", "create", "life/wait", "--algorithm", "hmac-sha256")
	who.ok(t, "key", "deactivate", "life/wait", "--reason", "x")
	if o := who.run(t, "key", "destroy", "life/wait", "--after", "1s"); o.code != 2 && o.code != 8 {
		t.Errorf("destruction in a second: exit %d: %s", o.code, o.errors)
	}
	wantState(t, who, "life/wait", "deactivated")
	who.ok(t, "key", "destroy", "life/wait")
	wantState(t, who, "life/wait", "destroy-scheduled")
}

// compromised: with a date of the past, for good; only a new version helps.
func compromised(t *testing.T, c *devCluster) {
	who, m := c.admin, file(t, []byte("compromise"))
	who.ok(t, "key", "create", "life/c", "--algorithm", c.signer())
	signature := who.field(t, "signature", "sign", "life/c", "--in", m)
	who.refuses(t, 2, "", "key", "compromise", "life/c", "--reason", "later", "--occurred", "2999-01-01T00:00:00Z")
	who.ok(t, "key", "compromise", "life/c", "--reason", "found on a train", "--occurred", "2026-01-02T03:04:05Z")
	k := wantState(t, who, "life/c", "compromised")
	v := k.Versions[0]
	if v.OccurredAt == nil || !v.OccurredAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || v.CompromisedAt == nil {
		t.Errorf("a compromised version: %+v", v)
	}
	who.exits(t, 8, "sign", "life/c", "--in", m)
	who.exits(t, 8, "key", "resume", "life/c", "--reason", "x")
	if w := who.field(t, "warning", "verify", "life/c", "--in", m, "--signature", signature); !strings.Contains(w, "compromised") {
		t.Errorf("verifying under a compromised key warns %q", w)
	}
	who.ok(t, "key", "rotate", "life/c")
	wantState(t, who, "life/c", "compromised", "active")
	who.ok(t, "sign", "life/c", "--in", m)
}

// revoked is KMIP's word for two things.
func revoked(t *testing.T, c *devCluster) {
	who := c.admin
	for reason, state := range map[string]string{"key compromise": "compromised", "cessation of operation": "deactivated"} {
		name := "life/revoke-" + state
		who.ok(t, "key", "create", name, "--algorithm", "hmac-sha256")
		who.ok(t, "key", "revoke", name, "--reason", reason)
		wantState(t, who, name, state)
		who.exits(t, 8, "mac", name, "--in", file(t, []byte("x")))
	}
}

// versions: each has a state of its own.
func versions(t *testing.T, c *devCluster) {
	who, plain := c.admin, file(t, []byte("of version one"))
	who.ok(t, "key", "create", "life/v", "--algorithm", "aes-256-gcm")
	old := plain + ".enc"
	who.ok(t, "encrypt", "life/v", "--in", plain, "--out", old)
	for range 2 {
		who.ok(t, "key", "rotate", "life/v")
	}
	if v := who.field(t, "primary_version", "key", "get", "life/v"); v != "3" {
		t.Errorf("the primary version is %s", v)
	}
	if got := who.ok(t, "decrypt", "life/v", "--in", old).out; got != "of version one" {
		t.Errorf("an old ciphertext decrypts to %q", got)
	}
	who.ok(t, "key", "suspend", "life/v", "--version", "1", "--reason", "only this one")
	wantState(t, who, "life/v", "suspended", "active", "active")
	who.exits(t, 8, "decrypt", "life/v", "--in", old)
	who.ok(t, "encrypt", "life/v", "--in", plain, "--out", plain+".3")
	if got := who.ok(t, "decrypt", "life/v", "--in", plain+".3").out; got != "of version one" {
		t.Errorf("a new ciphertext decrypts to %q", got)
	}
	who.exits(t, 3, "key", "suspend", "life/v", "--version", "9", "--reason", "no such")
}

// pages: a list in pages of two is the list.
func pages(t *testing.T, c *devCluster) {
	who := c.admin
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("pages/%d", i))
		who.ok(t, "key", "create", names[i], "--algorithm", "hmac-sha256")
	}
	var seen []string
	for token, first := "", true; first || token != ""; first = false {
		args := []string{"key", "list", "--page-size", "2", "--prefix", "pages/"}
		if token != "" {
			args = append(args, "--page-token", token)
		}
		var page struct {
			Items []struct{ Name string } `json:"items"`
			Next  string                  `json:"next_page_token"`
		}
		who.document(t, &page, args...)
		if len(page.Items) > 2 {
			t.Fatalf("a page of %d", len(page.Items))
		}
		for _, k := range page.Items {
			seen = append(seen, k.Name)
		}
		token = page.Next
	}
	if !slices.Equal(seen, names) {
		t.Errorf("the pages hold %q, want %q", seen, names)
	}
	who.exits(t, 2, "key", "list", "--page-size", "1001")
}

// badArguments: what a user gets wrong is refused with its code, and nothing is made of it.
func badArguments(t *testing.T, c *devCluster) {
	who := c.admin
	create := func(name string, more ...string) []string {
		return append([]string{"key", "create", name, "--algorithm", c.signer()}, more...)
	}
	for _, bad := range [][]string{
		{}, {"nonsense"}, {"key", "create"}, {"key", "create", "bad/a"}, {"key", "create", "bad/a", "--algorithm", "rot13"},
		create("bad/a", "--class", "imaginary"), create("bad/a", "--label", "no-equals"), create("bad/a", "--no-such-flag"),
		create(""), create("bad name"), create("/bad"), create("bad/"), create("bad//name"), create("../bad"), create("bäd"), create("-bad"),
		create(strings.Repeat("n", 1025)), create("bad\x00name"), create("bad\nname"),
		{"key", "get"}, {"key", "get", "a", "b"}, {"key", "suspend", "dev/probe"}, {"status", "-o", "xml"}, {"sign", "dev/probe", "--in", "/does/not/exist"},
		{"verify", "dev/probe", "--in", "-"}, {"verify", "dev/probe", "--in", "-", "--signature", "!"}, {"key", "get", "dev/probe", "--field", "nope"},
		{"pki", "issue", "--role", "king", "--name", "x"}, {"pki", "issue", "--role", "node", "--name", "n1"}, {"node", "token", "bad name"},
		{"key", "create", "bad/a", "--algorithm", c.signer(), "--request-id", "17"},
	} {
		if slices.ContainsFunc(bad, func(s string) bool { return strings.Contains(s, "\x00") }) {
			continue // the system cannot pass such an argument
		}
		if len(bad) == 0 {
			who.run(t) // help: whatever the code, no crash
			continue
		}
		who.exits(t, 2, bad...)
	}
	if list := who.ok(t, "key", "list", "--prefix", "bad").out; strings.Contains(list, "bad/") {
		t.Errorf("something came of it:\n%s", list)
	}
	who.refuses(t, 3, "bad/absent", "key", "get", "bad/absent")
	who.exits(t, 3, "sign", "bad/absent", "--in", "-")
	who.exits(t, 3, "key", "suspend", "bad/absent", "--reason", "x")
	who.exits(t, 1, create("dev/probe")...)
}

// classes: what a class forces. A demonstration accepts classes that demand a hardware boundary, or nobody could try them.
func classes(t *testing.T, c *devCluster) {
	who, m := c.admin, file(t, []byte("class"))
	who.ok(t, "key", "create", "class/trust", "--algorithm", "ecdsa-p256", "--class", "public-trust")
	who.refuses(t, 5, "approval", "sign", "class/trust", "--in", m)
	for _, class := range []string{"standard", "low"} {
		who.ok(t, "key", "create", "class/"+class, "--algorithm", "ecdsa-p256", "--class", class)
		who.ok(t, "sign", "class/"+class, "--in", m)
	}
}
