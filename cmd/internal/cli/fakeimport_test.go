package cli_test

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
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

// importPoint is the one for the other form.
var importPoint = sync.OnceValues(func() (*ecdh.PrivateKey, error) { return ecdh.P256().GenerateKey(rand.Reader) })

const fakeImportKey = "n1/018f0000-0000-4000-8000-000000000001"

func (n *node) CreateImportKey(_ context.Context, r *vaultpb.CreateImportKeyRequest) (*vaultpb.ImportKeyReply, error) {
	form, err := hsm.ParseForm(cmp.Or(r.GetForm(), "rsa-aes"))
	if err != nil {
		return nil, kind.New(kind.InvalidArgument, err.Error(), nil)
	}
	pair, err := importPair()
	point, err2 := importPoint()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	var half any = &pair.PublicKey
	if form == hsm.FormECDH {
		half = point.PublicKey()
	}
	public, err := x509.MarshalPKIXPublicKey(half)
	if err != nil {
		return nil, err
	}
	return &vaultpb.ImportKeyReply{
		Id: fakeImportKey, Node: "n1", Name: r.GetName(), Algorithm: r.GetAlgorithm(), Form: string(form),
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
		if point, e := importPoint(); e == nil && err != nil {
			material, err = keywrap.UnwrapECDH(point, r.GetWrapped())
		}
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

// ExportKey shows what it was asked for instead of a wrapped key.
func (n *node) ExportKey(ctx context.Context, r *vaultpb.ExportKeyRequest) (*vaultpb.ExportKeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.ExportKeyReply, error) {
		k, err := n.key(r.GetName())
		if err != nil {
			return nil, err
		}
		if k.GetExportable() != "yes" {
			return nil, kind.New(kind.KeyState, "the key version was not made exportable", nil)
		}
		form, err := hsm.ParseForm(cmp.Or(r.GetForm(), "ecdh"))
		if err != nil {
			return nil, kind.New(kind.InvalidArgument, err.Error(), nil)
		}
		digest := sha256.Sum256(r.GetRecipient())
		return &vaultpb.ExportKeyReply{
			Key: k.GetName(), Version: max(r.GetVersion(), 1), Algorithm: k.GetAlgorithm(), Form: string(form), RecipientSha256: hex.EncodeToString(digest[:]),
			Wrapped: []byte("wrapped material"), Node: n.name, Index: n.index,
		}, nil
	})
}

// Rewrap opens and seals under the one version that there is.
func (n *node) Rewrap(ctx context.Context, r *vaultpb.RewrapRequest) (*vaultpb.RewrapReply, error) {
	opened, err := n.Decrypt(ctx, &vaultpb.DecryptRequest{Name: r.GetName(), Ciphertext: r.GetCiphertext(), Context: r.GetContext()})
	if err != nil {
		return nil, err
	}
	sealed, err := n.Encrypt(ctx, &vaultpb.EncryptRequest{Name: r.GetName(), Plaintext: opened.GetPlaintext(), Context: r.GetContext()})
	if err != nil {
		return nil, err
	}
	return &vaultpb.RewrapReply{
		Key: sealed.GetKey(), Version: 2, FromVersion: 1, Algorithm: sealed.GetAlgorithm(), Ciphertext: sealed.GetCiphertext(), Node: n.name, Index: n.index,
	}, nil
}
