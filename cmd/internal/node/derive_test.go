package node

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

var curves = map[hsm.Algorithm]ecdh.Curve{hsm.ECDHP256: ecdh.P256(), hsm.ECDHX25519: ecdh.X25519()}

// public is the public half of a version, in the form of hsm.ParsePublicKey.
func (w *world) public(p *process, name fsm.KeyName, n fsm.Version) (spki, bare []byte) {
	w.t.Helper()
	k, v, _, err := p.vault.PublicKey(w.ctx(), w.admin, name, n)
	w.must(err)
	bare, err = hsm.ParsePublicKey(hsm.Algorithm(k.Algorithm), v.PublicKey)
	w.must(err)
	return v.PublicKey, bare
}

// TestAgreement: every node agrees with a peer on what the peer computes, with each version of the key, and with nobody on nothing.
func TestAgreement(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		for alg, curve := range curves {
			name := fsm.KeyName(alg)
			w.create(first, name, alg)
			_, _, err := nodes[1].vault.RotateKey(w.ctx(), w.admin, request(), name, time.Time{})
			w.must(err)
			peer, err := curve.GenerateKey(rand.Reader)
			w.must(err)
			spki, err := hsm.MarshalPublicKey(alg, peer.PublicKey().Bytes())
			w.must(err)
			for i, p := range nodes {
				version := fsm.Version(i % 3) // the primary, then each
				_, bare := w.public(p, name, version)
				ours, err := curve.NewPublicKey(bare)
				w.must(err)
				want, err := peer.ECDH(ours)
				w.must(err)
				got, err := p.vault.Agree(w.ctx(), w.admin, name, version, spki)
				if err != nil || !bytes.Equal(got.Bytes, want) || version != 0 && got.Version != version || got.Algo != alg {
					t.Errorf("%s version %d on %s: %x of version %d, %v; the peer has %x", alg, version, p.id, got.Bytes, got.Version, err, want)
				}
			}
			own, _ := w.public(first, name, 0)
			for what, bad := range map[string][]byte{
				"nothing": nil, "garbage": []byte("no key"), "the key's own half": own, "too much": make([]byte, 1<<16),
				"a key of another curve": other(t, alg), "a point of small order": lowOrder(t, alg),
			} {
				if out, err := first.vault.Agree(w.ctx(), w.admin, name, 0, bad); !errors.Is(err, vault.ErrInvalid) && !errors.Is(err, hsm.ErrInput) || out.Bytes != nil {
					t.Errorf("%s: agreed with %s: %x, %v", alg, what, out.Bytes, err)
				}
			}
		}
		stranger := w.admin
		stranger.Name = "nobody"
		if _, err := first.vault.Agree(w.ctx(), stranger, "ecdh-p256", 0, nil); !errors.Is(err, policy.ErrUnauthenticated) {
			t.Errorf("a stranger agrees: %v", err)
		}
		if _, err := w.change(w.ctx(), first, request(), "ecdh-p256", fsm.ActionSuspend); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[2].vault.Agree(w.ctx(), w.admin, "ecdh-p256", 0, other(t, hsm.ECDHX25519)); !errors.Is(err, guard.ErrKeyState) {
			t.Errorf("a suspended key agrees: %v", err)
		}
	})
}

// other is a valid public key of the other curve.
func other(t *testing.T, alg hsm.Algorithm) []byte {
	t.Helper()
	for a, curve := range curves {
		if a == alg {
			continue
		}
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := hsm.MarshalPublicKey(a, key.PublicKey().Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return spki
	}
	return nil
}

// lowOrder is a point that makes the secret of everybody zero (RFC 7748 §6.1); on P-256, which has none, what is no point.
func lowOrder(t *testing.T, alg hsm.Algorithm) []byte {
	t.Helper()
	if alg == hsm.ECDHP256 {
		return append(other(t, hsm.ECDHX25519)[:12:12], make([]byte, 65)...)
	}
	spki, err := hsm.MarshalPublicKey(alg, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// TestEncapsulation: what one node makes for the holder, every other opens, with the version that it was made for; another version leads
// to another key, and a damaged length to a refusal.
func TestEncapsulation(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		w.create(first, "kem", hsm.MLKEM768)
		e, err := nodes[1].vault.Encapsulate(w.ctx(), w.admin, "kem")
		w.must(err)
		if len(e.SharedKey) != 32 || len(e.Bytes) != 1088 || e.Version != 1 || e.Algo != hsm.MLKEM768 {
			t.Errorf("encapsulated %d bytes in %d for version %d", len(e.SharedKey), len(e.Bytes), e.Version)
		}
		_, _, err = first.vault.RotateKey(w.ctx(), w.admin, request(), "kem", time.Time{})
		w.must(err)
		for _, p := range nodes {
			got, err := p.vault.Decapsulate(w.ctx(), w.admin, "kem", 1, e.Bytes, "")
			if err != nil || !bytes.Equal(got.Bytes, e.SharedKey) || got.Version != 1 {
				t.Errorf("%s decapsulates %x of version %d, %v; want %x", p.id, got.Bytes, got.Version, err, e.SharedKey)
			}
			if _, err := p.vault.Decapsulate(w.ctx(), w.admin, "kem", 0, e.Bytes, ""); !errors.Is(err, vault.ErrInvalid) {
				t.Errorf("no version: %v", err)
			}
			if got, err := p.vault.Decapsulate(w.ctx(), w.admin, "kem", 2, e.Bytes, ""); err != nil || bytes.Equal(got.Bytes, e.SharedKey) || got.Version != 2 {
				t.Errorf("%s: the other version leads to %x, %v", p.id, got.Bytes, err)
			}
			if _, err := p.vault.Decapsulate(w.ctx(), w.admin, "kem", 1, e.Bytes[1:], ""); !errors.Is(err, hsm.ErrInput) {
				t.Errorf("a short ciphertext: %v", err)
			}
		}
		if _, err := w.change(w.ctx(), first, request(), "kem", fsm.ActionDeactivate); err != nil {
			t.Fatal(err)
		}
		if got, err := nodes[2].vault.Decapsulate(w.ctx(), w.admin, "kem", 1, e.Bytes, ""); err != nil || !bytes.Equal(got.Bytes, e.SharedKey) {
			t.Errorf("deactivated, it opens what was made before to %x, %v", got.Bytes, err)
		}
		if _, err := nodes[2].vault.Encapsulate(w.ctx(), w.admin, "kem"); !errors.Is(err, guard.ErrKeyState) {
			t.Errorf("deactivated, more is made for it: %v", err)
		}
	})
}

// TestDecryptionKeys: a ciphertext of any program opens on every node, whatever version it is of; context and size have limits that are said.
func TestDecryptionKeys(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		w.create(nodes[2], "inbox", hsm.RSA2048OAEP)
		w.create(first, "aes", hsm.AES256GCM)
		old, err := nodes[1].vault.Encrypt(w.ctx(), w.admin, "inbox", []byte("by a node"), nil) // which may not have applied the key yet
		w.must(err)
		spki, _ := w.public(first, "inbox", 1)
		foreign, err := hsm.EncryptOAEP(hsm.RSA2048OAEP, spki, []byte("by anybody"))
		w.must(err)
		_, _, err = first.vault.RotateKey(w.ctx(), w.admin, request(), "inbox", time.Time{})
		w.must(err)
		for _, p := range nodes {
			for sealed, want := range map[string]string{string(old.Bytes): "by a node", string(foreign): "by anybody"} {
				for _, version := range []fsm.Version{0, 1} {
					got, err := p.vault.Decrypt(w.ctx(), w.admin, "inbox", vault.Ciphertext{Bytes: []byte(sealed), Version: version})
					if err != nil || string(got.Bytes) != want || got.Version != 1 {
						t.Errorf("%s, version %d: %q of version %d, %v", p.id, version, got.Bytes, got.Version, err)
					}
				}
			}
		}
		for what, in := range map[string]vault.Ciphertext{
			"another version": {Bytes: foreign, Version: 2}, "a changed one": {Bytes: append(bytes.Clone(foreign[:255]), foreign[255]^1)},
			"a short one": {Bytes: foreign[1:]}, "none": {},
		} {
			if got, err := first.vault.Decrypt(w.ctx(), w.admin, "inbox", in); !errors.Is(err, vault.ErrNotVerified) || got.Bytes != nil {
				t.Errorf("%s: %q, %v", what, got.Bytes, err)
			}
		}
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, vault.ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = first.vault.Encrypt(w.ctx(), w.admin, "inbox", []byte("x"), vault.Context{"a": "b"})
		refused("a context", err)
		_, err = first.vault.Decrypt(w.ctx(), w.admin, "inbox", vault.Ciphertext{Bytes: foreign, Context: vault.Context{"a": "b"}})
		refused("a context to decrypt", err)
		_, err = first.vault.Encrypt(w.ctx(), w.admin, "inbox", make([]byte, 191), nil)
		refused("191 bytes", err)
		sealed, err := first.vault.Encrypt(w.ctx(), w.admin, "aes", []byte("x"), nil)
		w.must(err)
		_, err = first.vault.Decrypt(w.ctx(), w.admin, "aes", vault.Ciphertext{Bytes: sealed.Bytes, Version: 2})
		refused("a version beside the one that the ciphertext names", err)
		if _, err := first.vault.Encrypt(w.ctx(), w.admin, "nothing", nil, nil); !errors.Is(err, guard.ErrNotFound) {
			t.Errorf("encrypting with no key: %v", err)
		}
	})
}

// TestAnOAEPCiphertextIsTriedABoundedNumberOfTimes: garbage costs a private operation for each of the newest versions, once, and an older
// version opens when it is named.
func TestAnOAEPCiphertextIsTriedABoundedNumberOfTimes(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(1)
		w.create(first, "inbox", hsm.RSA2048OAEP)
		sealed, err := first.vault.Encrypt(w.ctx(), w.admin, "inbox", []byte("old"), nil)
		w.must(err)
		for range 8 {
			_, _, err := first.vault.RotateKey(w.ctx(), w.admin, request(), "inbox", time.Time{})
			w.must(err)
		}
		if _, err := first.vault.Decrypt(w.ctx(), w.admin, "inbox", vault.Ciphertext{Bytes: sealed.Bytes}); !errors.Is(err, vault.ErrNotVerified) {
			t.Errorf("the ninth version was tried: %v", err)
		}
		got, err := first.vault.Decrypt(w.ctx(), w.admin, "inbox", vault.Ciphertext{Bytes: sealed.Bytes, Version: 1})
		if err != nil || string(got.Bytes) != "old" {
			t.Errorf("named, it opens to %q, %v", got.Bytes, err)
		}
	})
}

// TestWhatOnlyTheHolderDoesIsWatched: a restriction that comes while the HSM works keeps the result in, and it is wiped.
func TestWhatOnlyTheHolderDoesIsWatched(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "dh", hsm.ECDHX25519)
		w.create(first, "kem", hsm.MLKEM768)
		e, err := first.vault.Encapsulate(w.ctx(), w.admin, "kem")
		w.must(err)
		peer := other(t, hsm.ECDHP256)
		for name, use := range map[fsm.KeyName]func(context.Context, *process) (vault.Output, error){
			"dh": func(ctx context.Context, p *process) (vault.Output, error) {
				return p.vault.Agree(ctx, w.admin, "dh", 0, peer)
			},
			"kem": func(ctx context.Context, p *process) (vault.Output, error) {
				return p.vault.Decapsulate(ctx, w.admin, "kem", 1, e.Bytes, "")
			},
		} {
			for _, p := range w.live() {
				if _, err := use(w.ctx(), p); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.change(w.ctx(), first, request(), name, fsm.ActionSuspend); err != nil {
				t.Fatal(err)
			}
			for _, p := range w.live() { // acknowledged: nowhere any more
				if out, err := use(w.ctx(), p); !errors.Is(err, guard.ErrKeyState) || out.Bytes != nil {
					t.Errorf("%s: %s after its suspension: %s", p.id, name, fmt.Sprint(err))
				}
			}
		}
	})
}
