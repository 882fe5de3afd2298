package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

// minimal is the least that a node needs.
const minimal = `node: n1
data_dir: data
api: {bind: "127.0.0.1:7443"}
cluster: {bind: "127.0.0.1:7444"}
hsm: {pin: {file: token.pin}}
`

func write(t testing.TB, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	got, err := config.Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		Node: "n1", Datacenter: "dc1", DataDir: "data", Seal: "ceremony", Network: "lan",
		API:     config.Endpoint{Bind: "127.0.0.1:7443", Advertise: "127.0.0.1:7443"},
		Cluster: config.Endpoint{Bind: "127.0.0.1:7444", Advertise: "127.0.0.1:7444"},
		HSM:     config.HSM{Type: "soft", PIN: config.PIN{File: "token.pin"}}, Log: config.Log{Level: "info", Format: "json"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExample(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load("testdata/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		Node: "n1", Datacenter: "fra1", DataDir: filepath.Join(dir, "data"), Seal: "ceremony", Network: "lan",
		API:     config.Endpoint{Bind: "0.0.0.0:7443", Advertise: "n1.vault.example:7443"},
		Cluster: config.Endpoint{Bind: "0.0.0.0:7444", Advertise: "n1.vault.example:7444"},
		Gossip:  config.Endpoint{Bind: "0.0.0.0:7445", Advertise: "192.0.2.11:7445"},
		HSM: config.HSM{
			Type: "soft", Soft: config.Soft{Argon2: config.Argon2{Passes: 3, MemoryKiB: 65536, Threads: 2}},
			PIN: config.PIN{File: filepath.Join(dir, "token.pin")},
		},
		Peers: map[string]string{"n2": "n2.vault.example:7444", "n3": "n3.vault.example:7444"},
		Join:  config.Join{TokenFile: filepath.Join(dir, "join.token")},
		Log:   config.Log{Level: "info", Format: "json"}, Snap: config.Snapshot{Threshold: 8192, TrailingLogs: 10240, Interval: 2 * time.Minute}, UsageLog: config.UsageLog{MaxMiB: 8192},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPKCS11Example(t *testing.T) {
	got, err := config.Load("testdata/pkcs11.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := config.PKCS11{
		Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "conclave-n1", Serial: "0a1b2c3d4e5f6071", Sessions: 8,
		Environment: map[string]string{"SOFTHSM2_CONF": "/etc/conclave/softhsm2.conf"},
	}
	if diff := cmp.Diff(want, got.HSM.PKCS11); diff != "" || got.HSM.Type != config.PKCS11Type {
		t.Errorf("type %s, %s", got.HSM.Type, diff)
	}
}

// TestPKCS11Refusals: no answer repeats a value from the environment, where somebody may have put a secret.
func TestPKCS11Refusals(t *testing.T) {
	const secret = "sesame-open"
	for lines, want := range map[string]string{
		"  type: soft\n  pkcs11:\n    token: a\n":                                                                                      "hsm.type is soft",
		"  type: pkcs11\n":                                                                                                             "module",
		"  type: pkcs11\n  pkcs11:\n    module: lib.so\n    token: a\n":                                                                "absolute path",
		"  type: pkcs11\n  pkcs11:\n    module: /lib.so\n":                                                                             "label",
		"  type: pkcs11\n  pkcs11:\n    module: /lib.so\n    token: a\n    sessions: 2000\n":                                           "sessions",
		"  type: pkcs11\n  pkcs11:\n    module: /lib.so\n    token: a\n    slot: 3\n":                                                  "slot",
		"  type: pkcs11\n  pkcs11:\n    module: /lib.so\n    token: a\n    environment:\n      'A B': " + secret + "\n":                "A B",
		"  type: pkcs11\n  soft:\n    argon2: {passes: 1, memory_kib: 64, threads: 1}\n  pkcs11:\n    module: /lib.so\n    token: a\n": "hsm.soft is set",
		"  soft:\n    argon2: {passes: 100, memory_kib: 65536, threads: 2}\n":                                                          "hsm.soft.argon2",
		"  soft:\n    argon2: {passes: 1}\n":                                                                                           "hsm.soft.argon2",
		"  type: card\n":                                                                                                               "use one of: soft, pkcs11",
	} {
		_, err := config.Parse([]byte(with("hsm:\n  pin: {file: token.pin}\n" + lines)))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", lines, err)
		}
	}
}

// TestTheExampleShowsEveryField with a comment of its own. Of the PIN's sources it can show one; the comment names the others.
func TestTheExampleShowsEveryField(t *testing.T) {
	shown := map[string]string{}
	for _, name := range []string{"pkcs11.yaml", "node.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		collect(doc.Content[0], "", shown)
	}
	for _, path := range fieldPaths(reflect.TypeFor[config.Config](), "") {
		comment, ok := shown[path]
		switch {
		case path == "hsm.pin.fd" || path == "hsm.pin.prompt":
			if name := path[len("hsm.pin."):]; !strings.Contains(shown["hsm.pin"], name) {
				t.Errorf("the comment of hsm.pin does not name %s", name)
			}
		case !ok:
			t.Errorf("%s is not in the example", path)
		case comment == "":
			t.Errorf("%s has no comment", path)
		}
	}
}

// collect maps the path of each field to the comment above it, or above the field that holds it.
func collect(n *yaml.Node, prefix string, into map[string]string) {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		key := n.Content[i]
		comment := key.HeadComment
		if comment == "" {
			comment = into[strings.TrimSuffix(prefix, ".")]
		}
		into[prefix+key.Value] = comment
		collect(n.Content[i+1], prefix+key.Value+".", into)
	}
}

func fieldPaths(t reflect.Type, prefix string) []string {
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		path := prefix + f.Tag.Get("yaml")
		all = append(all, path)
		if f.Type.Kind() == reflect.Struct {
			all = append(all, fieldPaths(f.Type, path+".")...)
		}
	}
	return all
}

// with is the minimal file and more lines, which may set fields anew.
func with(lines string) string {
	kept := ""
	for line := range strings.Lines(minimal) {
		if name, _, _ := strings.Cut(line, ":"); !strings.Contains("\n"+lines, "\n"+name+":") {
			kept += line
		}
	}
	return kept + lines
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"nothing":                        {"", "data_dir is missing"},
		"an unknown field":               {minimal + "sael: ceremony\n", "line 6: field sael not found"},
		"an unknown field inside":        {"# a comment\n" + with("hsm:\n  pin:\n    file: p\n    value: x\n"), "line 9: hsm.pin takes file"},
		"an unknown field of the log":    {with("log:\n  level: info\n  colour: red\n"), "line 8: field colour not found"},
		"a field twice":                  {minimal + "node: n2\n", "line 6"},
		"a field of another type":        {with("snapshot:\n  threshold: many\n"), "line 7"},
		"a negative number":              {with("snapshot: {threshold: -1}\n"), "line 6"},
		"snapshots without a pause":      {with("snapshot: {interval: 10ms}\n"), "at least 1s"},
		"no YAML":                        {"node: [", "line 1"},
		"a list":                         {"- node\n", "line 1"},
		"two documents":                  {minimal + "---\nnode: n2\n", "more than one document"},
		"two documents, one empty":       {minimal + "---\n", "more than one document"},
		"a broken second document":       {minimal + "---\n[", "more than one document"},
		"no node":                        {with("node: \"\"\n"), "node: node id"},
		"a node with a capital":          {with("node: N1\n"), "node: node id"},
		"no data_dir":                    {with("data_dir: \"\"\n"), "data_dir is missing"},
		"no api":                         {with("api: {}\n"), "api.bind is missing"},
		"no cluster":                     {with("cluster: {}\n"), "cluster.bind is missing"},
		"an address without a port":      {with("api: {bind: 127.0.0.1}\n"), "api.bind: address 127.0.0.1: missing port"},
		"a port that is none":            {with("api: {bind: \"127.0.0.1:99999\"}\n"), "api.bind: \"99999\" is no port"},
		"an empty port":                  {with("api: {bind: \"127.0.0.1:\"}\n"), "api.bind: \"\" is no port"},
		"advertising every address":      {with("api: {bind: \"0.0.0.0:1\"}\n"), "api.advertise: \"0.0.0.0:1\" cannot be called by others"},
		"advertising every IPv6 address": {with("cluster: {bind: \"[::]:1\"}\n"), "cluster.advertise: \"[::]:1\" cannot be called by others"},
		"advertising no host":            {with("gossip: {bind: \":1\"}\n"), "gossip.advertise: \":1\" cannot be called by others"},
		"advertising port 0":             {with("api: {bind: \"127.0.0.1:0\"}\n"), "api.advertise: \"127.0.0.1:0\" cannot be called by others"},
		"advertising no port":            {with("api: {bind: \"127.0.0.1:1\", advertise: host}\n"), "api.advertise: address host: missing port"},
		"advertising an empty port":      {with("api: {bind: \"127.0.0.1:1\", advertise: \"host:\"}\n"), "api.advertise: \"\" is no port"},
		"advertising what is not bound":  {with("gossip: {advertise: \"a:1\"}\n"), "gossip.advertise without gossip.bind"},
		"another seal":                   {with("seal: never\n"), "seal: \"never\"; use one of: ceremony, persistent"},
		"another network":                {with("network: moon\n"), "network: \"moon\"; use one of: lan, wan"},
		"another level":                  {with("log: {level: loud}\n"), "log.level: \"loud\""},
		"another format":                 {with("log: {format: xml}\n"), "log.format: \"xml\""},
		"pkcs11":                         {with("hsm: {type: pkcs11, pin: {file: p}}\n"), "hsm.pkcs11.module"},
		"another HSM":                    {with("hsm: {type: cloud, pin: {file: p}}\n"), "hsm.type: \"cloud\"; use one of: soft"},
		"no PIN":                         {with("hsm: {}\n"), "hsm.pin: 0 sources; give exactly one of file, fd, prompt"},
		"two PINs":                       {with("hsm: {pin: {file: p, fd: 0}}\n"), "hsm.pin: 2 sources"},
		"three PINs":                     {with("hsm: {pin: {file: p, fd: 0, prompt: true}}\n"), "hsm.pin: 3 sources"},
		"a peer that is no node":         {with("peers: {N2: \"a:1\"}\n"), "peers: node id"},
		"a peer without an address":      {with("peers: {n2: \"\"}\n"), "peers.n2"},
		"a peer that cannot be called":   {with("peers: {n2: \"0.0.0.0:1\"}\n"), "peers.n2: \"0.0.0.0:1\" cannot be called by others"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Parse([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; it should say %q", got, err, c.says)
			}
			_, err = config.Load(write(t, "node.yaml", c.text, 0o644))
			if !errors.Is(err, config.ErrConfig) || !strings.Contains(err.Error(), "node.yaml: ") {
				t.Errorf("loading it: %v", err)
			}
		})
	}
}

// TestEveryComplaintAtOnce: an operator corrects a file once.
func TestEveryComplaintAtOnce(t *testing.T) {
	_, err := config.Parse([]byte("node: N1\nseal: never\nlog: {level: loud}\n"))
	for _, part := range []string{"node: ", "data_dir", "api.bind", "cluster.bind", "seal: ", "log.level: ", "hsm.pin: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not said: %v", part, err)
		}
	}
}

func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"port 0 behind an advertised one": with("api: {bind: \"0.0.0.0:0\", advertise: \"host:1\"}\n"),
		"IPv6":                            with("api: {bind: \"[::]:1\", advertise: \"[2001:db8::1]:1\"}\n"),
		"PIN from descriptor 0":           with("hsm: {pin: {fd: 0}}\n"),
		"PIN by prompt":                   with("hsm: {pin: {prompt: true}}\n"),
		"persistent":                      with("seal: persistent\n"),
		"a document's markers":            "---\n" + minimal + "...\n",
		"Windows' line ends":              strings.ReplaceAll(minimal, "\n", "\r\n"),
	} {
		if _, err := config.Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAPINInTheFileIsNotRepeated: whoever writes the PIN there by mistake must not find it in the service's log as well.
func TestAPINInTheFileIsNotRepeated(t *testing.T) {
	for _, pin := range []string{"s3cr3t", "\n    - s3cr3t", "{fd: s3cr3t}", "{prompt: s3cr3t}", "{s3cr3t: }", "{file: [s3cr3t]}"} {
		_, err := config.Parse([]byte(with("hsm:\n  pin: " + pin + "\n")))
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "line ") || !strings.Contains(err.Error(), "hsm.pin") {
			t.Errorf("%q: %v", pin, err)
		}
	}
}

func TestRelativePaths(t *testing.T) {
	path := write(t, "node.yaml", with("hsm: {pin: {file: ../pins/n1}}\njoin: {token_file: /abs/token}\n"), 0o644)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	got := []string{c.DataDir, c.HSM.PIN.File, c.Join.TokenFile}
	want := []string{filepath.Join(dir, "data"), filepath.Join(filepath.Dir(dir), "pins", "n1"), "/abs/token"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	t.Chdir(dir)
	again, err := config.Load("node.yaml")
	if diff := cmp.Diff(c, again); diff != "" || err != nil {
		t.Errorf("from its folder: %v\n%s", err, diff)
	}
	empty, err := config.Load(write(t, "node.yaml", minimal, 0o644))
	if err != nil || empty.Join.TokenFile != "" {
		t.Errorf("no token became %q: %v", empty.Join.TokenFile, err)
	}
}

func TestNoFile(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := config.Load(path); !errors.Is(err, config.ErrConfig) {
			t.Errorf("%v", err)
		}
	}
}

// TestAHugeFileIsRefused and not read up to a limit: what is cut off might be a setting.
func TestAHugeFileIsRefused(t *testing.T) {
	fill := func(size int) string { return minimal + "#" + strings.Repeat("x", size-len(minimal)-2) + "\n" }
	if _, err := config.Load(write(t, "node.yaml", fill(1<<20), 0o644)); err != nil {
		t.Errorf("a file of the largest size: %v", err)
	}
	for _, text := range []string{fill(1<<20 + 1), fill(1<<20) + "seal: persistent\n", strings.Repeat("\n", 2<<20)} {
		if _, err := config.Load(write(t, "node.yaml", text, 0o644)); !errors.Is(err, config.ErrConfig) || !strings.Contains(err.Error(), "at most 1048576") {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(with("peers: &a {n2: \"b:1\"}\nlog: {level: info}\n")))
	f.Add([]byte("a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := config.Parse(b)
		if err != nil {
			return
		}
		if c.Node == "" || c.DataDir == "" || c.API.Advertise == "" || c.Cluster.Advertise == "" || c.HSM.Type != "soft" {
			t.Errorf("accepted: %s", fmt.Sprintf("%+v", c))
		}
	})
}
