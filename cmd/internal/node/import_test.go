package node

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// secret is a key from elsewhere.
var secret = bytes.Repeat([]byte{0x5c}, 32)

// importKey makes an import key through a node, with secret wrapped to it.
func (w *world) importKey(p *process, name fsm.KeyName) (vault.ImportKey, []byte) {
	w.t.Helper()
	k, err := p.vault.CreateImportKey(w.ctx(), w.admin, name, hsm.HMACSHA256, hsm.FormRSA)
	w.must(err)
	public, err := x509.ParsePKIXPublicKey(k.PublicKey)
	w.must(err)
	wrapped, err := keywrap.WrapRSA(public.(*rsa.PublicKey), secret)
	w.must(err)
	return k, wrapped
}

func bringAs(p *process, ctx context.Context, c policy.Caller, id fsm.RequestID, n vault.NewKey, k vault.ImportKey, wrapped []byte) (fsm.Key, error) {
	key, _, err := p.vault.ImportKey(ctx, c, id, n, k.ID, wrapped)
	return key, err
}

// TestImport: the import key is in one node's token, any node takes the wrapped material, and every node uses the key.
func TestImport(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		n := vault.NewKey{Name: "pan", Algorithm: hsm.HMACSHA256}
		k, wrapped := w.importKey(nodes[1], n.Name)
		if !strings.HasPrefix(k.ID, string(nodes[1].id)+"/") || k.Node != nodes[1].id || time.Until(k.ExpiresAt) != time.Hour {
			t.Errorf("%+v", k)
		}
		id := request()
		key, err := bringAs(nodes[2], w.ctx(), w.admin, id, n, k, wrapped)
		w.must(err)
		if v := key.Versions[0]; !v.Imported || !v.MadeInSoftware || v.Exportable || v.State != fsm.StateActive {
			t.Errorf("%+v", v)
		}
		again, err := bringAs(nodes[0], w.ctx(), w.admin, id, n, k, wrapped)
		w.must(err)
		if again.ID != key.ID {
			t.Errorf("the same request made %s and %s", key.ID, again.ID)
		}
		if _, err := bringAs(nodes[0], w.ctx(), w.admin, id, n, k, append([]byte{1}, wrapped...)); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("the same request for other material: %v", err)
		}
		want := hsm.BindingMAC(secret, hsm.Binding{}, nil) // any HMAC-SHA-256 of the secret
		for _, p := range nodes {
			_, ok, err := p.vault.VerifyMAC(w.ctx(), w.admin, "pan", 0, hsm.BindingMessage(hsm.Binding{}, nil), want)
			if err != nil || !ok {
				t.Errorf("%s: the imported key is another one: %v", p.id, err)
			}
		}
		if got := w.logged(first, "key.import", ""); len(got) != 1 {
			t.Errorf("logged %+v", got)
		}
		if _, err := bringAs(nodes[1], w.ctx(), w.admin, request(), vault.NewKey{Name: "pan", Algorithm: hsm.HMACSHA256}, k, wrapped); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("an import key serves twice: %v", err)
		}
	})
}

// TestImportRefusals: what an import key does not serve, and when it ends.
func TestImportRefusals(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		n := vault.NewKey{Name: "pan", Algorithm: hsm.HMACSHA256}
		k, wrapped := w.importKey(first, n.Name)
		stranger := w.admin
		stranger.Name = "nobody"
		if _, err := first.vault.CreateImportKey(w.ctx(), stranger, "pan", hsm.HMACSHA256, hsm.FormRSA); !errors.Is(err, policy.ErrUnauthenticated) {
			t.Errorf("a stranger makes an import key: %v", err)
		}
		nobodys := k
		nobodys.ID = "n9/" + string(request())
		lost := k
		lost.ID = string(first.id) + "/" + string(request())
		for _, c := range []struct {
			what    string
			caller  policy.Caller
			n       vault.NewKey
			k       vault.ImportKey
			wrapped []byte
			want    error
		}{
			{"a stranger", stranger, n, k, wrapped, policy.ErrUnauthenticated},
			{"another name", w.admin, vault.NewKey{Name: "other", Algorithm: hsm.HMACSHA256}, k, wrapped, vault.ErrInvalid},
			{"another algorithm", w.admin, vault.NewKey{Name: "pan", Algorithm: hsm.AES256GCM}, k, wrapped, vault.ErrInvalid},
			{"an import key of no node", w.admin, n, nobodys, wrapped, vault.ErrInvalid},
			{"an import key that is not there", w.admin, n, lost, wrapped, guard.ErrNotFound},
			{"nothing", w.admin, n, k, nil, vault.ErrInvalid},
			{"too much", w.admin, n, k, make([]byte, hsm.MaxImport+1), vault.ErrInvalid},
		} {
			for _, p := range nodes[:2] { // the holder and another node
				if _, err := bringAs(p, w.ctx(), c.caller, request(), c.n, c.k, c.wrapped); !errors.Is(err, c.want) {
					t.Errorf("%s through %s: %v", c.what, p.id, err)
				}
			}
		}
		damaged := append([]byte{wrapped[0] ^ 1}, wrapped[1:]...)
		if _, err := bringAs(nodes[1], w.ctx(), w.admin, request(), n, k, damaged); !errors.Is(err, hsm.ErrInput) || !strings.Contains(err.Error(), "is spent") {
			t.Errorf("damaged: %v", err)
		}
		if _, err := bringAs(first, w.ctx(), w.admin, request(), n, k, wrapped); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("after a failure: %v", err)
		}
		k, wrapped = w.importKey(first, n.Name)
		_, err := nodes[1].vault.Seal(w.ctx(), w.admin, request(), "drill")
		w.must(err)
		if _, err := bringAs(first, w.ctx(), w.admin, request(), n, k, wrapped); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("sealed: %v", err)
		}
		if _, err := nodes[2].vault.CreateImportKey(w.ctx(), w.admin, "pan", hsm.HMACSHA256, hsm.FormRSA); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("a sealed node makes an import key: %v", err)
		}
	})
}
