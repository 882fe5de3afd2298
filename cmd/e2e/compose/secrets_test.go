package compose_test

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"debug/elf"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// secrets of this run, by name: what must be in no image, no compose file and nothing that the engine or a program says.
func (c *containers) secrets(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	read := func(name string) []byte {
		p := filepath.Join(c.home, name)
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; only its owner may read it", name, info.Mode(), err)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSpace(b)
	}
	for _, n := range nodes {
		pin := read(n + ".pin")
		raw, err := hex.DecodeString(string(pin))
		if err != nil || len(raw) != 16 {
			t.Errorf("the PIN of %s is not 128 bits in hexadecimal: %v", n, err)
		}
		all[n+".pin"], all[n+".pin in binary"] = pin, raw
	}
	for _, n := range nodes[1:] {
		all[n+".token"] = read(n + ".token")
	}
	for _, name := range []string{"alice.key", "bob.key", "carol.key"} {
		var identity struct {
			AgeSecretKey string `json:"age_secret_key"`
		}
		if err := json.Unmarshal(read(name), &identity); err != nil {
			t.Fatal(err)
		}
		all[name] = []byte(identity.AgeSecretKey)
	}
	block, _ := pem.Decode(read("admin/admin.key"))
	if block == nil {
		t.Fatal("admin.key is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		t.Fatalf("admin.key: %T, %v", parsed, err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	all["admin.key in binary"], all["admin.key in hexadecimal"] = scalar, []byte(hex.EncodeToString(scalar))
	all["admin.key as PEM"] = []byte(base64.StdEncoding.EncodeToString(block.Bytes)[:64]) // its first line
	for name, s := range all {
		if len(s) < 12 {
			t.Fatalf("%s has %d bytes: it would be found by chance", name, len(s))
		}
	}
	return all
}

// keepsSecrets searches the image, the compose file and everything that was said.
func (c *containers) keepsSecrets(t *testing.T) {
	t.Helper()
	places := map[string][]byte{
		"the image's history":     []byte(docker(t, "history", "--no-trunc", c.image)),
		"the image's description": []byte(docker(t, "inspect", c.image)),
		"what compose resolves":   []byte(c.ok(t, "./scripts/compose.sh config")),
		"the nodes' logs":         []byte(c.ok(t, "./scripts/compose.sh logs --no-color")),
	}
	for _, name := range []string{"docker-compose.yml", "Dockerfile", "scripts/compose.sh", "scripts/image.sh"} {
		b, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		places[name] = b
	}
	for _, n := range nodes {
		places["the description of "+n] = []byte(docker(t, "inspect", c.container(t, n).ID))
		b, err := os.ReadFile(filepath.Join(c.home, n+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		places[n+".yaml"] = b
	}
	var said bytes.Buffer
	for _, o := range c.said {
		said.WriteString(o.out + o.errors)
	}
	places["what commands printed"] = said.Bytes()
	for name, content := range c.layers(t) {
		places["the image's "+name] = content
	}
	for where, b := range places {
		if len(b) == 0 {
			t.Errorf("%s is empty: the search does not reach it", where)
		}
		for what, secret := range c.secrets(t) {
			if bytes.Contains(b, secret) {
				t.Errorf("%s holds %s", where, what)
			}
		}
	}
}

// layers are the files of the image.
func (c *containers) layers(t *testing.T) map[string][]byte {
	t.Helper()
	saved := filepath.Join(t.TempDir(), "image.tar")
	docker(t, "save", "--output", saved, c.image)
	f, err := os.Open(saved)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts := untar(t, f)
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(parts["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("the saved image has %d manifests, %v", len(manifest), err)
	}
	files := map[string][]byte{}
	for _, l := range manifest[0].Layers {
		for name, b := range untar(t, bytes.NewReader(parts[l])) {
			files[name] = b
		}
	}
	return files
}

// untar reads the regular files of an archive.
func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[path.Clean(h.Name)], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

// fromScratch demands that the image is one program that needs no other file, and runs as nobody.
func (c *containers) fromScratch(t *testing.T) {
	t.Helper()
	files := c.layers(t)
	if len(files) != 1 || files["conclave"] == nil {
		t.Fatalf("the image has %d files; conclave alone belongs there", len(files))
	}
	program, err := elf.NewFile(bytes.NewReader(files["conclave"]))
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := program.ImportedLibraries()
	if err != nil || len(libraries) != 0 {
		t.Errorf("the program needs %q, %v", libraries, err)
	}
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the program needs a dynamic linker")
	}
	var images []struct {
		Config struct {
			User       string
			Entrypoint []string
			Labels     map[string]string
		}
	}
	if err := json.Unmarshal([]byte(docker(t, "inspect", c.image)), &images); err != nil || len(images) != 1 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	i := images[0].Config
	if i.User != "65532:65532" || !slices.Equal(i.Entrypoint, []string{"/conclave"}) || i.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" {
		t.Errorf("the image runs %q as %q, labels %v", i.Entrypoint, i.User, i.Labels)
	}
}

// confined demands what docker-compose.yml promises of a container, as the engine sees it.
func (c *containers) confined(t *testing.T, node string) {
	t.Helper()
	d := c.container(t, node)
	h := d.HostConfig
	if user, _, _ := strings.Cut(d.Config.User, ":"); user == "" || user == "0" || user == "root" {
		t.Errorf("%s runs as %q", node, d.Config.User)
	}
	if !h.ReadonlyRootfs || h.Privileged || !slices.Equal(h.CapDrop, []string{"ALL"}) || len(h.CapAdd) != 0 ||
		!slices.Contains(h.SecurityOpt, "no-new-privileges:true") {
		t.Errorf("%s is not confined: %+v", node, h)
	}
	for port, bindings := range h.PortBindings {
		for _, b := range bindings {
			if port != "7443/tcp" || b.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %s", node, port, b.HostIP)
			}
		}
	}
	dc, wan := c.project+"_dc"+strings.TrimPrefix(node, "n"), c.project+"_wan"
	if len(d.NetworkSettings.Networks) != 2 || d.NetworkSettings.Networks[dc].IPAddress == "" || d.NetworkSettings.Networks[wan].IPAddress == "" {
		t.Errorf("%s is in %v", node, d.NetworkSettings.Networks)
	}
	c.listens(t, d.NetworkSettings.Networks[dc].IPAddress, map[string]bool{"7443": true, "7444": false, "7445": false})
	c.listens(t, d.NetworkSettings.Networks[wan].IPAddress, map[string]bool{"7444": true, "7445": true})
	status, err := os.ReadFile(filepath.Join("/proc", docker(t, "inspect", "--format", "{{.State.Pid}}", d.ID), "status"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "VmLck:\t       0 kB") || !strings.Contains(string(status), "VmLck:") {
		t.Errorf("%s has locked no memory:\n%s", node, status)
	}
}
