package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

func TestProblemsNameTheirLines(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"several": {
			"# a node\nnode: N1\ndata_dir: data\napi:\n  bind: nonsense\ncluster: {bind: \"127.0.0.1:7444\", advertise: \"0.0.0.0:7444\"}\nseal: never\nhsm: {pin: {file: p}}\npeers:\n  n2: \"x\"\n",
			[]string{
				"line 2: node: node id", "line 5: api.bind: address nonsense", "line 6: cluster.advertise: \"0.0.0.0:7444\" cannot be called",
				"line 7: seal: \"never\"", "line 10: peers.n2: address x",
			},
		},
		"missing":       {"node: n1\nhsm: {pin: {}}\n", []string{"data_dir is missing", "api.bind is missing", "cluster.bind is missing", "line 2: hsm.pin: 0 sources"}},
		"a sibling":     {minimal + "gossip:\n  advertise: \"a:1\"\n", []string{"line 7: gossip.advertise without gossip.bind"}},
		"unknown names": {minimal + "sael: x\nlog: {colour: red}\n", []string{"line 6: field sael not found", "line 7: field colour not found"}},
		"no YAML":       {"node: [", []string{"yaml: line 1"}},
		"a secret":      {with("hsm: {pin: hunter2}\n"), []string{"line 5: hsm.pin takes file"}},
	} {
		got, _ := config.Problems(write(t, "node.yaml", c.text, 0o600))
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(got[i], want) || strings.Contains(got[i], "hunter2") {
				t.Errorf("%s: %q, want %q", name, got[i], want)
			}
		}
	}
}

func TestProblemsOfAGoodFile(t *testing.T) {
	path := write(t, "node.yaml", minimal, 0o600)
	problems, got := config.Problems(path)
	want, err := config.Load(path)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if problems, _ := config.Problems(filepath.Join(t.TempDir(), "gone.yaml")); len(problems) != 1 || !strings.Contains(problems[0], "no such file") {
		t.Errorf("a file that is not there: %q", problems)
	}
}

// FuzzProblems: whatever a file holds, what is wrong with it is told, and Load agrees that something is.
func FuzzProblems(f *testing.F) {
	f.Add(minimal)
	f.Add("node: N1\napi: &a {bind: x}\ncluster: *a\nhsm: {pin: {fd: a}}\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := write(t, "node.yaml", text, 0o600)
		problems, _ := config.Problems(path)
		if _, err := config.Load(path); (err != nil) != (len(problems) > 0) {
			t.Errorf("problems %q, and loading says %v", problems, err)
		}
	})
}
