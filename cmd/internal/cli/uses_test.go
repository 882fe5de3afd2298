package cli_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/cli"
	"github.com/conclave-vault/conclave/vault/usage"
)

// TestUsageVerify: a whole log, what was moved away, a cut end, and the record that was changed.
func TestUsageVerify(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "usage")
	for range 3 { // three starts, each beginning a segment
		l, err := usage.Open(usage.Config{Dir: dir, Node: "n1", Boot: "b", Now: time.Now, Logger: slog.New(slog.DiscardHandler), SegmentBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(context.Background(), &usage.Entry{Time: time.Now(), KeyID: "the-key", Outcome: usage.Done}); err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(context.Background())
		end()
		if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	verify := func(code int, want ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		got := cli.Run(context.Background(), cli.Deps{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }},
			[]string{"usage", "verify", "--data-dir", data, "-o", "json"})
		for _, text := range want {
			if got != code || !strings.Contains(out.String()+errs.String(), text) {
				t.Errorf("exit %d, %s%s; want %d, %s", got, out.String(), errs.String(), code, text)
			}
		}
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segments) != 3 {
		t.Fatalf("%q, %v", segments, err)
	}
	verify(0, `"uses":3,"starts":3`, `"note":""`)
	right := data
	data = t.TempDir()
	verify(1, "conclave: usage verify: no usage log there: ", "--data-dir is data_dir of the node's configuration")
	data = right
	content, err := os.ReadFile(segments[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[1], bytes.Replace(content, []byte("the-key"), []byte("another"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	verify(1, "usage verify: usage log: record 5, in "+segments[1]+": it was changed, or one before it was")
	if err := os.WriteFile(segments[1], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(segments[0]), os.Truncate(segments[2], 100)); err != nil {
		t.Fatal(err)
	}
	verify(0, `"first":3`, "earlier files were moved away; the end is cut inside a record")
}
