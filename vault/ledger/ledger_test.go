package ledger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ledger"
	"github.com/conclave-vault/conclave/vault/pki"
)

// book is a log with its tree, and the node that signs it.
type book struct {
	t       testing.TB
	roots   *x509.CertPool
	cert    []byte
	key     *ecdsa.PrivateKey
	records [][]byte
	stored  []tlog.Hash
}

const cluster = "demo"

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newBook(t testing.TB, n int) *book {
	t.Helper()
	ca, err := pki.NewAuthority(cluster, "node", time.Now())
	must(t, err)
	b := &book{t: t, roots: x509.NewCertPool(), key: newKey(t)}
	b.roots.AddCert(ca.Certificate)
	c, err := ca.IssueNode(pki.ID{Cluster: cluster, Role: "node", Name: "n1"}, b.key.Public(), nil, time.Now())
	must(t, err)
	b.cert = c.Raw
	for i := range n {
		b.add(fsm.Event{Index: uint64(i + 1), Time: time.UnixMilli(int64(i)).UTC(), Actor: "spiffe://demo/user/bo", Action: "key.create", Subject: fmt.Sprintf("key/k%d", i%3), Reason: "<&>"})
	}
	return b
}

func (b *book) add(e fsm.Event) {
	e.Leaf = uint64(len(b.records))
	data := e.Encode()
	h, err := tlog.StoredHashes(int64(e.Leaf), data, b)
	must(b.t, err)
	b.records, b.stored = append(b.records, data), append(b.stored, h...)
}

func (b *book) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = b.stored[x]
	}
	return out, nil
}

func (b *book) root(size uint64) tlog.Hash {
	h, err := tlog.TreeHash(int64(size), b)
	must(b.t, err)
	return h
}

func (b *book) sign(size uint64) string {
	b.t.Helper()
	s, err := ledger.NewSigner(ledger.KeyName(cluster, "n1"), b.key)
	must(b.t, err)
	text, err := ledger.Checkpoint{Cluster: cluster, Size: size, Root: b.root(size)}.Sign(s)
	must(b.t, err)
	return text
}

func (b *book) export() []byte {
	b.t.Helper()
	var out bytes.Buffer
	x, err := ledger.NewExporter(&out, b.sign(uint64(len(b.records))), uint64(len(b.records)), [][]byte{b.cert})
	must(b.t, err)
	for !x.Done() {
		must(b.t, x.Add(b.records[x.Next()]))
	}
	return out.Bytes()
}

func (b *book) prove(key string) []byte {
	b.t.Helper()
	var out bytes.Buffer
	size := int64(len(b.records))
	p, err := ledger.NewProver(&out, key, b.sign(uint64(size)), [][]byte{b.cert})
	must(b.t, err)
	for i, data := range b.records {
		if e, err := fsm.DecodeEvent(data); err != nil || e.Subject != "key/"+key {
			continue
		}
		path, err := tlog.ProveRecord(size, int64(i), b)
		must(b.t, err)
		must(b.t, p.Add(uint64(i), data, path))
	}
	return out.Bytes()
}

func (b *book) trust() ledger.Trust { return ledger.Trust{Roots: b.roots} }

func TestExportVerifies(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 20} {
		b := newBook(t, n)
		file := b.export()
		for from := range n + 1 {
			r, err := ledger.Verify(bytes.NewReader(file), b.sign(uint64(from)), b.trust())
			if err != nil || r.Events != uint64(n) || r.From != uint64(from) || r.Checkpoint.Root != b.root(uint64(n)) || r.Signers[0] != "demo/node/n1" {
				t.Fatalf("%d records from %d: %+v, %v", n, from, r, err)
			}
		}
		k, err := ledger.KeyOf(b.cert, b.roots)
		must(t, err)
		if _, err := ledger.Verify(bytes.NewReader(file), "", ledger.Trust{Keys: ledger.Keys{k}}); err != nil {
			t.Errorf("with the node's key alone: %v", err)
		}
	}
}

// TestEveryChangedByteIsFound: a change in a line is found at that line's leaf.
func TestEveryChangedByteIsFound(t *testing.T) {
	b := newBook(t, 5)
	for _, file := range [][]byte{b.export(), b.prove("k1")} {
		line := -1 // the header
		for i := range file {
			bad := bytes.Clone(file)
			bad[i] ^= 1
			_, err := ledger.Verify(bytes.NewReader(bad), "", b.trust())
			var f *ledger.Finding
			if !errors.As(err, &f) {
				t.Fatalf("byte %d (%q) changed: %v", i, file[i], err)
			}
			export := bytes.Contains(file[:60], []byte("lifecycle log"))
			if export && line >= 0 && (f.Leaf == nil || *f.Leaf != uint64(line)) {
				t.Fatalf("byte %d of leaf %d changed: %v", i, line, err)
			}
			if file[i] == '\n' {
				line++
			}
		}
	}
}

// TestASignatureHasOneForm: the last character of base64 has bits that mean nothing, and lenient decoders ignore them.
func TestASignatureHasOneForm(t *testing.T) {
	b := newBook(t, 1)
	k, err := ledger.KeyOf(b.cert, b.roots)
	must(t, err)
	for {
		signed := b.sign(1)
		pad := strings.Count(signed[len(signed)-3:], "=")
		if pad == 0 { // the length of a signature varies: another one
			continue
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		at := len(signed) - 2 - pad // before the padding and the line's end
		other := signed[:at] + string(alphabet[strings.IndexByte(alphabet, signed[at])^1]) + signed[at+1:]
		if _, _, err := ledger.Open(other, ledger.Keys{k}); !errors.Is(err, ledger.ErrSignature) {
			t.Errorf("a second form of a signature: %v", err)
		}
		return
	}
}

func TestACutFileIsFound(t *testing.T) {
	b := newBook(t, 4)
	file := b.export()
	lines := bytes.SplitAfter(file, []byte("\n"))
	for n := 1; n <= 4; n++ {
		_, err := ledger.Verify(bytes.NewReader(bytes.Join(lines[:n], nil)), "", b.trust())
		var f *ledger.Finding
		if !errors.As(err, &f) || f.Leaf == nil || *f.Leaf != uint64(n-1) {
			t.Errorf("%d lines: %v", n, err)
		}
	}
	for what, bad := range map[string][]byte{
		"nothing": nil, "no end": file[:len(file)-1], "more": append(bytes.Clone(file), "{}\n"...), "a list": []byte("[]\n"),
		"one line, too long": bytes.Repeat([]byte("a"), 3<<20),
	} {
		var f *ledger.Finding
		if _, err := ledger.Verify(bytes.NewReader(bad), "", b.trust()); !errors.As(err, &f) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestARewrittenLogIsFound: whoever holds the node's key can sign another log, but not one that continues what an auditor kept.
func TestARewrittenLogIsFound(t *testing.T) {
	b := newBook(t, 6)
	kept := b.sign(4)
	forged := newBook(t, 0)
	forged.key, forged.cert, forged.roots = b.key, b.cert, b.roots
	for i := range 6 {
		e, err := fsm.DecodeEvent(b.records[i])
		must(t, err)
		if i == 2 {
			e.Reason = "nothing happened"
		}
		forged.add(e)
	}
	if _, err := ledger.Verify(bytes.NewReader(forged.export()), "", b.trust()); err != nil {
		t.Fatalf("by itself it verifies: %v", err)
	}
	for _, note := range []string{kept, b.sign(6)} {
		var f *ledger.Finding
		if _, err := ledger.Verify(bytes.NewReader(forged.export()), note, b.trust()); !errors.As(err, &f) || !strings.Contains(err.Error(), "rewritten") {
			t.Errorf("against what was kept: %v", err)
		}
	}
	short := newBook(t, 0)
	short.key, short.cert, short.roots = b.key, b.cert, b.roots
	var f *ledger.Finding
	if _, err := ledger.Verify(bytes.NewReader(short.export()), kept, b.trust()); !errors.As(err, &f) || f.Leaf == nil || *f.Leaf != 0 {
		t.Errorf("a truncated log: %v", err)
	}
}

// TestARecordRewrittenWithItsHash leaves only the root to find it.
func TestARecordRewrittenWithItsHash(t *testing.T) {
	b := newBook(t, 3)
	note := b.sign(3)
	e, err := fsm.DecodeEvent(b.records[1])
	must(t, err)
	e.Actor = "spiffe://demo/user/mallory"
	var out bytes.Buffer
	x, err := ledger.NewExporter(&out, note, 3, [][]byte{b.cert})
	must(t, err)
	must(t, x.Add(b.records[0]))
	must(t, x.Add(e.Encode()))
	must(t, x.Add(b.records[2]))
	if _, err := ledger.Verify(&out, "", b.trust()); err == nil || !strings.Contains(err.Error(), "root that was signed") {
		t.Error(err)
	}
	if err := x.Add(b.records[0]); err == nil {
		t.Error("a record is exported under another leaf")
	}
}

func TestProofVerifies(t *testing.T) {
	b := newBook(t, 11)
	r, err := ledger.Verify(bytes.NewReader(b.prove("k2")), "", b.trust())
	if err != nil || r.Key != "k2" || r.Events != 3 || r.Last != time.UnixMilli(8).UTC() {
		t.Fatalf("%+v, %v", r, err)
	}
	file := b.prove("k0")
	lines := bytes.SplitAfter(file, []byte("\n"))
	other := bytes.SplitAfter(b.prove("k1"), []byte("\n"))
	for what, bad := range map[string][]byte{
		"another key's event": bytes.Join([][]byte{lines[0], other[1]}, nil), "out of order": bytes.Join([][]byte{lines[0], lines[2], lines[1]}, nil),
		"twice": bytes.Join([][]byte{lines[0], lines[1], lines[1]}, nil), "none": lines[0], "cut": file[:len(file)-5],
	} {
		var f *ledger.Finding
		if _, err := ledger.Verify(bytes.NewReader(bad), "", b.trust()); !errors.As(err, &f) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ledger.Verify(bytes.NewReader(file), b.sign(2), b.trust()); err == nil {
		t.Error("a proof of a key passes for one of consistency")
	}
}

func TestWhoIsBelieved(t *testing.T) {
	b, stranger := newBook(t, 2), newBook(t, 2)
	file := b.export()
	if _, err := ledger.Verify(bytes.NewReader(file), "", ledger.Trust{}); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("believing nobody: %v", err)
	}
	if _, err := ledger.Verify(bytes.NewReader(file), "", stranger.trust()); err == nil {
		t.Error("another authority's nodes are believed")
	}
	k, err := ledger.KeyOf(stranger.cert, stranger.roots)
	must(t, err)
	if _, err := ledger.Verify(bytes.NewReader(file), "", ledger.Trust{Keys: ledger.Keys{k}}); err == nil {
		t.Error("a checkpoint of another key is believed")
	}
	good, err := ledger.KeyOf(b.cert, b.roots)
	must(t, err)
	if _, _, err := ledger.Open(stranger.sign(2), ledger.Keys{good}); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("a stranger's signature: %v", err)
	}
	if _, err := ledger.Verify(bytes.NewReader(file), stranger.sign(1), b.trust()); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("a stranger's earlier checkpoint: %v", err)
	}
	same := ledger.Keys{good, good}
	if _, signers, err := ledger.Open(b.sign(1), same); err != nil || len(signers) != 1 {
		t.Errorf("a key given twice: %v, %v", signers, err)
	}
	s, err := ledger.NewSigner("other/node/n1", b.key)
	must(t, err)
	foreign, err := ledger.NewKey("other/node/n1", b.key.Public())
	must(t, err)
	text, err := ledger.Checkpoint{Cluster: cluster, Size: 1, Root: b.root(1)}.Sign(s)
	must(t, err)
	if _, _, err := ledger.Open(text, ledger.Keys{foreign}); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("a node of another cluster: %v", err)
	}
}

func TestCheckpointHasOneForm(t *testing.T) {
	b := newBook(t, 1)
	k, err := ledger.NewKey("demo/node/n1", b.key.Public())
	must(t, err)
	s, err := ledger.NewSigner("demo/node/n1", b.key)
	must(t, err)
	root := b.root(1).String()
	for _, text := range []string{
		"demo/lifecycle-log\n01\n" + root + "\n", "demo/lifecycle-log\n1\n" + root + "\nmore\n", "demo/lifecycle-log\n-1\n" + root + "\n",
		"demo/other\n1\n" + root + "\n", "/lifecycle-log\n1\n" + root + "\n", "demo/lifecycle-log\n1\nAAAA\n", "demo/lifecycle-log\n99999999999999999999\n" + root + "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		must(t, err)
		if _, _, err := ledger.Open(string(signed), ledger.Keys{k}); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "no note", strings.Repeat("x", 1<<20)} {
		if _, _, err := ledger.Open(text, ledger.Keys{k}); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	good := b.sign(1)
	if _, _, err := ledger.Open(strings.Replace(good, "\n1\n", "\n2\n", 1), ledger.Keys{k}); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("another size under the signature: %v", err)
	}
}

func TestKeysComeBack(t *testing.T) {
	b := newBook(t, 0)
	k, err := ledger.KeyOf(b.cert, b.roots)
	must(t, err)
	keys, err := ledger.ParseKeys([]byte("# nodes\n\n" + k.String() + "\n"))
	if err != nil || len(keys) != 1 || keys[0].String() != k.String() || keys.String() != "demo/node/n1" {
		t.Fatalf("%v, %v", keys, err)
	}
	if (ledger.Keys{}).String() != "none" {
		t.Error("no keys have a name")
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	if _, err := ledger.NewKey("demo/node/n1", other.Public()); !errors.Is(err, ledger.ErrKey) {
		t.Errorf("P-384: %v", err)
	}
	if _, err := ledger.NewSigner("a b", b.key); !errors.Is(err, ledger.ErrKey) {
		t.Errorf("a name with a space: %v", err)
	}
	text := k.String()
	for _, bad := range []string{"x", "a+b", "a+b+c", strings.Replace(text, "demo", "dem0 ", 1), text[:len(text)-4], strings.Replace(text, "+", "+0", 1), strings.Repeat(text+"\n", 300)} {
		if _, err := ledger.ParseKeys([]byte(bad)); !errors.Is(err, ledger.ErrKey) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	user, err := pki.NewAuthority(cluster, "client", time.Now())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(user.Certificate)
	c, err := user.IssueClient(pki.ID{Cluster: cluster, Role: "user", Name: "bo"}, b.key.Public(), [16]byte{1}, time.Hour, time.Now())
	must(t, err)
	for _, der := range [][]byte{c.Raw, nil, b.cert} { // a user's, nothing, another authority's
		if _, err := ledger.KeyOf(der, roots); !errors.Is(err, ledger.ErrKey) {
			t.Errorf("%d bytes: %v", len(der), err)
		}
	}
}

// TestStretch: what is proven is exactly that stretch of exactly that tree.
func TestStretch(t *testing.T) {
	b := newBook(t, 70)
	leaves := make([]tlog.Hash, len(b.records))
	for i, r := range b.records {
		leaves[i] = tlog.RecordHash(r)
	}
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Uint64Range(0, 70).Draw(rt, "size")
		to := rapid.Uint64Range(0, size).Draw(rt, "to")
		from := rapid.Uint64Range(0, to).Draw(rt, "from")
		p, err := ledger.ProveStretch(from, to, size, b)
		if err != nil {
			rt.Fatal(err)
		}
		root := b.root(size)
		if err := p.Check(leaves[from:to], root); err != nil {
			rt.Fatalf("[%d, %d) of %d: %v", from, to, size, err)
		}
		if size == 0 {
			return
		}
		bad := p
		switch rapid.IntRange(0, 4).Draw(rt, "harm") {
		case 0:
			bad.Before = append(bad.Before[:len(bad.Before):len(bad.Before)], tlog.Hash{})
		case 1:
			bad.Size = to - 1 // wraps for 0
		case 2:
			bad.From = 80
		case 3:
			root[3] ^= 1
		case 4:
			if from == to {
				return
			}
			other := append([]tlog.Hash{}, leaves[from:to]...)
			other[rapid.IntRange(0, len(other)-1).Draw(rt, "which")][0] ^= 1
			if err := p.Check(other, root); !errors.Is(err, ledger.ErrProof) {
				rt.Fatalf("another leaf: %v", err)
			}
			return
		}
		if err := bad.Check(leaves[from:to], root); !errors.Is(err, ledger.ErrProof) {
			rt.Fatalf("%+v: %v", bad, err)
		}
	})
	if _, err := ledger.ProveStretch(3, 2, 5, b); !errors.Is(err, ledger.ErrProof) {
		t.Error(err)
	}
}

func FuzzVerifyNeverPanics(f *testing.F) {
	b := newBook(f, 3)
	f.Add(b.export(), b.sign(2))
	f.Add(b.prove("k0"), "")
	f.Fuzz(func(t *testing.T, file []byte, from string) {
		r, err := ledger.Verify(bytes.NewReader(file), from, b.trust())
		if err == nil && (r.Checkpoint.Cluster != cluster || len(r.Signers) == 0) {
			t.Fatalf("believed without a signature: %+v", r)
		}
	})
}

func FuzzParseKeysNeverPanics(f *testing.F) {
	b := newBook(f, 0)
	k, err := ledger.KeyOf(b.cert, b.roots)
	must(f, err)
	f.Add([]byte(k.String()))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ledger.ParseKeys(data)
		for _, k := range keys {
			if again, err := ledger.ParseKey(k.String()); err != nil || again.String() != k.String() {
				t.Fatalf("%s: %v", k, err)
			}
		}
		if err != nil && !errors.Is(err, ledger.ErrKey) {
			t.Fatal(err)
		}
	})
}
