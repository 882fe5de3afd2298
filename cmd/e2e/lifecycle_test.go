package e2e_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// classesAndDates: a class of one's own, a key in it whose dates come by themselves, and a reader of all that happens.
func classesAndDates(t *testing.T, c *devCluster) {
	who := c.admin
	size := who.field(t, "log_size", "status")
	who.ok(t, "class", "create", "cards", "--from", "standard", "--rotate-every", "90d", "--originator-period", "1y", "--recipient-period", "3y", "--algorithm", "aes-256-gcm")
	who.exits(t, 2, "key", "create", "life/pan", "--algorithm", "ed25519", "--class", "cards")
	at := time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339Nano)
	who.ok(t, "key", "create", "life/pan", "--algorithm", "aes-256-gcm", "--class", "cards", "--activate-at", at, "--description", "card numbers", "--link", "replaces=life/a", "--label", "team=cards")
	wantState(t, who, "life/pan", "pre-active")
	who.exits(t, 8, "encrypt", "life/pan", "--in", file(t, []byte("x")))
	err := patiently(20*time.Second, func() error {
		if o := who.run(t, "encrypt", "life/pan", "--in", file(t, []byte("x"))); o.code != 0 {
			return errors.New(o.errors)
		}
		return nil
	})
	if err != nil {
		t.Errorf("it is not active after its date: %v", err)
	}
	wantState(t, who, "life/pan", "active")

	who.exits(t, 5, "key", "set-class", "life/pan", "low")
	who.exits(t, 5, "key", "set-class", "life/pan", "low", "--dry-run")
	who.exits(t, 5, "class", "update", "cards", "--rotate-every", "1y")
	who.ok(t, "key", "create", "life/mac", "--algorithm", "hmac-sha256")
	who.refuses(t, 1, "keys stand against it", "key", "set-class", "life/mac", "cards", "--dry-run")
	who.refuses(t, 1, "hmac-sha256 is not allowed", "key", "set-class", "life/mac", "cards")
	who.ok(t, "class", "update", "cards", "--min-destroy-wait", "30d")
	if got := who.field(t, "min_destroy_wait", "class", "get", "cards"); got != "720h0m0s" {
		t.Errorf("the class waits %s", got)
	}
	who.exits(t, 1, "class", "delete", "cards")
	who.ok(t, "key", "update", "life/pan", "--remove-label", "team", "--label", "users=nobody", "--owner", "user/nobody", "--deactivate-at", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	for filter, found := range map[string]bool{"--class=cards": true, "--state=suspended": false, "--label=users": true, "--label=users=somebody": false, "--algorithm=aes-256-gcm": true} {
		if got := who.ok(t, "key", "list", "--prefix", "life/pan", filter, "-o", "json").out; strings.Contains(got, "life/pan") != found {
			t.Errorf("list %s: %s", filter, got)
		}
	}
	wantWatched(t, who, size)
}

// wantWatched reads the log from a leaf on and expects what became of the key, in order, without a gap.
func wantWatched(t *testing.T, who caller, from string) {
	t.Helper()
	out := who.ok(t, "watch", "--from-leaf", from, "--subject", "key/life/pan", "--limit", "3", "-o", "json").out
	var actions []string
	last := int64(-1)
	for line := range strings.Lines(out) {
		var e struct {
			Leaf   int64
			Action string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if e.Leaf <= last {
			t.Errorf("leaf %d after %d", e.Leaf, last)
		}
		last, actions = e.Leaf, append(actions, e.Action)
	}
	if !slices.Equal(actions, []string{"key.create", "key.activate", "key.update"}) {
		t.Errorf("watched %v", actions)
	}
	who.ok(t, "key", "suspend", "life/pan", "--reason", "seen from elsewhere")
	if rest := who.field(t, "action", "watch", "--from-leaf", strconv.FormatInt(last+1, 10), "--subject", "key/life/pan", "--limit", "1"); rest != "key.suspend" {
		t.Errorf("it goes on with %q", rest)
	}
}
