package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// canary is a secret that must be nowhere.
type canary struct {
	name   string
	secret []byte
}

// minCanary: shorter ones would be found by chance.
const minCanary = 12

// forms are the spellings that are searched for: raw, hex in both cases, and base64 in both alphabets, wherever the secret may
// begin in the three bytes that four characters stand for.
func (c canary) forms() map[string][]byte {
	forms := map[string][]byte{
		"raw": c.secret, "hex": []byte(hex.EncodeToString(c.secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(c.secret))),
	}
	for alphabet, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for offset := range 3 {
			forms[fmt.Sprintf("%s+%d", alphabet, offset)] = aligned(enc, c.secret, offset)
		}
	}
	return forms
}

// aligned is what base64 makes of secret after offset other bytes, without the characters that others decide too.
func aligned(enc *base64.Encoding, secret []byte, offset int) []byte {
	padded := append(make([]byte, offset), secret...)
	whole := len(padded) - len(padded)%3
	text := enc.EncodeToString(padded[:whole])
	return []byte(text[[]int{0, 2, 3}[offset]:])
}

// found returns the first canary in b and its form.
func found(b []byte, canaries []canary) string {
	for _, c := range canaries {
		for form, pattern := range c.forms() {
			if bytes.Contains(b, pattern) {
				return c.name + " (" + form + ")"
			}
		}
	}
	return ""
}

// canaries collects the secrets of a cluster from the one folder where they may be.
func (c *cluster) canaries(t testing.TB) []canary {
	t.Helper()
	var all []canary
	entries, err := os.ReadDir(c.secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(c.secrets, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		more, err := secretsOf(path, b)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, more...)
	}
	for _, x := range all {
		if len(x.secret) < minCanary {
			t.Fatalf("the canary %s has %d bytes", x.name, len(x.secret))
		}
	}
	return all
}

func secretsOf(path string, b []byte) ([]canary, error) {
	name := filepath.Base(path)
	switch filepath.Ext(path) {
	case ".pin", ".so-pin", ".pass":
		return []canary{{name, bytes.TrimSpace(b)}}, nil
	case ".token":
		return tokenSecrets(name, b)
	case ".key":
		return clientKey(name, b)
	case ".custodian":
		return custodianSecrets(name, b)
	case ".crt", ".pub":
		return nil, nil
	}
	return nil, errors.New("a file of an unknown kind among the secrets")
}

// tokenSecrets are the token as a whole and the one-time secret in it.
func tokenSecrets(name string, b []byte) ([]canary, error) {
	text := strings.TrimSpace(string(b))
	_, payload, ok := strings.Cut(text, "conclave-join-1.")
	if !ok {
		return nil, errors.New("no join token")
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, err
	}
	var token struct{ Secret []byte }
	if err := json.Unmarshal(raw, &token); err != nil {
		return nil, err
	}
	return []canary{{name + " as text", []byte(payload)}, {name + " secret", token.Secret}}, nil
}

func clientKey(name string, b []byte) ([]canary, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	scalar, err := ec.Bytes()
	return []canary{{name + " scalar", scalar}}, err
}

// opened is the text of an identity file, which may have a passphrase.
func opened(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte(armor.Header)) {
		return b, nil
	}
	key, err := age.NewScryptIdentity(carolsPhrase)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(b)), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// custodianSecrets are the keys of an identity and its shares in clear.
func custodianSecrets(name string, b []byte) ([]canary, error) {
	b, err := opened(b)
	if err != nil {
		return nil, err
	}
	var doc struct {
		AgeSecretKey string `json:"age_secret_key"`
		Ed25519Seed  []byte `json:"ed25519_seed"`
		Shares       []struct{ Sealed []byte }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	key, err := age.ParseX25519Identity(doc.AgeSecretKey)
	if err != nil {
		return nil, err
	}
	all := []canary{{name + " age key", []byte(doc.AgeSecretKey)}, {name + " seed", doc.Ed25519Seed}}
	for _, s := range doc.Shares {
		r, err := age.Decrypt(bytes.NewReader(s.Sealed), key)
		if err != nil {
			return nil, err
		}
		share, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		// The scalar is the longest thing in a share, and lies at its end.
		all = append(all, canary{name + " share", share[max(0, len(share)-shareTail):]})
	}
	return all, nil
}

// shareTail is how much of a share's end is searched for: less than a scalar, which is what must not be anywhere.
const shareTail = 32

// search demands that the canaries are nowhere.
func (c *cluster) search(t testing.TB, canaries []canary) {
	t.Helper()
	if len(canaries) == 0 {
		t.Fatal("nothing to search for")
	}
	for _, hit := range c.hits(t, canaries) {
		t.Error(hit)
	}
}

// hits looks for the canaries in every file of the cluster, in what the program said, and in what the kernel shows of the nodes.
func (c *cluster) hits(t testing.TB, canaries []canary) []string {
	t.Helper()
	var hits []string
	for _, path := range c.files(t) {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		if hit := found(b, canaries); hit != "" {
			hits = append(hits, path+" holds "+hit)
		}
	}
	for _, o := range c.said.all() {
		if hit := found([]byte(o.out+"\x00"+o.errors), canaries); hit != "" && !o.secret {
			hits = append(hits, o.String()+" says "+hit)
		}
	}
	return append(hits, c.processHits(t, canaries)...)
}

// files lists everything below the cluster's folder but the secrets and the program.
func (c *cluster) files(t testing.TB) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && (path == c.secrets || path == filepath.Join(c.dir, "bin")):
			return fs.SkipDir
		case d.Type().IsRegular():
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(p string) bool { return filepath.Base(p) == "raft.db" }) {
		t.Fatalf("the search does not reach the nodes' files: %q", all)
	}
	return all
}

// processHits looks at every process that left its pid below the cluster's folder: nodes, and dev. A process that forbids the look
// shows nothing to anybody.
func (c *cluster) processHits(t testing.TB, canaries []canary) []string {
	t.Helper()
	var hits []string
	for _, path := range c.files(t) {
		if name := filepath.Base(path); name != "pid" && name != "dev.pid" {
			continue
		}
		pid, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		for _, f := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(filepath.Join("/proc", string(bytes.TrimSpace(pid)), f))
			if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of %s: %v", f, path, err)
			}
			if hit := found(b, canaries); hit != "" {
				hits = append(hits, f+" of the process in "+path+" holds "+hit)
			}
		}
	}
	return hits
}
