package dev

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

var twoPlaces = []place{
	{ID: "n1", API: "127.0.0.1:11", Cluster: "127.0.0.1:12", Gossip: "127.0.0.1:13"},
	{ID: "n2", API: "127.0.0.1:21", Cluster: "127.0.0.1:22", Gossip: "127.0.0.1:23"},
}

// awkward are folder names that a careless quoting breaks, or runs.
var awkward = []string{"plain", "with space", "it's", `"double"`, "$HOME", "`id`", "$(id)", "a;b", "a&b", "-n", "*", "back\\slash", "'", "''", "ümlaut", "tab\there", "new\nline"}

func shell(t testing.TB, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	return string(out)
}

// TestEnvironmentFiles: a real shell reads what was meant, whatever the folder is called, and the files hold nothing but exports.
func TestEnvironmentFiles(t *testing.T) {
	for _, name := range awkward {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t, filepath.Join(t.TempDir(), name))
			must(t, l.writeEnv("env.sh", "admin", twoPlaces))
			file := filepath.Join(l.dir, "env.sh")
			got := shell(t, `. "$1" && printf '%s\0' "$CONCLAVE_ADDR" "$CONCLAVE_CACERT" "$CONCLAVE_CERT" "$CONCLAVE_KEY" "$PATH"`, file)
			want := strings.Join([]string{
				"127.0.0.1:11,127.0.0.1:21", l.secret("ca.crt"), l.secret("admin.crt"), l.secret("admin.key"), filepath.Dir(l.binary()) + ":" + os.Getenv("PATH"), "",
			}, "\x00")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			// What the announcement tells people to type.
			if got := shell(t, `eval "$1" && printf %s "$CONCLAVE_ADDR"`, ". "+quote(file)); got != "127.0.0.1:11,127.0.0.1:21" {
				t.Errorf("typed: %q", got)
			}
			onlyExports(t, file, name)
		})
	}
}

func onlyExports(t *testing.T, file, dir string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	if strings.Contains(dir, "\n") {
		return // its values have more lines than one
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "export CONCLAVE_") && !strings.HasPrefix(line, "export PATH='") || !strings.HasSuffix(line, "'") {
			t.Errorf("line %q", line)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || len(lines) != 5 {
		t.Errorf("%d lines, %v, %v", len(lines), info.Mode(), err)
	}
}

// TestAnEmptyPathStaysEmpty: an empty element of PATH means the current folder, from which no program should come by accident.
func TestAnEmptyPathStaysEmpty(t *testing.T) {
	sh, err := exec.LookPath("sh")
	must(t, err)
	l := newLayout(t, t.TempDir())
	t.Setenv("PATH", "")
	must(t, l.writeEnv("env.sh", "admin", twoPlaces))
	out, err := exec.Command(sh, "-c", `. "$1" && printf %s "$PATH"`, "sh", filepath.Join(l.dir, "env.sh")).Output()
	if err != nil || string(out) != filepath.Dir(l.binary()) {
		t.Errorf("PATH is %q, %v", out, err)
	}
}

func TestQuoteIsReadByAShell(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var words []string
		script := "printf '%s\\0'"
		for _, w := range rapid.SliceOfN(rapid.StringOf(rapid.RuneFrom([]rune("a '\"\\$`\n!*;&|<>(){}~#=%-é"))), 20, 20).Draw(r, "words") {
			words = append(words, w)
			script += " " + quote(w)
		}
		if got := shell(t, script); got != strings.Join(words, "\x00")+"\x00" {
			r.Fatalf("%q was read as %q", words, got)
		}
	})
}

func TestPINsAreMadeOnce(t *testing.T) {
	l := newLayout(t, t.TempDir())
	must(t, l.writePIN("n1"))
	must(t, l.writePIN("n2"))
	first, err := config.PIN{File: l.secret("n1.pin")}.Read() // checks the mode too
	must(t, err)
	if raw, err := hex.DecodeString(string(first)); err != nil || len(raw) != 16 {
		t.Errorf("a PIN of %d bytes, %v", len(raw), err)
	}
	must(t, l.writePIN("n1"))
	again, err := config.PIN{File: l.secret("n1.pin")}.Read()
	must(t, err)
	other, err := config.PIN{File: l.secret("n2.pin")}.Read()
	must(t, err)
	if string(again) != string(first) || string(other) == string(first) {
		t.Error("a PIN changed, or two nodes have the same")
	}
}

// TestConfigurations are what a node accepts, in the awkward folders too, and put data where dev looks for them.
func TestConfigurations(t *testing.T) {
	for _, name := range awkward {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t, filepath.Join(t.TempDir(), name))
			for i, p := range twoPlaces {
				other := twoPlaces[1-i]
				must(t, l.writeConfig(p, twoPlaces, i == 0, ""))
				got, err := config.Load(l.config(p.ID))
				must(t, err)
				want := config.Config{
					Node: p.ID, Datacenter: "dev", DataDir: filepath.Dir(l.membership(p.ID)), Seal: "ceremony", Network: "lan",
					API: config.Endpoint{Bind: p.API, Advertise: p.API}, Cluster: config.Endpoint{Bind: p.Cluster, Advertise: p.Cluster},
					Gossip: config.Endpoint{Bind: p.Gossip, Advertise: p.Gossip}, Peers: map[string]string{other.ID: other.Cluster},
					HSM: config.HSM{Type: "soft", PIN: config.PIN{File: l.secret(p.ID + ".pin")}}, Log: config.Log{Level: "info", Format: "text"},
				}
				if i != 0 {
					want.Join.TokenFile = l.secret(p.ID + ".token")
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestFilesAreReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, []byte("a longer text that was here"), 0o600))
	must(t, os.WriteFile(path+".tmp", []byte("left by a crash"), 0o600))
	must(t, writeFile(path, []byte("short")))
	if b, err := os.ReadFile(path); err != nil || string(b) != "short" || exists(path+".tmp") || !exists(path) {
		t.Errorf("%q, %v", b, err)
	}
}
