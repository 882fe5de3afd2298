package node

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWarnsOfClockSourcesThatStopWithTheGuest(t *testing.T) {
	for source, warned := range map[string]bool{"kvm-clock\n": true, "tsc\n": false, "": false} {
		root, out := t.TempDir(), &bytes.Buffer{}
		if source != "" {
			path := filepath.Join(root, clockSourceFile)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		warnOfClockSource(root, slog.New(slog.NewTextHandler(out, nil)))
		if got := strings.Contains(out.String(), "clock_source=kvm-clock"); got != warned {
			t.Errorf("%q: %s", source, out)
		}
	}
}
