package ledger

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// exportFormat opens an export. A new form gets a new number; the old ones stay readable.
const exportFormat = "conclave lifecycle log 1"

// Trust is what a verification believes in: the cluster's authority, which vouches for the nodes' certificates in the file, or a list
// of nodes' keys.
type Trust struct {
	Roots *x509.CertPool
	Keys  Keys
}

// ErrTrust: nothing was given to believe in.
var ErrTrust = errors.New("neither the cluster's authority nor the nodes' keys are given, so nothing in the file can be believed")

// keys are those to verify signatures with. Every certificate in the file must be good, so that no byte of it is without meaning.
func (t Trust) keys(certificates [][]byte) (Keys, error) {
	if t.Roots == nil && len(t.Keys) == 0 {
		return nil, ErrTrust
	}
	if len(certificates) > maxKeys {
		return nil, finding("the file has more than %d certificates", maxKeys)
	}
	all := slices.Clone(t.Keys)
	if t.Roots == nil {
		return all, nil
	}
	for i, der := range certificates {
		k, err := KeyOf(der, t.Roots)
		if err != nil {
			return nil, finding("certificate %d of the file: %v", i+1, err)
		}
		all = append(all, k)
	}
	return all, nil
}

// Exporter writes an export: the header, then records from the first on.
type Exporter struct {
	w    io.Writer
	next uint64
	size uint64
}

// NewExporter writes the header. checkpoint is a signed note; size is its size.
func NewExporter(w io.Writer, checkpoint string, size uint64, certificates [][]byte) (*Exporter, error) {
	b, err := render(header{Format: exportFormat, Checkpoint: checkpoint, Certificates: certificates})
	if err != nil {
		return nil, err
	}
	_, err = w.Write(b)
	return &Exporter{w: w, size: size}, err
}

// Next is the leaf that Add wants; Done when it is the checkpoint's size.
func (e *Exporter) Next() uint64 { return e.next }

// Done reports whether every record is written.
func (e *Exporter) Done() bool { return e.next >= e.size }

// Add writes the next record.
func (e *Exporter) Add(data []byte) error {
	l, _, err := newLine(e.next, data, nil)
	if err != nil {
		return findingAt(e.next, "%v", err)
	}
	b, err := render(l)
	if err != nil {
		return err
	}
	e.next++
	_, err = e.w.Write(b)
	return err
}

// Report is what a good file proved.
type Report struct {
	Checkpoint Checkpoint
	Signers    []string
	Events     uint64
	Key        string    // of a proof
	From       uint64    // size of the earlier checkpoint that the log continues; 0 if none was given
	Last       time.Time // of the last event
}

// Verify reads an export or a proof and checks all of it: signatures, every byte of every line, the tree, and that it continues
// the earlier checkpoint from ("" for none), a signed note. What is wrong is a *Finding; ErrTrust, ErrSignature and
// ErrCheckpoint say that from or trust are of no use. Memory does not grow with the file.
func Verify(r io.Reader, from string, trust Trust) (Report, error) {
	in := newLines(r)
	first, err := in.next()
	if err != nil {
		return Report{}, finding("the file has no first line: %v", err)
	}
	var h header
	if err := decode(first, &h); err != nil {
		return Report{}, finding("the file is no export and no proof, or its first line was changed")
	}
	keys, err := trust.keys(h.Certificates)
	if err != nil {
		return Report{}, err
	}
	var rep Report
	if rep.Checkpoint, rep.Signers, err = Open(h.Checkpoint, keys); err != nil {
		return Report{}, finding("the file's checkpoint: %v", err)
	}
	switch {
	case h.Format == exportFormat && h.Key == "":
		return rep, rep.export(in, from, keys)
	case h.Format == proofFormat:
		rep.Key = h.Key
		return rep, rep.proof(in, from)
	}
	return rep, finding("the file has the format %q, which is not known here", h.Format)
}

func (rep *Report) export(in *lines, from string, keys Keys) error {
	var earlier Checkpoint
	if from != "" {
		var err error
		if earlier, _, err = Open(from, keys); err != nil {
			return fmt.Errorf("the earlier checkpoint: %w", err)
		}
		rep.From = earlier.Size
	}
	if err := rep.comparable(earlier, from != ""); err != nil {
		return err
	}
	var tree edge
	for leaf := uint64(0); leaf < rep.Checkpoint.Size; leaf++ {
		if from != "" && leaf == earlier.Size && tree.root() != earlier.Root {
			return finding("the first %d records are not those of the earlier checkpoint: the log was rewritten", leaf)
		}
		hash, err := rep.record(in, leaf)
		if err != nil {
			return err
		}
		tree.add(0, hash)
	}
	if tree.root() != rep.Checkpoint.Root {
		return finding("the records do not make the root that was signed: one of them was rewritten together with its hash")
	}
	if from != "" && earlier.Size == rep.Checkpoint.Size && tree.root() != earlier.Root {
		return finding("the records are not those of the earlier checkpoint: the log was rewritten")
	}
	return rep.end(in)
}

// comparable refuses checkpoints that no log could have both of.
func (rep *Report) comparable(earlier Checkpoint, given bool) error {
	switch {
	case !given:
		return nil
	case earlier.Cluster != rep.Checkpoint.Cluster:
		return finding("the earlier checkpoint is of cluster %s, the file of %s", earlier.Cluster, rep.Checkpoint.Cluster)
	case earlier.Size > rep.Checkpoint.Size:
		return findingAt(rep.Checkpoint.Size, "the log had %d records at the earlier checkpoint, the file has %d", earlier.Size, rep.Checkpoint.Size)
	}
	return nil
}

func (rep *Report) record(in *lines, leaf uint64) (tlog.Hash, error) {
	b, err := in.next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return tlog.Hash{}, findingAt(leaf, "the record is missing: the file ends early")
	case errors.Is(err, errLong):
		return tlog.Hash{}, findingAt(leaf, "%v", err)
	case err != nil:
		return tlog.Hash{}, err
	}
	l, e, err := parse(b, leaf)
	if err != nil {
		return tlog.Hash{}, findingAt(leaf, "%v", err)
	}
	if len(l.Path) != 0 {
		return tlog.Hash{}, findingAt(leaf, "the line is not what was exported")
	}
	rep.Events++
	rep.Last = newest(rep.Last, e.Time)
	return l.Hash, nil
}

func (rep *Report) end(in *lines) error {
	if _, err := in.next(); !errors.Is(err, io.EOF) {
		return finding("something follows the last record")
	}
	return nil
}
