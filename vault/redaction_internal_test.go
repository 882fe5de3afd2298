package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// canary stands for a secret; it is looked for in every form in which a program might print it.
var canary = []byte("canary-4711-canary-4711-canary-4")

func shows(text string) bool {
	numbers := strings.Trim(fmt.Sprint(canary[:8]), "[]") // %d and %v of a byte slice
	for _, form := range []string{string(canary), hex.EncodeToString(canary), strings.ToUpper(hex.EncodeToString(canary)),
		base64.StdEncoding.EncodeToString(canary), base64.RawURLEncoding.EncodeToString(canary), numbers, "0x63, 0x61, 0x6e"} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// printed is v as everything prints it that could reach a log, an error or a reply.
func printed(t *testing.T, v any) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t", "%T"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	out["error"] = fmt.Errorf("joining with %v", v).Error()
	b, err := json.Marshal(map[string]any{"value": v})
	if err != nil {
		t.Fatal(err)
	}
	out["json"] = string(b)
	var text, lines bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "value", v, slog.Group("g", "value", v))
	slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "value", v, "all", []any{v})
	out["slog text"], out["slog json"] = text.String(), lines.String()
	return out
}

func TestSecretsDoNotPrintThemselves(t *testing.T) {
	type plain struct{ Secret []byte }
	for how, text := range printed(t, plain{canary}) {
		if how != "%T" && how != "%t" && how != "%o" && !shows(text) {
			t.Fatalf("the search misses a planted secret in %s: %s", how, text)
		}
	}
	secrets := clusterSecrets{NodeCAKey: canary, ClientCAKey: canary, GossipKey: canary}
	token := JoinToken{Cluster: "c", Node: "n2", ID: "id", Secret: canary, Fingerprint: make([]byte, 32), Addresses: []string{"a:1"}}
	for name, v := range map[string]any{
		"secrets": secrets, "pointer to secrets": &secrets, "token": token, "pointer to a token": &token,
		"inside": struct {
			S clusterSecrets
			T JoinToken
		}{secrets, token},
	} {
		for how, text := range printed(t, v) {
			if shows(text) {
				t.Errorf("%s by %s: %s", name, how, text)
			}
		}
	}
}
