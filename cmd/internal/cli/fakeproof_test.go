package cli_test

import (
	"context"
	"crypto"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ledger"
)

// GetCheckpoint signs with the node's own key, as a real one does.
func (n *node) GetCheckpoint(_ context.Context, r *vaultpb.GetCheckpointRequest) (*vaultpb.CheckpointReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	size := uint64(len(n.events))
	reply, err := n.checkpoint(size)
	if err != nil || r.GetFrom() == 0 {
		return reply, err
	}
	if r.GetFrom() > size {
		return nil, kind.New(kind.InvalidArgument, fmt.Sprintf("an earlier tree of %d leaves, and the log has %d", r.GetFrom(), size), nil)
	}
	proof, err := tlog.ProveTree(int64(size), int64(r.GetFrom()), n.hashes())
	reply.Consistency = hashes(proof)
	return reply, err
}

func (n *node) checkpoint(size uint64) (*vaultpb.CheckpointReply, error) {
	signer, err := ledger.NewSigner(ledger.KeyName(n.ca.Cluster, n.name), n.pair.PrivateKey.(crypto.Signer))
	if err != nil {
		return nil, err
	}
	root, err := tlog.TreeHash(int64(size), n.hashes())
	if err != nil {
		return nil, err
	}
	note, err := ledger.Checkpoint{Cluster: n.ca.Cluster, Size: size, Root: root}.Sign(signer)
	return &vaultpb.CheckpointReply{Note: note, Size: size, Root: root[:], Node: n.name, Certificates: n.pair.Certificate, Index: n.index}, err
}

func hashes(list []tlog.Hash) [][]byte {
	var out [][]byte
	for _, h := range list {
		out = append(out, h[:])
	}
	return out
}

// ProveKey gives one event a page.
func (n *node) ProveKey(ctx context.Context, r *vaultpb.ProveKeyRequest) (*vaultpb.ProveKeyReply, error) {
	if _, err := n.GetKey(ctx, &vaultpb.GetKeyRequest{Name: r.GetName()}); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	reply, size := &vaultpb.ProveKeyReply{Index: n.index}, r.GetSize()
	if size == 0 {
		size = uint64(len(n.events))
		cp, err := n.checkpoint(size)
		if err != nil {
			return nil, err
		}
		reply.Checkpoint = cp
	}
	n.index++ // somebody goes on working: the pages are of one tree all the same
	if err := n.log(ctx, &vaultpb.Event{Action: "cluster.noise", Subject: "cluster"}); err != nil {
		return nil, err
	}
	for _, e := range n.events[:size] {
		if e.GetSubject() != "key/"+r.GetName() || fmt.Sprint(e.GetLeaf()) < r.GetPageToken() {
			continue
		}
		if len(reply.Items) == 1 {
			reply.NextPageToken = fmt.Sprint(e.GetLeaf())
			break
		}
		path, err := tlog.ProveRecord(int64(size), int64(e.GetLeaf()), n.hashes())
		if err != nil {
			return nil, err
		}
		record := n.records[n.name][e.GetLeaf()]
		reply.Items = append(reply.Items, &vaultpb.ProvenRecord{Leaf: e.GetLeaf(), Data: record.GetData(), Path: hashes(path)})
	}
	return reply, nil
}

// RaiseFeatureLevel knows two levels.
func (n *node) RaiseFeatureLevel(ctx context.Context, r *vaultpb.RaiseFeatureLevelRequest) (*vaultpb.RaiseFeatureLevelReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.RaiseFeatureLevelReply, error) {
		if r.GetLevel() > 2 {
			return nil, kind.New(kind.InvalidArgument, "upgrade the nodes first", nil)
		}
		return &vaultpb.RaiseFeatureLevelReply{FeatureLevel: r.GetLevel(), Index: n.index}, nil
	})
}
