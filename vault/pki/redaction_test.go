package pki_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/vault/pki"
)

// TestAnAuthorityDoesNotPrintItsKey by any verb, logger or encoder.
func TestAnAuthorityDoesNotPrintItsKey(t *testing.T) {
	a := authority(t, "node")
	secret, err := a.Key.Bytes()
	must(t, err)
	d := new(big.Int).SetBytes(secret)
	shows := func(text string) bool {
		lower := strings.ToLower(text)
		return strings.Contains(text, d.String()) || strings.Contains(lower, hex.EncodeToString(secret)) || strings.Contains(lower, d.Text(16)) || strings.Contains(text, string(secret))
	}
	if !shows(fmt.Sprint(d)) || !shows(fmt.Sprintf("%x", secret)) {
		t.Fatal("the search misses a planted key")
	}
	for name, v := range map[string]any{"pointer": a, "value": *a, "inside": struct{ A *pki.Authority }{a}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			if text := fmt.Sprintf(verb, v); shows(text) {
				t.Errorf("%s by %s: %.200s", name, verb, text)
			}
		}
		b, err := json.Marshal(v)
		must(t, err)
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "a", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "a", v)
		if shows(string(b)) || shows(log.String()) {
			t.Errorf("%s by an encoder: %.200s\n%.200s", name, b, log.String())
		}
	}
}
