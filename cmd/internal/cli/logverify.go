package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/term"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// progressEvery is after how many leaves a terminal hears how far the verification is.
const progressEvery = 10000

// damage is what verification found: the log as one node holds it is not the log.
type damage struct {
	node   string
	leaf   any // uint64; nil if it cannot be told which
	reason string
}

func (d *damage) Error() string {
	if d.leaf == nil {
		return fmt.Sprintf("node %s: %s", d.node, d.reason)
	}
	return fmt.Sprintf("node %s, leaf %d: %s", d.node, d.leaf, d.reason)
}

func (e *Env) logVerify() *cobra.Command {
	var allowMissing bool
	var from, keys string
	c := &cobra.Command{
		Use: "verify [FILE]", Args: cobra.MaximumNArgs(1),
		Short: "Recompute the tree from the records on every node's disk, or offline from an exported FILE; exit code 1 if one byte differs",
		Long: `Without FILE: read the records on every node's disk, recompute the tree, and compare it with every node's state.

With FILE, what conclave log export or conclave log prove wrote ("-": stdin): verify it without a cluster. Believed is only the
cluster's CA (CONCLAVE_CACERT), which vouches for the nodes' certificates in the file, or a file of nodes' keys (--keys).

With --from, an earlier checkpoint that you kept: verify too that the log continues it, so that nothing before it was rewritten.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return e.verifyFile(cmd, args[0], from, keys)
			}
			return e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
				return e.verifyOnline(cmd, c, allowMissing, from)
			})(cmd, args)
		},
	}
	c.Flags().BoolVar(&allowMissing, "allow-missing", false, "verify the nodes that answer, and name the others")
	c.Flags().StringVar(&from, "from", "", "earlier checkpoint in `file` (conclave log checkpoint)")
	c.Flags().StringVar(&keys, "keys", "", "`file` with nodes' keys (conclave log keys) to believe, besides those that the cluster's CA vouches for")
	return c
}

func (e *Env) verifyOnline(cmd *cobra.Command, c *client.Client, allowMissing bool, from string) error {
	note, err := e.earlier(from)
	if err == nil && note != "" {
		_, _, err = e.checkpoint(cmd, c, note)
	}
	if err != nil {
		return e.reportFinding(cmd, err)
	}
	result, err := e.verifyLog(cmd.Context(), c, allowMissing)
	var found *damage
	if errors.As(err, &found) {
		result = object{{"ok", false}, {"node", found.node}, {"leaf", found.leaf}, {"reason", found.reason}}
		if e.structured() {
			err = errors.Join(err, e.Print(cmd, result))
		}
		return err
	}
	if err != nil {
		return err
	}
	return e.Print(cmd, result)
}

// verifyLog reads the same log from all nodes side by side.
func (e *Env) verifyLog(ctx context.Context, c *client.Client, allowMissing bool) (object, error) {
	reply, err := c.TreeHeads(ctx, &vaultpb.TreeHeadsRequest{})
	if err != nil {
		return nil, err
	}
	v := &verification{client: c, allowMissing: allowMissing}
	for _, head := range reply.GetHeads() {
		if head.GetError() != "" {
			err = errors.Join(err, v.miss(head.GetNode(), head.GetError()))
			continue
		}
		v.copies = append(v.copies, &logCopy{head: head})
	}
	if err != nil {
		return nil, err
	}
	if len(v.copies) == 0 {
		return nil, kind.New(kind.Unavailable, "no node gave the head of its tree", nil)
	}
	if err := v.run(ctx, e.progress()); err != nil {
		return nil, err
	}
	if len(v.copies) == 0 {
		return nil, kind.New(kind.Unavailable, "every node became unreachable while its log was read", nil)
	}
	return v.result(), nil
}

// progress reports on stderr if that is a terminal; a log file or a script is spared.
func (e *Env) progress() func(leaf, of uint64) {
	f, ok := e.deps.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(uint64, uint64) {}
	}
	return func(leaf, of uint64) {
		if leaf > 0 && leaf%progressEvery == 0 {
			e.say("%d of %d leaves", leaf, of)
		}
	}
}

// verification compares the copies of the log that nodes hold.
type verification struct {
	client       *client.Client
	allowMissing bool
	copies       []*logCopy
	missing      []any
}

// logCopy is one node's copy: the head of its state, and the records of its disk as they are read.
type logCopy struct {
	head *vaultpb.TreeHead
	page []*vaultpb.Record // read, not yet looked at
	tree frontier
}

// miss notes a node that cannot be verified; an error, unless the user allows that.
func (v *verification) miss(node, reason string) error {
	if !v.allowMissing {
		return kind.New(kind.Unavailable, fmt.Sprintf("node %s: %s", node, reason),
			map[string]string{kind.MetaTry: "conclave log verify --allow-missing   (verifies the others)"})
	}
	v.missing = append(v.missing, object{{"node", node}, {"reason", reason}})
	return nil
}

func (v *verification) run(ctx context.Context, progress func(leaf, of uint64)) error {
	size := v.size()
	for leaf := uint64(0); leaf < size; leaf++ {
		progress(leaf, size)
		if err := v.compare(ctx, leaf); err != nil {
			return err
		}
	}
	for _, c := range v.copies {
		root := c.tree.root()
		if !bytes.Equal(root[:], c.head.GetRoot()) {
			return &damage{c.head.GetNode(), nil, fmt.Sprintf("its %d records make the root %s, its state has %s", c.tree.size, encodeHash(root[:]), encodeHash(c.head.GetRoot()))}
		}
	}
	return nil
}

func (v *verification) size() uint64 {
	var size uint64
	for _, c := range v.copies {
		size = max(size, c.head.GetSize())
	}
	return size
}

// compare checks one leaf on every node whose tree reaches it. Nodes with a smaller tree are behind, not wrong.
func (v *verification) compare(ctx context.Context, leaf uint64) error {
	hashes := map[string]tlog.Hash{}
	for _, c := range slices.Clone(v.copies) {
		if leaf >= c.head.GetSize() {
			continue
		}
		hash, err := c.next(ctx, v.client, leaf)
		if kind.Of(err) == kind.Unavailable || kind.Of(err) == kind.Deadline {
			if err := v.miss(c.head.GetNode(), err.Error()); err != nil {
				return err
			}
			v.copies = slices.DeleteFunc(v.copies, func(other *logCopy) bool { return other == c })
			continue
		}
		if err != nil {
			return err
		}
		hashes[c.head.GetNode()] = hash
		c.tree.add(hash)
	}
	return odd(hashes, leaf)
}

// next reads the node's record of leaf and returns its hash, recomputed from the bytes.
func (c *logCopy) next(ctx context.Context, api *client.Client, leaf uint64) (tlog.Hash, error) {
	node := c.head.GetNode()
	if len(c.page) == 0 {
		reply, err := api.ReadRecords(ctx, &vaultpb.ReadRecordsRequest{Node: node, From: leaf})
		if err != nil {
			return tlog.Hash{}, fmt.Errorf("reading the records of node %s from %d: %w", node, leaf, err)
		}
		c.page = reply.GetRecords()
		if len(c.page) == 0 && reply.GetDamage() != "" {
			return tlog.Hash{}, &damage{node, reply.GetDamagedLeaf(), "cannot be read: " + reply.GetDamage()}
		}
	}
	if len(c.page) == 0 || c.page[0].GetLeaf() != leaf {
		return tlog.Hash{}, &damage{node, leaf, "the record is missing"}
	}
	record := c.page[0]
	c.page = c.page[1:]
	hash := tlog.RecordHash(record.GetData())
	if !bytes.Equal(hash[:], record.GetHash()) {
		return tlog.Hash{}, &damage{node, leaf, "the record does not match the hash stored beside it"}
	}
	return hash, nil
}

// odd finds the node whose record differs from what most nodes hold. Between two it cannot tell which is right, and names
// both.
func odd(hashes map[string]tlog.Hash, leaf uint64) error {
	holders := map[tlog.Hash][]string{}
	for node, hash := range hashes {
		holders[hash] = append(holders[hash], node)
	}
	if len(holders) <= 1 {
		return nil
	}
	groups := make([][]string, 0, len(holders))
	for _, nodes := range holders {
		slices.Sort(nodes)
		groups = append(groups, nodes)
	}
	slices.SortFunc(groups, func(a, b []string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(b[0], a[0])
	})
	few, most := groups[0], groups[len(groups)-1]
	return &damage{strings.Join(few, ","), leaf, "the record differs from that of " + strings.Join(most, ", ")}
}

func (v *verification) result() object {
	var largest *logCopy
	nodes := []any{}
	for _, c := range v.copies {
		root := c.tree.root()
		nodes = append(nodes, object{{"node", c.head.GetNode()}, {"size", c.tree.size}, {"root", encodeHash(root[:])}})
		if largest == nil || c.tree.size > largest.tree.size {
			largest = c
		}
	}
	if v.missing == nil {
		v.missing = []any{}
	}
	root := largest.tree.root()
	return object{{"ok", true}, {"size", largest.tree.size}, {"root", encodeHash(root[:])}, {"nodes", nodes}, {"missing", v.missing}}
}

// encodeHash prints a hash like all bytes.
func encodeHash(hash []byte) string { return base64.StdEncoding.EncodeToString(hash) }
