package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ledger"
)

func (e *Env) logCheckpoint() *cobra.Command {
	var from, out string
	c := &cobra.Command{
		Use: "checkpoint", Args: cobra.NoArgs,
		Short: "Print the head of the log, signed by a node (works while sealed); keep it where nobody of the cluster can change it",
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			note, err := e.earlier(from)
			if err != nil {
				return err
			}
			reply, _, err := e.checkpoint(cmd, c, note)
			if err != nil {
				return e.reportFinding(cmd, err)
			}
			if e.structured() {
				return e.Print(cmd, object{
					{"note", reply.GetNote()}, {"size", reply.GetSize()}, {"root", encodeHash(reply.GetRoot())}, {"node", reply.GetNode()}, {"index", reply.GetIndex()},
				})
			}
			return e.writeOutput(out, []byte(reply.GetNote()))
		}),
	}
	c.Flags().StringVar(&from, "from", "", "earlier checkpoint in `file`: also prove that the log continues it")
	c.Flags().StringVar(&out, "out", standardStream, "`file` to write it to")
	return c
}

func (e *Env) logKeys() *cobra.Command {
	return &cobra.Command{
		Use: "keys", Args: cobra.NoArgs,
		Short: "Print the nodes' keys that sign checkpoints, one a line: what log verify --keys believes",
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			trust, err := e.trust("")
			if err != nil {
				return err
			}
			reply, err := c.GetCheckpoint(cmd.Context(), &vaultpb.GetCheckpointRequest{})
			if err != nil {
				return err
			}
			keys, err := nodeKeys(trust.Roots, reply.GetCertificates())
			if err != nil {
				return err
			}
			list := []any{}
			var text strings.Builder
			for _, k := range keys {
				list = append(list, object{{"name", k.Name}, {"key", k.String()}})
				fmt.Fprintln(&text, k)
			}
			if e.structured() {
				return e.Print(cmd, object{{"items", list}})
			}
			return e.write(text.String())
		}),
	}
}

func (e *Env) logExport() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "export", Args: cobra.NoArgs,
		Short: "Write the whole log with a signed checkpoint, one JSON object a line, for conclave log verify FILE on any machine",
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			reply, cp, err := e.checkpoint(cmd, c, "")
			if err != nil {
				return err
			}
			return e.stream(out, func(w io.Writer) error {
				x, err := ledger.NewExporter(w, reply.GetNote(), cp.Size, reply.GetCertificates())
				for err == nil && !x.Done() {
					err = e.exportPage(cmd, c, x)
				}
				return err
			})
		}),
	}
	c.Flags().StringVar(&out, "out", standardStream, "`file` to write it to")
	return c
}

func (e *Env) exportPage(cmd *cobra.Command, c *client.Client, x *ledger.Exporter) error {
	from := x.Next()
	page, err := c.ReadRecords(cmd.Context(), &vaultpb.ReadRecordsRequest{From: from})
	if err != nil {
		return fmt.Errorf("reading the log from leaf %d: %w", from, err)
	}
	if len(page.GetRecords()) == 0 {
		why := page.GetDamage()
		if why == "" {
			why = "it has not the record yet"
		}
		return kind.New(kind.Unavailable, fmt.Sprintf("node %s, leaf %d: %s", page.GetNode(), from, why), map[string]string{kind.MetaTry: "again, or with another node (--addr): a node heals its log from the others"})
	}
	for _, r := range page.GetRecords() {
		if r.GetLeaf() != x.Next() {
			return fmt.Errorf("node %s gave leaf %d instead of %d", page.GetNode(), r.GetLeaf(), x.Next())
		}
		if x.Done() {
			break
		}
		if err := x.Add(r.GetData()); err != nil {
			return fmt.Errorf("node %s: %w", page.GetNode(), err)
		}
	}
	return nil
}

// stream writes to stdout, or to a file that is there whole or not at all.
func (e *Env) stream(path string, write func(io.Writer) error) error {
	if path == standardStream {
		return write(e.deps.Stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".conclave-*")
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	err = write(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (e *Env) logProve() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "prove KEY", Args: cobra.ExactArgs(1), ValidArgsFunction: e.completing(firstArgument(e.keyNames)),
		Short: "Prove that the events of a key are in the log: each with its path to the root of a signed checkpoint",
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			trust, err := e.trust("")
			if err != nil {
				return err
			}
			var proof bytes.Buffer
			if err := e.prove(cmd, c, args[0], &proof); err != nil {
				return err
			}
			report, err := ledger.Verify(bytes.NewReader(proof.Bytes()), "", trust)
			if err != nil {
				return e.reportFinding(cmd, err)
			}
			if out == "" {
				return e.Print(cmd, reportObject(report))
			}
			return e.writeOutput(out, proof.Bytes())
		}),
	}
	c.Flags().StringVar(&out, "out", "", "`file` for the proof, which conclave log verify FILE checks on any machine; without, what was proven is printed")
	return c
}

// prove writes the proof page by page; all pages are of the first one's tree.
func (e *Env) prove(cmd *cobra.Command, c *client.Client, key string, w io.Writer) error {
	var p *ledger.Prover
	query := &vaultpb.ProveKeyRequest{Name: key, PageSize: maxPage}
	next := func(q *vaultpb.ProveKeyRequest, token string) { q.PageToken, q.Size = token, query.GetSize() }
	for page, err := range client.Pages(cmd.Context(), c.ProveKey, query, next) {
		if err != nil {
			return err
		}
		if p == nil {
			cp := page.GetCheckpoint()
			query.Size = cp.GetSize()
			if p, err = ledger.NewProver(w, key, cp.GetNote(), cp.GetCertificates()); err != nil {
				return err
			}
		}
		for _, r := range page.GetItems() {
			path, err := hashesOf(r.GetPath())
			if err != nil {
				return err
			}
			if err := p.Add(r.GetLeaf(), r.GetData(), path); err != nil {
				return err
			}
		}
	}
	return nil
}
