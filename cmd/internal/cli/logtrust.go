package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ledger"
)

const (
	maxTrustFile      = 1 << 20 // a bundle of certificates or a list of keys
	maxCheckpointFile = 64 << 10
)

// trust reads what a verification believes in: the cluster's CA, or a file of nodes' keys, or both: the CA does not vouch for a node
// that has left, and a checkpoint that it signed is true all the same.
func (e *Env) trust(keysFile string) (t ledger.Trust, err error) {
	if keysFile != "" {
		if t.Keys, err = e.trustedKeys(keysFile); err != nil {
			return t, err
		}
	}
	path := e.setting(e.flags.caCert, "CONCLAVE_CACERT")
	if path == "" && len(t.Keys) == 0 {
		return t, badArgument(ledger.ErrTrust.Error(), "export CONCLAVE_CACERT=FILE   (or --cacert, or --keys with what conclave log keys printed)")
	}
	if path == "" {
		return t, nil
	}
	pem, err := e.readInput(path, maxTrustFile, "")
	if err != nil {
		return t, err
	}
	t.Roots = x509.NewCertPool()
	if !t.Roots.AppendCertsFromPEM(pem) {
		return t, badArgument(path+" holds no PEM certificate", "")
	}
	return t, nil
}

func (e *Env) trustedKeys(path string) (ledger.Keys, error) {
	data, err := e.readInput(path, maxTrustFile, "")
	if err != nil {
		return nil, err
	}
	keys, err := ledger.ParseKeys(data)
	if err != nil {
		return nil, badArgument(fmt.Sprintf("%s: %v", path, err), "")
	}
	return keys, nil
}

// nodeKeys are the keys in nodes' certificates, of which each must be of the authority.
func nodeKeys(roots *x509.CertPool, certificates [][]byte) (ledger.Keys, error) {
	var keys ledger.Keys
	for _, der := range certificates {
		k, err := ledger.KeyOf(der, roots)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// openReply verifies a checkpoint that a node sent.
func openReply(r *vaultpb.CheckpointReply, roots *x509.CertPool) (ledger.Checkpoint, ledger.Keys, error) {
	keys, err := nodeKeys(roots, r.GetCertificates())
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("node %s: %w", r.GetNode(), err)
	}
	c, _, err := ledger.Open(r.GetNote(), keys)
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("node %s: %w", r.GetNode(), err)
	}
	return c, keys, nil
}

func hashesOf(list [][]byte) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(list))
	for i, b := range list {
		if len(b) != tlog.HashSize {
			return nil, fmt.Errorf("%w: a hash of %d bytes", ledger.ErrProof, len(b))
		}
		out[i] = tlog.Hash(b)
	}
	return out, nil
}

// earlier reads a checkpoint file that somebody kept; "" if none is named.
func (e *Env) earlier(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := e.readInput(path, maxCheckpointFile, "")
	return string(data), err
}

// checkpoint asks for a signed checkpoint, verifies it, and that it continues the earlier one in from ("": none).
func (e *Env) checkpoint(cmd *cobra.Command, c *client.Client, from string) (*vaultpb.CheckpointReply, ledger.Checkpoint, error) {
	trust, err := e.trust("")
	if err != nil {
		return nil, ledger.Checkpoint{}, err
	}
	first, err := c.GetCheckpoint(cmd.Context(), &vaultpb.GetCheckpointRequest{})
	if err != nil {
		return nil, ledger.Checkpoint{}, err
	}
	now, keys, err := openReply(first, trust.Roots)
	if err != nil || from == "" {
		return first, now, err
	}
	old, _, err := ledger.Open(from, keys)
	if err != nil {
		return nil, now, badArgument(fmt.Sprintf("the earlier checkpoint: %v", err), "")
	}
	if old.Size == 0 {
		return first, now, nil // everything continues the empty log
	}
	reply, err := c.GetCheckpoint(cmd.Context(), &vaultpb.GetCheckpointRequest{From: old.Size})
	if err != nil {
		return nil, now, err
	}
	if now, _, err = openReply(reply, trust.Roots); err != nil {
		return nil, now, err
	}
	return reply, now, continues(old, now, reply.GetConsistency())
}

// continues checks a consistency proof.
func continues(old, now ledger.Checkpoint, proof [][]byte) error {
	hashes, err := hashesOf(proof)
	if err != nil {
		return err
	}
	if now.Cluster != old.Cluster {
		return fmt.Errorf("the earlier checkpoint is of cluster %s, this one of %s", old.Cluster, now.Cluster)
	}
	if now.Size < old.Size || tlog.CheckTree(hashes, int64(now.Size), now.Root, int64(old.Size), old.Root) != nil {
		return &ledger.Finding{Reason: fmt.Sprintf("the log of %d records does not continue the one of %d records of the earlier checkpoint: it was rewritten", now.Size, old.Size)}
	}
	return nil
}

// verifyFile verifies an export or a proof without a cluster.
func (e *Env) verifyFile(cmd *cobra.Command, path, from, keysFile string) error {
	trust, err := e.trust(keysFile)
	if err != nil {
		return err
	}
	note, err := e.earlier(from)
	if err != nil {
		return err
	}
	in := e.deps.Stdin
	if path != standardStream {
		f, err := os.Open(path)
		if err != nil {
			return badArgument(fmt.Sprintf("reading the export: %v", err), "")
		}
		defer f.Close()
		in = f
	}
	report, err := ledger.Verify(in, note, trust)
	if err != nil {
		return e.reportFinding(cmd, err)
	}
	return e.Print(cmd, reportObject(report))
}

// reportFinding prints what is wrong as an object too, if that is wanted.
func (e *Env) reportFinding(cmd *cobra.Command, err error) error {
	var f *ledger.Finding
	if !errors.As(err, &f) || !e.structured() {
		return err
	}
	var leaf any
	if f.Leaf != nil {
		leaf = *f.Leaf
	}
	return errors.Join(err, e.Print(cmd, object{{"ok", false}, {"leaf", leaf}, {"reason", f.Reason}}))
}

func reportObject(r ledger.Report) object {
	c := r.Checkpoint
	o := object{{"ok", true}, {"cluster", c.Cluster}, {"size", c.Size}, {"root", encodeHash(c.Root[:])}, {"signed_by", strings.Join(r.Signers, ", ")}}
	if r.Key != "" {
		o = append(o, object{{"key", r.Key}}...)
	}
	if r.From != 0 {
		o = append(o, object{{"continues", r.From}}...)
	}
	if !r.Last.IsZero() {
		o = append(o, object{{"last_event", r.Last.UTC().Format(time.RFC3339Nano)}}...)
	}
	return append(o, object{{"events", r.Events}}...)
}
