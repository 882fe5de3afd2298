package transport_test

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ledger"
)

// TestCheckpointsContinueEachOther: what a node signs verifies with its certificate, sealed as it is here, and proves that it
// continues what it signed before.
func TestCheckpointsContinueEachOther(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	api := vaultpb.NewLogClient(conn)
	node, err := s.nodes.IssueNode(s.named("node", "n1"), s.token.Identity().Public(), nil, time.Now())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(s.nodes.Certificate)
	key, err := ledger.KeyOf(node.Raw, roots)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	open := func(from uint64) (*vaultpb.CheckpointReply, ledger.Checkpoint) {
		t.Helper()
		r, err := api.GetCheckpoint(ctx, &vaultpb.GetCheckpointRequest{From: from})
		must(t, err)
		c, _, err := ledger.Open(r.GetNote(), ledger.Keys{key})
		must(t, err)
		if c.Cluster != s.id || c.Size != r.GetSize() || r.GetNode() != "n1" || len(r.GetCertificates()) != 1 {
			t.Fatalf("%+v, %+v", c, r)
		}
		return r, c
	}
	_, first := open(0)
	for range 5 {
		s.ada()
	}
	reply, second := open(first.Size)
	var proof tlog.TreeProof
	for _, h := range reply.GetConsistency() {
		proof = append(proof, tlog.Hash(h))
	}
	if err := tlog.CheckTree(proof, int64(second.Size), second.Root, int64(first.Size), first.Root); err != nil || second.Size != first.Size+5 {
		t.Errorf("from %d to %d: %v", first.Size, second.Size, err)
	}
	if _, err := api.GetCheckpoint(ctx, &vaultpb.GetCheckpointRequest{From: second.Size + 1}); kind.Of(err) != kind.InvalidArgument {
		t.Errorf("from a size that is not there: %v", err)
	}
	if _, err := api.ProveKey(ctx, &vaultpb.ProveKeyRequest{Name: "none"}); kind.Of(err) != kind.NotFound {
		t.Errorf("a key that is not there: %v", err)
	}
}

// TestTheLevelIsRaised from the one that the stage's cluster began with, step by step, each once.
func TestTheLevelIsRaised(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	api := vaultpb.NewClusterClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	raise := func(level uint32) (*vaultpb.RaiseFeatureLevelReply, error) {
		return api.RaiseFeatureLevel(ctx, &vaultpb.RaiseFeatureLevelRequest{RequestId: uuid.Must(uuid.NewV7()).String(), Level: level})
	}
	for level := s.replica.State().FeatureLevel() + 1; level <= fsm.FeatureLevel; level++ {
		for range 2 { // the second finds it in force
			if r, err := raise(level); err != nil || r.GetFeatureLevel() != level || s.replica.State().FeatureLevel() != level {
				t.Fatalf("%v, %v", r, err)
			}
		}
	}
	if _, err := raise(fsm.FeatureLevel + 1); kind.Of(err) != kind.InvalidArgument {
		t.Errorf("a level of a release to come: %v", err)
	}
	st, err := api.Status(ctx, &vaultpb.StatusRequest{})
	if err != nil || st.GetFeatureLevel() != fsm.FeatureLevel || st.GetNodes()[0].GetUnderstands() != fsm.FeatureLevel || st.GetNodes()[0].GetDigest() == "" {
		t.Errorf("%v, %v", st, err)
	}
}
