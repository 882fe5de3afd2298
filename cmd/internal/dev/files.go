package dev

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/vault/wholefile"
)

// pinBytes: a demo PIN is 128 random bits in hex.
const pinBytes = 16

// writePIN makes a node's PIN file unless there is one.
func (l layout) writePIN(id string) error { return writeRandom(l.secret(id + ".pin")) }

// writeRandom makes a file with a random PIN unless there is one.
func writeRandom(path string) error {
	b := make([]byte, pinBytes)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	err := wholefile.Create(path, []byte(hex.EncodeToString(b)+"\n"), 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// writeConfig writes a node's configuration anew at every start: ports may have changed.
func (l layout) writeConfig(p place, all []place, first bool, module string) error {
	if err := os.MkdirAll(l.node(p.ID), 0o700); err != nil {
		return err
	}
	peers := map[string]string{}
	for _, other := range all {
		if other.ID != p.ID {
			peers[other.ID] = other.Cluster
		}
	}
	section, err := l.hsm(p, module)
	if err != nil {
		return err
	}
	doc := map[string]any{
		"node": p.ID, "datacenter": "dev", "data_dir": "data",
		"api": map[string]string{"bind": p.API}, "cluster": map[string]any{"bind": p.Cluster}, "gossip": map[string]string{"bind": p.Gossip},
		"peers": peers,
		"hsm":   section,
		"log":   map[string]string{"format": "text"},
	}
	if !first {
		doc["join"] = map[string]string{"token_file": l.secret(p.ID + ".token")}
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	return writeFile(l.config(p.ID), append([]byte("# written by conclave dev at every start\n"), b...))
}

// writeEnv writes a file of export lines that a shell can read. name is the stem of the client's key and certificate.
func (l layout) writeEnv(file, name string, places []place) error {
	var addrs []string
	for _, p := range places {
		addrs = append(addrs, p.API)
	}
	lines := []struct{ name, value string }{
		{"CONCLAVE_ADDR", strings.Join(addrs, ",")},
		{"CONCLAVE_CACERT", l.secret("ca.crt")},
		{"CONCLAVE_CERT", l.secret(name + ".crt")},
		{"CONCLAVE_KEY", l.secret(name + ".key")},
		{"PATH", searchPath(filepath.Dir(l.binary()), os.Getenv("PATH"))},
	}
	var b strings.Builder
	for _, v := range lines {
		fmt.Fprintf(&b, "export %s=%s\n", v.name, quote(v.value))
	}
	return writeFile(filepath.Join(l.dir, file), []byte(b.String()))
}

// searchPath puts dir first. An empty element, which an empty rest would leave, stands for the current folder.
func searchPath(dir, rest string) string {
	if rest == "" {
		return dir
	}
	return dir + ":" + rest
}

// quote for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
