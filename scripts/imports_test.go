package scripts_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/conclave-vault/conclave/"

// allowed lists, for each package, the packages of ours that it may import, each with its reason. A folder stands for the
// packages below it too unless they have a line of their own. What is not here is forbidden.
var allowed = map[string]map[string]string{
	"hsm":                   {},
	"hsm/keyuse":            {"hsm": "the port speaks of wrapped keys and their errors"},
	"hsm/keywrap":           {},
	"hsm/internal/drain":    {"hsm": "the errors of a sealed and of a closed token"},
	"hsm/internal/memlock":  {},
	"hsm/internal/selftest": {"hsm": "a pair that is known to work, in the form of the port"},
	"hsm/soft": {
		"hsm": "implements the port", "hsm/keyuse": "implements the key-use port", "hsm/keywrap": "RFC 5649",
		"hsm/internal/drain": "counting and draining, as every backend does it", "hsm/internal/memlock": "memory for secrets",
		"hsm/internal/selftest": "keys to test itself with",
	},
	"hsm/pkcs11": {
		"hsm": "implements the port", "hsm/keyuse": "implements the key-use port", "hsm/keywrap": "checks what the device wraps by another path",
		"hsm/internal/drain": "counting and draining, as every backend does it", "hsm/internal/memlock": "memory for the PIN",
		"hsm/internal/selftest": "keys to test the device with",
	},
	"hsm/fips":            {"hsm": "masks what a token can do", "hsm/keyuse": "refuses to open what is not approved; it uses no key"},
	"hsm/hsmtest":         {"hsm": "tests the port", "hsm/keyuse": "tests the key-use port", "hsm/keywrap": "checks blobs by another path"},
	"fsm":                 {"fsm/fsmpb": "entries and snapshots on the wire"},
	"fsm/fsmpb":           {},
	"cluster":             {"cluster/clusterpb": "node-to-node calls", "cluster/lease": "serving leases", "cluster/store": "log store under raft", "cluster/refusal": "lines about refused connections", "cluster/gate": "what gRPC refuses without a word"},
	"cluster/lease":       {},
	"cluster/refusal":     {},
	"cluster/gate":        {"cluster/refusal": "where it tells"},
	"cluster/store":       {},
	"cluster/clusterpb":   {},
	"cluster/clustertest": {"cluster": "tests it in memory"},
	"vault/pki":           {},
	"vault/policy":        {"fsm": "the state that it answers from"},
	"vault/segment":       {},
	"vault/journal":       {"vault/segment": "a leaf: files of framed records"},
	"vault/usage":         {"vault/segment": "a leaf: files of framed records"},
	"vault/ledger":        {"fsm": "the events that it shows and proves", "vault/pki": "the names in nodes' certificates"},
	"vault/wholefile":     {},
	"vault/ceremony":      {"fsm": "rosters and the messages that custodians sign", "vault/wholefile": "a leaf: identities are written whole"},
	"vault/replica":       {"fsm": "the state machine that it adapts to raft", "vault/journal": "where events go"},
	"vault/guard": {
		"fsm": "states, classes and rights", "hsm": "errors and algorithms", "hsm/keyuse": "the only way to a private key",
		"cluster/lease": "a leaf: the lease that every use is checked against", "vault/policy": "who may use which key",
		"vault/usage": "a leaf: where uses are recorded before their results leave",
	},
	"vault": {
		"fsm": "commands and snapshots", "hsm": "the token", "cluster/lease": "a leaf: the lease it shows in status",
		"vault/ceremony": "shares", "vault/guard": "key use", "vault/pki": "certificates", "vault/policy": "who may", "vault/journal": "stored events", "vault/ledger": "checkpoints and proofs", "vault/replica": "the applied state", "vault/usage": "a leaf: the usage log that it shows",
	},
	"transport/vaultpb": {},
	"transport/kind":    {},
	"transport/client":  {"transport/vaultpb": "the API", "transport/kind": "the table of errors"},
	"transport": {
		"transport/vaultpb": "the API", "transport/kind": "the table of errors",
		"vault": "what it serves", "vault/guard": "errors of key use", "vault/pki": "names in certificates", "vault/policy": "callers", "vault/ceremony": "errors of shares", "vault/usage": "a leaf: its errors, and what a client calls its request",
		"fsm": "domain types that it converts", "hsm": "algorithms and errors", "cluster": "errors of reaching other nodes",
		"cluster/gate": "what gRPC refuses without a word", "cluster/refusal": "a leaf: lines about refused connections, bounded as those of the cluster port",
	},
	"cmd":     nil, // the composition root may import everything
	"scripts": {},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// rule finds the line that governs a package: its own, else that of the nearest folder above.
func rule(pkg string) (map[string]string, bool) {
	for p := pkg; ; {
		if r, ok := allowed[p]; ok {
			return r, true
		}
		i := strings.LastIndex(p, "/")
		if i < 0 {
			return nil, false
		}
		p = p[:i]
	}
}

func TestImportDirection(t *testing.T) {
	for _, p := range packages(t) {
		pkg, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			t.Errorf("package %s stands at the top level: it needs a place in cmd, cluster, fsm, vault, transport, hsm or scripts", p.ImportPath)
			continue
		}
		edges, known := rule(pkg)
		if !known {
			t.Errorf("package %s has no line in the table of allowed imports", pkg)
			continue
		}
		if strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if _, ok := edges[to]; ours && !ok {
				t.Errorf("%s imports %s, which no line allows", pkg, to)
			}
		}
	}
}

// TestKeyUseHasOneImporter is the promise that no key is used past the guard.
func TestKeyUseHasOneImporter(t *testing.T) {
	permitted := []string{"vault/guard", "hsm/soft", "hsm/pkcs11", "hsm/fips", "hsm/hsmtest"}
	for _, p := range packages(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		if slices.Contains(p.Imports, module+"hsm/keyuse") && !slices.Contains(permitted, pkg) {
			t.Errorf("%s imports hsm/keyuse: only vault/guard may use keys", pkg)
		}
	}
}
