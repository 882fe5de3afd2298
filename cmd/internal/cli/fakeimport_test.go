package cli_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// importPair is the private half that every fake node has: finding primes takes its time.
var importPair = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

const fakeImportKey = "n1/018f0000-0000-4000-8000-000000000001"

func (n *node) CreateImportKey(_ context.Context, r *vaultpb.CreateImportKeyRequest) (*vaultpb.ImportKeyReply, error) {
	pair, err := importPair()
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&pair.PublicKey)
	if err != nil {
		return nil, err
	}
	return &vaultpb.ImportKeyReply{
		Id: fakeImportKey, Node: "n1", Name: r.GetName(), Algorithm: r.GetAlgorithm(), Form: hsm.ImportForm,
		PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		ExpiresAt: timestamppb.New(time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)),
	}, nil
}

// ImportKey shows what came in by its hash.
func (n *node) ImportKey(ctx context.Context, r *vaultpb.ImportKeyRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) {
		pair, err := importPair()
		if err != nil {
			return nil, err
		}
		if r.GetImportKey() != fakeImportKey {
			return nil, kind.New(kind.NotFound, fmt.Sprintf("no import key %q", r.GetImportKey()), nil)
		}
		material, err := keywrap.UnwrapRSA(pair, r.GetWrapped())
		if err != nil {
			return nil, kind.New(kind.InvalidArgument, "the material does not unwrap", nil)
		}
		reply, err := n.create(ctx, r.GetKey())
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256(material)
		n.keys[r.GetKey().GetName()].Description = fmt.Sprintf("%d bytes, %s", len(material), hex.EncodeToString(digest[:4]))
		n.keys[r.GetKey().GetName()].Versions[0].Origin = "imported"
		reply.Key.Versions[0].Origin = "imported"
		return reply, nil
	})
}
