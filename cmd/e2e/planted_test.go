package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSearchFindsWhatIsPlanted: a search that finds nothing means something only if it finds what is there.
func TestSearchFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	secret := []byte{0xfb, 0xff, 0xbf, 0x3e, 0x3f, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}
	canaries := []canary{{"the planted", secret}}
	for name, content := range spellings(secret) {
		c := decoy(t)
		if hits := c.hits(t, canaries); len(hits) != 0 {
			t.Fatalf("before anything is planted: %q", hits)
		}
		path := filepath.Join(c.dir, "m1", "data", "deep", "below")
		plant(t, path, "something before "+content+" and something behind")
		if hits := c.hits(t, canaries); len(hits) != 1 || !strings.HasPrefix(hits[0], path) {
			t.Errorf("planted as %s: %q", name, hits)
		}
	}
}

// spellings are made by other means than the search's own.
func spellings(secret []byte) map[string]string {
	all := map[string]string{"raw": string(secret), "hex": hex.EncodeToString(secret), "upper-case hex": strings.ToUpper(hex.EncodeToString(secret))}
	for name, enc := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64 for URLs": base64.RawURLEncoding} {
		for before := range 3 {
			for behind := range 3 {
				text := "abc"[:before] + string(secret) + "xyz"[:behind]
				all[name+" with "+strconv.Itoa(before)+" before and "+strconv.Itoa(behind)+" behind"] = enc.EncodeToString([]byte(text))
			}
		}
	}
	return all
}

// decoy is a cluster's folder without a cluster.
func decoy(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir(), said: &transcript{}}
	c.secrets = filepath.Join(c.dir, "secrets")
	c.nodes = []*member{{id: "m1", dir: filepath.Join(c.dir, "m1")}}
	plant(t, filepath.Join(c.dir, "m1", "data", "raft.db"), "nothing")
	return c
}

func plant(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSearchLooksEverywhere: outputs, command lines and environments too, and the folder of secrets not.
func TestSearchLooksEverywhere(t *testing.T) {
	t.Parallel()
	const secret = "PLANTED-SECRET-0123456789"
	canaries := []canary{{"the planted", []byte(secret)}}
	c := decoy(t)
	plant(t, filepath.Join(c.secrets, "allowed"), secret)
	c.said.add(outcome{out: "it is " + secret, secret: true})
	if hits := c.hits(t, canaries); len(hits) != 0 {
		t.Errorf("where it may be: %q", hits)
	}
	c.said.add(outcome{errors: "failed with " + hex.EncodeToString([]byte(secret))})
	cmd := exec.Command("sh", "-c", "echo up; read line", c.nodes[0].dir, secret)
	cmd.Env = []string{"PIN=" + secret}
	if _, err := cmd.StdinPipe(); err != nil { // it reads until the test is over
		t.Fatal(err)
	}
	p, err := spawn("a process that says too much", cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(stopTime) })
	// A process has no command line nor environment for a moment after its start: the kernel fills them in last.
	eventually(t, stopTime, "the process's first word", func() error {
		if p.out.String() == "" {
			return errors.New("it has said nothing yet")
		}
		return nil
	})
	plant(t, filepath.Join(c.nodes[0].dir, "pid"), strconv.Itoa(cmd.Process.Pid))
	hits := strings.Join(c.hits(t, canaries), "\n")
	for _, where := range []string{"says the planted (hex)", "cmdline of the process", "environ of the process"} {
		if !strings.Contains(hits, where) {
			t.Errorf("not found: %s; only:\n%s", where, hits)
		}
	}
}
