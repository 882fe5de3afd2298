package ledger

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/conclave-vault/conclave/vault/pki"
)

// typeECDSA is C2SP signed-note's number for ECDSA signatures.
const typeECDSA = 0x02

// maxKeys bounds a list of keys; a cluster has at most 64 nodes.
const maxKeys = 256

// nodeRole is the role in a node's certificate.
const nodeRole = "node"

// ErrKey: a key or certificate is not one that signs checkpoints.
var ErrKey = errors.New("not a key that signs checkpoints")

// Key is a node's identity key, P-256, under the name that it signs with: CLUSTER/node/ID.
type Key struct {
	Name   string
	public *ecdsa.PublicKey
	spki   []byte
}

// KeyName is how a node's key is called in signatures.
func KeyName(cluster, node string) string { return cluster + "/" + nodeRole + "/" + node }

// NewKey checks that public is a P-256 key.
func NewKey(name string, public crypto.PublicKey) (Key, error) {
	p, ok := public.(*ecdsa.PublicKey)
	if !ok || p.Curve != elliptic.P256() {
		return Key{}, fmt.Errorf("%w: %T is no P-256 key", ErrKey, public)
	}
	if name == "" || strings.ContainsAny(name, "+ \t\r\n") {
		return Key{}, fmt.Errorf("%w: the name %q", ErrKey, name)
	}
	spki, err := x509.MarshalPKIXPublicKey(p)
	return Key{Name: name, public: p, spki: spki}, err
}

// KeyOf is the key in a node's certificate, which roots must have signed. The certificate's time does not matter: it says for how long
// the node may connect, and a checkpoint is not less true afterwards.
func KeyOf(der []byte, roots *x509.CertPool) (Key, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return Key{}, fmt.Errorf("%w: the certificate is not of the cluster's authority: %w", ErrKey, err)
	}
	id, err := pki.ParseID(c)
	if err != nil || id.Role != nodeRole {
		return Key{}, fmt.Errorf("%w: the certificate is no node's", ErrKey)
	}
	return NewKey(KeyName(id.Cluster, id.Name), c.PublicKey)
}

// String is the key as C2SP writes a verifier key: NAME+ID+BASE64.
func (k Key) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.Name, k.id(), base64.StdEncoding.EncodeToString(append([]byte{typeECDSA}, k.spki...)))
}

// ParseKey reads what String made.
func ParseKey(s string) (Key, error) {
	parts := strings.SplitN(s, "+", 3)
	if len(parts) != 3 {
		return Key{}, fmt.Errorf("%w: %q is not NAME+ID+BASE64", ErrKey, s)
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) == 0 || data[0] != typeECDSA {
		return Key{}, fmt.Errorf("%w: %q is no ECDSA key", ErrKey, s)
	}
	public, err := x509.ParsePKIXPublicKey(data[1:])
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	k, err := NewKey(parts[0], public)
	if err == nil && k.String() != s {
		err = fmt.Errorf("%w: %q is not in the one form that there is", ErrKey, s)
	}
	return k, err
}

func (k Key) id() uint32 {
	sum := sha256.Sum256(k.spki)
	return binary.BigEndian.Uint32(sum[:4])
}

// Keys are those that are trusted.
type Keys []Key

// ParseKeys reads a file of verifier keys: one a line; empty lines and lines that begin with # are skipped.
func ParseKeys(data []byte) (Keys, error) {
	var all Keys
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		k, err := ParseKey(text)
		if err != nil {
			return nil, err
		}
		if all = append(all, k); len(all) > maxKeys {
			return nil, fmt.Errorf("%w: more than %d of them", ErrKey, maxKeys)
		}
	}
	return all, nil
}

func (ks Keys) String() string {
	if len(ks) == 0 {
		return "none"
	}
	var all []string
	for _, k := range ks {
		all = append(all, k.Name)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// verifiers leaves the second of two equal keys out: note calls them ambiguous.
func (ks Keys) verifiers() note.Verifiers {
	var list []note.Verifier
	for i, k := range ks {
		twice := slices.ContainsFunc(ks[:i], func(o Key) bool { return o.Name == k.Name && bytes.Equal(o.spki, k.spki) })
		if !twice {
			list = append(list, verifier{k})
		}
	}
	return note.VerifierList(list...)
}

type verifier struct{ Key }

// Name implements note.Verifier.
func (v verifier) Name() string { return v.Key.Name }

// KeyHash implements note.Verifier.
func (v verifier) KeyHash() uint32 { return v.id() }

// Verify implements note.Verifier.
func (v verifier) Verify(msg, sig []byte) bool {
	sum := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(v.public, sum[:], sig)
}

// signer signs with a device.
type signer struct {
	verifier
	device crypto.Signer
}

// NewSigner makes a note's signer of a node's identity key.
func NewSigner(name string, device crypto.Signer) (note.Signer, error) {
	k, err := NewKey(name, device.Public())
	return signer{verifier{k}, device}, err
}

// Sign implements note.Signer.
func (s signer) Sign(msg []byte) ([]byte, error) {
	sum := sha256.Sum256(msg)
	return s.device.Sign(rand.Reader, sum[:], crypto.SHA256)
}
