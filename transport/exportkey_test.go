package transport_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// TestExportOverTheWire: what is wrong with the request is said before anything else; a cluster below the level of exports says which it needs; above it, a node
// without a lease, as this one, hands nothing out.
func TestExportOverTheWire(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	keys, ctx := vaultpb.NewKeysClient(conn), t.Context()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.PublicKey())
	must(t, err)
	export := func(spki []byte, form string) error {
		return kind.Received(last(keys.ExportKey(ctx, &vaultpb.ExportKeyRequest{
			RequestId: uuid.Must(uuid.NewV7()).String(), Name: "none", Recipient: spki, Form: form,
		})))
	}
	for what, err := range map[string]error{
		"nobody": export(nil, ""), "garbage": export([]byte("garbage"), ""), "no form": export(spki, "plain"), "another form": export(spki, "rsa-aes"),
		"an import key in no form": kind.Received(last(keys.CreateImportKey(ctx, &vaultpb.CreateImportKeyRequest{Name: "k", Algorithm: "ed25519", Form: "plain"}))),
	} {
		if kind.Of(err) != kind.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := export(spki, "ecdh"); kind.Of(err) != kind.Unsupported || !strings.Contains(err.Error(), "level raise") {
		t.Errorf("at level 1: %v", err)
	}
	cluster := vaultpb.NewClusterClient(conn)
	for level := uint32(2); level <= 3; level++ {
		_, err := cluster.RaiseFeatureLevel(ctx, &vaultpb.RaiseFeatureLevelRequest{RequestId: uuid.Must(uuid.NewV7()).String(), Level: level})
		must(t, err)
	}
	if err := export(spki, ""); kind.Of(err) != kind.Unavailable || !strings.Contains(err.Error(), "lease") {
		t.Errorf("at level 3: %v", err)
	}
}
