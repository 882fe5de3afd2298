package node

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
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

// bank is somebody to whom keys are exported.
func (w *world) bank() (*ecdh.PrivateKey, hsm.Recipient) {
	w.t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	w.must(err)
	spki, err := x509.MarshalPKIXPublicKey(private.PublicKey())
	w.must(err)
	to, err := hsm.ParseRecipient(spki, hsm.FormECDH)
	w.must(err)
	return private, to
}

func (w *world) createExportable(p *process, name fsm.KeyName, a hsm.Algorithm) {
	w.t.Helper()
	_, _, err := p.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Algorithm: a, Exportable: true})
	w.must(err)
}

// wantSecret: secret makes the tags that a version of the key makes.
func (w *world) wantSecret(p *process, name fsm.KeyName, n fsm.Version, secret []byte) {
	w.t.Helper()
	tag := hsm.BindingMAC(secret, hsm.Binding{}, nil) // any HMAC-SHA-256
	if _, ok, err := p.vault.VerifyMAC(w.ctx(), w.admin, name, n, hsm.BindingMessage(hsm.Binding{}, nil), tag); err != nil || !ok {
		w.t.Errorf("version %d of %s is another key on %s: %v", n, name, p.id, err)
	}
}

// TestExport: what any node exports is the key that all of them use, and the log says to whom it went.
func TestExport(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		w.createExportable(first, "pan", hsm.HMACSHA256)
		private, to := w.bank()
		id := request()
		for _, p := range nodes { // the same request everywhere: one export
			out, err := p.vault.ExportKey(w.ctx(), w.admin, id, vault.Export{Name: "pan", Recipient: to})
			w.must(err)
			if out.Node != p.id || out.Version != 1 || out.Algorithm != hsm.HMACSHA256 {
				t.Errorf("%+v", out)
			}
			secret, err := keywrap.UnwrapECDH(private, out.Wrapped)
			w.must(err)
			w.wantSecret(nodes[0], "pan", 1, secret)
		}
		fingerprint := to.Fingerprint()
		logged := w.logged(first, "key.export", "key/pan")
		if len(logged) != 1 || logged[0].Actor != w.admin.Actor() || logged[0].Version != 1 ||
			!strings.HasSuffix(logged[0].Detail, "recipient=sha256:"+hex.EncodeToString(fingerprint[:])) {
			t.Errorf("logged %+v", logged)
		}
		_, other := w.bank()
		_, err := first.vault.ExportKey(w.ctx(), w.admin, id, vault.Export{Name: "pan", Recipient: other})
		if r, ok := errors.AsType[*vault.Refused](err); !ok || r.Code != fsm.CodeRequestReused {
			t.Errorf("the same request to somebody else: %v", err)
		}
		_, _, err = nodes[1].vault.RotateKey(w.ctx(), w.admin, request(), "pan", time.Time{})
		w.must(err)
		_, err = nodes[2].vault.ExportKey(w.ctx(), w.admin, id, vault.Export{Name: "pan", Recipient: to})
		if r, ok := errors.AsType[*vault.Refused](err); !ok || r.Code != fsm.CodeVersionConflict {
			t.Errorf("the request for the primary version, which is another one by now: %v", err)
		}
		out, err := nodes[2].vault.ExportKey(w.ctx(), w.admin, request(), vault.Export{Name: "pan", Version: 2, Recipient: to})
		w.must(err) // a rotation keeps the key exportable
		secret, err := keywrap.UnwrapECDH(private, out.Wrapped)
		w.must(err)
		w.wantSecret(nodes[1], "pan", 2, secret)
		if k, _, err := first.vault.Key(w.ctx(), w.admin, "pan"); err != nil || k.Versions[0].Dates == nil || k.Versions[0].Dates.ExportedAt.IsZero() {
			t.Errorf("the version does not say that it left: %+v, %v", k, err)
		}
	})
}

// TestExportRefused by every node, for every reason, before anything is logged.
func TestExportRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "kept", hsm.HMACSHA256)
		w.createExportable(first, "pan", hsm.HMACSHA256)
		_, to := w.bank()
		bob := w.employ(first, fsm.RoleUser, "bob")
		_, _, err := first.vault.UpdateKey(w.ctx(), w.admin, request(), fsm.UpdateKey{Name: "pan", SetLabels: []fsm.Label{{Name: "users", Value: "bob"}}})
		w.must(err)
		refused := func(what string, c policy.Caller, id fsm.RequestID, e vault.Export, want error) {
			t.Helper()
			for _, p := range w.live() {
				if out, err := p.vault.ExportKey(w.ctx(), c, id, e); !errors.Is(err, want) || out.Wrapped != nil {
					t.Errorf("%s through %s: %v", what, p.id, err)
				}
			}
		}
		refused("a user", bob, request(), vault.Export{Name: "pan", Recipient: to}, policy.ErrDenied)
		refused("not exportable", w.admin, request(), vault.Export{Name: "kept", Recipient: to}, guard.ErrKeyState)
		refused("no key", w.admin, request(), vault.Export{Name: "none", Recipient: to}, guard.ErrNotFound)
		refused("no version", w.admin, request(), vault.Export{Name: "pan", Version: 7, Recipient: to}, guard.ErrNotFound)
		refused("nobody", w.admin, request(), vault.Export{Name: "pan"}, hsm.ErrInput)
		refused("no request id", w.admin, "", vault.Export{Name: "pan", Recipient: to}, vault.ErrInvalid)
		_, err = w.change(w.ctx(), first, request(), "pan", fsm.ActionSuspend)
		w.must(err)
		refused("suspended", w.admin, request(), vault.Export{Name: "pan", Recipient: to}, guard.ErrKeyState)
		_, err = w.change(w.ctx(), first, request(), "pan", fsm.ActionResume)
		w.must(err)
		// Never again: acknowledged when no node can act against it; new versions rest under the other master.
		k, _, err := w.live()[1].vault.UpdateKey(w.ctx(), w.admin, request(), fsm.UpdateKey{Name: "pan", NeverExportable: true})
		w.must(err)
		if k.Barrier.State != fsm.BarrierDone || !k.NeverExportable {
			t.Errorf("acknowledged with %+v", k.Barrier)
		}
		refused("never", w.admin, request(), vault.Export{Name: "pan", Recipient: to}, guard.ErrKeyState)
		k, _, err = first.vault.RotateKey(w.ctx(), w.admin, request(), "pan", time.Time{})
		w.must(err)
		if !k.Versions[0].Exportable || k.Versions[1].Exportable {
			t.Errorf("%+v", k.Versions)
		}
		if logged := w.logged(first, "key.export", ""); len(logged) != 0 {
			t.Errorf("logged %+v", logged)
		}
	})
}

// TestAnExportThatCannotBeCommittedReleasesNothing: the node has its lease and its key, and nobody to tell.
func TestAnExportThatCannotBeCommittedReleasesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.createExportable(first, "pan", hsm.HMACSHA256)
		_, to := w.bank()
		cut := w.followers()[0]
		w.isolate(cut.id)
		ctx, cancel := context.WithTimeout(w.ctx(), leaseTime/2)
		defer cancel()
		if out, err := cut.vault.ExportKey(ctx, w.admin, request(), vault.Export{Name: "pan", Recipient: to}); err == nil || out.Wrapped != nil {
			t.Errorf("cut off: %v", err)
		}
		w.heal()
		w.serving(3)
		if logged := w.logged(first, "key.export", ""); len(logged) != 0 {
			t.Errorf("logged %+v", logged)
		}
	})
}

// TestANodeThatCannotExportAsksAnother, and says what every node lacks if none can.
func TestANodeThatCannotExportAsksAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		able := map[fsm.NodeID]bool{"n3": true}
		w.alter = func(p *process, c *vault.Config) {
			if !able[p.id] {
				c.Keys = struct{ guard.KeyUse }{c.Keys} // it opens keys, and exports none
			}
		}
		first := w.unsealed(3)
		w.createExportable(first, "pan", hsm.HMACSHA256)
		private, to := w.bank()
		out, err := first.vault.ExportKey(w.ctx(), w.admin, request(), vault.Export{Name: "pan", Recipient: to})
		w.must(err)
		secret, err := keywrap.UnwrapECDH(private, out.Wrapped)
		w.must(err)
		w.wantSecret(first, "pan", 1, secret)
		if out.Node != "n3" {
			t.Errorf("exported by %s", out.Node)
		}
		bob := w.employ(first, fsm.RoleUser, "bob")
		if _, err := first.vault.ExportKey(w.ctx(), bob, request(), vault.Export{Name: "pan", Recipient: to}); !errors.Is(err, policy.ErrDenied) {
			t.Errorf("a user, through a node that cannot: %v", err)
		}
		w.create(first, "kept", hsm.HMACSHA256)
		if _, err := first.vault.ExportKey(w.ctx(), w.admin, request(), vault.Export{Name: "kept", Recipient: to}); !errors.Is(err, guard.ErrKeyState) {
			t.Errorf("not exportable, through a node that cannot: %v", err)
		}
		w.must(w.reorder(w.ctx(), first, "n3", vault.NodeDrain))
		_, err = first.vault.ExportKey(w.ctx(), w.admin, request(), vault.Export{Name: "pan", Recipient: to})
		if !errors.Is(err, hsm.ErrUnsupported) || !strings.Contains(err.Error(), "CKM_RSA_AES_KEY_WRAP") || !strings.Contains(err.Error(), "node n2") {
			t.Errorf("no node can: %v", err)
		}
	})
}

// TestImportExport: in through one node, used at another, out of a third: the same key.
func TestImportExport(t *testing.T) {
	inWorld(t, func(w *world) {
		w.unsealed(3)
		nodes := w.live()
		k, err := nodes[0].vault.CreateImportKey(w.ctx(), w.admin, "pan", hsm.HMACSHA256, hsm.FormECDH)
		w.must(err)
		holder, err := hsm.ParseRecipient(k.PublicKey, k.Form)
		w.must(err)
		wrapped, err := keywrap.WrapECDH(holder.ECDH(), secret)
		w.must(err)
		n := vault.NewKey{Name: "pan", Algorithm: hsm.HMACSHA256, Exportable: true}
		key, err := bringAs(nodes[1], w.ctx(), w.admin, request(), n, k, wrapped)
		w.must(err)
		if v := key.Versions[0]; !v.Imported || !v.Exportable {
			t.Errorf("%+v", v)
		}
		w.wantSecret(nodes[1], "pan", 1, secret)
		private, to := w.bank()
		out, err := nodes[2].vault.ExportKey(w.ctx(), w.admin, request(), vault.Export{Name: "pan", Recipient: to})
		w.must(err)
		if got, err := keywrap.UnwrapECDH(private, out.Wrapped); err != nil || string(got) != string(secret) {
			t.Errorf("another key came out: %v", err)
		}
	})
}

// TestRewrap: a ciphertext moves to the primary version, keeps its context, and nobody reads it on the way.
func TestRewrap(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		nodes := w.live()
		w.create(first, "box", hsm.AES256GCM)
		bound := vault.Context{"row": "7"}
		old, err := first.vault.Encrypt(w.ctx(), w.admin, "box", []byte("hello"), bound)
		w.must(err)
		_, _, err = first.vault.RotateKey(w.ctx(), w.admin, request(), "box", time.Time{})
		w.must(err)
		_, _, err = first.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "box", Version: 1, Action: fsm.ActionDeactivate, Reason: "old"})
		w.must(err)
		moved, from, err := nodes[1].vault.Rewrap(w.ctx(), w.admin, "box", vault.Ciphertext{Bytes: old.Bytes, Context: bound})
		w.must(err)
		if from != 1 || moved.Version != 2 || moved.Key != "box" || moved.Algo != hsm.AES256GCM {
			t.Errorf("from %d to %+v", from, moved)
		}
		back, err := nodes[2].vault.Decrypt(w.ctx(), w.admin, "box", vault.Ciphertext{Bytes: moved.Bytes, Context: bound})
		w.must(err)
		if string(back.Bytes) != "hello" || back.Version != 2 {
			t.Errorf("%q of version %d", back.Bytes, back.Version)
		}
		bob := w.employ(first, fsm.RoleUser, "bob")
		w.create(first, "other", hsm.AES256GCM)
		w.create(first, "mac", hsm.HMACSHA256)
		rewrap := func(c policy.Caller, name fsm.KeyName, in vault.Ciphertext) error {
			out, _, err := first.vault.Rewrap(w.ctx(), c, name, in)
			if out.Bytes != nil {
				t.Errorf("%s: something came out", name)
			}
			return err
		}
		for what, c := range map[string]struct {
			who  policy.Caller
			name fsm.KeyName
			in   vault.Ciphertext
			want error
		}{
			"another context": {w.admin, "box", vault.Ciphertext{Bytes: old.Bytes}, vault.ErrNotVerified},
			"another key":     {w.admin, "other", vault.Ciphertext{Bytes: old.Bytes, Context: bound}, vault.ErrNotVerified},
			"no ciphertext":   {w.admin, "box", vault.Ciphertext{Bytes: []byte("x"), Context: bound}, vault.ErrNotVerified},
			"too much":        {w.admin, "box", vault.Ciphertext{Bytes: make([]byte, 2<<20), Context: bound}, vault.ErrInvalid},
			"another kind":    {w.admin, "mac", vault.Ciphertext{Bytes: old.Bytes, Context: bound}, guard.ErrWrongKey},
			"a stranger":      {bob, "box", vault.Ciphertext{Bytes: old.Bytes, Context: bound}, policy.ErrDenied},
		} {
			if err := rewrap(c.who, c.name, c.in); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", what, err, c.want)
			}
		}
		_, _, err = first.vault.ChangeKey(w.ctx(), w.admin, request(), vault.Change{Name: "box", Version: 1, Action: fsm.ActionCompromise, Reason: "leak"})
		w.must(err)
		if err := rewrap(w.admin, "box", vault.Ciphertext{Bytes: old.Bytes, Context: bound}); !errors.Is(err, guard.ErrNeedsApproval) {
			t.Errorf("of a compromised version: %v", err)
		}
		_, err = w.change(w.ctx(), first, request(), "box", fsm.ActionSuspend)
		w.must(err)
		if err := rewrap(w.admin, "box", vault.Ciphertext{Bytes: moved.Bytes, Context: bound}); !errors.Is(err, guard.ErrKeyState) {
			t.Errorf("of a suspended version: %v", err)
		}
	})
}

// TestRotationsByDateKeepExportability, and lose it with the key: nobody asks a person then.
func TestRotationsByDateKeepExportability(t *testing.T) {
	inWorld(t, func(w *world) {
		pass, request := w.epochs()
		first := w.unsealed(3)
		class := standard(first)
		class.Name, class.RotateEvery = "quick", 10*time.Hour
		_, _, err := first.vault.CreateClass(w.ctx(), w.admin, request(), class)
		w.must(err)
		w.plan(first, vault.NewKey{Name: "out", Class: "quick", Exportable: true})
		w.plan(first, vault.NewKey{Name: "kept", Class: "quick"})
		pass(10 * time.Hour)
		w.becomes(5*time.Second, "out", 2, fsm.StateActive)
		w.becomes(5*time.Second, "kept", 2, fsm.StateActive)
		if !mustKey(first, "out").Versions[1].Exportable || mustKey(first, "kept").Versions[1].Exportable {
			t.Error("a rotation changed what the keys were born as")
		}
		_, _, err = first.vault.UpdateKey(w.ctx(), w.admin, request(), fsm.UpdateKey{Name: "out", NeverExportable: true})
		w.must(err)
		pass(10 * time.Hour)
		w.becomes(5*time.Second, "out", 3, fsm.StateActive)
		if mustKey(first, "out").Versions[2].Exportable {
			t.Error("what is never to be exported got exportable material")
		}
	})
}
