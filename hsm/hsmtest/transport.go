package hsmtest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// RunTransport runs what a backend owes that is an hsm.Importer and a keyuse.Exporter: key material on its way in and out, in both forms.
func RunTransport(t *testing.T, open func(t *testing.T) (hsm.Token, keyuse.Port)) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"import", testImport},
		{"import once", testImportOnce},
		{"import refusals", testImportRefusals},
		{"export", testExport},
		{"export refusals", testExportRefusals},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, unsealed(t, open)) })
	}
}

var forms = []hsm.Form{hsm.FormRSA, hsm.FormECDH}

func (r *rig) importKey(t *testing.T, form hsm.Form) hsm.ImportKey {
	t.Helper()
	importer, ok := r.token.(hsm.Importer)
	if !ok {
		t.Fatal("the token is no hsm.Importer")
	}
	k, err := importer.NewImportKey(t.Context(), form)
	if err != nil {
		t.Fatalf("an import key for %s: %v", form, err)
	}
	t.Cleanup(k.Destroy)
	return k
}

// wrapTo wraps material to an import key, as its owner does.
func wrapTo(t *testing.T, k hsm.ImportKey, form hsm.Form, material []byte) []byte {
	t.Helper()
	to, err := hsm.ParseRecipient(k.PublicKey(), form)
	if err != nil {
		t.Fatalf("the import key: %v", err)
	}
	var wrapped []byte
	if form == hsm.FormRSA {
		wrapped, err = keywrap.WrapRSA(to.RSA(), material)
	} else {
		wrapped, err = keywrap.WrapECDH(to.ECDH(), material)
	}
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// materialOf is what a key of the suite's is, and its binding: exportable, as the token would have made it.
func (r *rig) materialOf(t *testing.T, alg hsm.Algorithm) ([]byte, hsm.WrappedKey) {
	t.Helper()
	k := r.keyFor(t, alg, true)
	material, err := keywrap.Unwrap(r.master.WrapExport, k.Blob)
	if err != nil {
		t.Fatal(err)
	}
	return material, k
}

// testImport: the very key that went out comes in, and rests as a generated one does, under the master that was asked for.
func testImport(t *testing.T, r *rig) {
	for i, alg := range r.transportable(t) {
		material, k := r.materialOf(t, alg)
		for j, form := range forms {
			r.importOne(t, form, material, k, (i+j)%2 == 0)
		}
	}
}

// transportable are the usable algorithms, of which there are some.
func (r *rig) transportable(t *testing.T) []hsm.Algorithm {
	t.Helper()
	all := r.usable()
	if len(all) < 3 {
		t.Fatalf("the token can use %v only", all)
	}
	return all
}

func (r *rig) importOne(t *testing.T, form hsm.Form, material []byte, k hsm.WrappedKey, exportable bool) {
	t.Helper()
	alg, key := k.Binding.Algorithm, r.importKey(t, form)
	b := binding(alg)
	b.Exportable = exportable
	w, err := key.Import(t.Context(), b, wrapTo(t, key, form, material))
	if err != nil {
		t.Errorf("%s by %s: %v", alg, form, err)
		return
	}
	kek := r.master.Wrap
	if exportable {
		kek = r.master.WrapExport
	}
	again, err := keywrap.Unwrap(kek, w.Blob)
	if err != nil || !bytes.Equal(again, material) {
		t.Errorf("%s by %s: wrapped as other material than came in (%v)", alg, form, err)
	}
	b.Generation, b.PublicKey = r.master.Generation, k.Binding.PublicKey
	if !bytes.Equal(w.Binding.Encode(), b.Encode()) || hsm.CheckBinding(r.master.Bind, w) != nil {
		t.Errorf("%s by %s: bound to %+v, want %+v", alg, form, w.Binding, b)
	}
	if err := once(t, r.open(t, w), w); err != nil {
		t.Errorf("%s by %s: using it: %v", alg, form, err)
	}
}

// testImportOnce: after a success, after a failure, after Destroy and after a seal there is no further attempt.
func testImportOnce(t *testing.T, r *rig) {
	secret, b := bytes.Repeat([]byte{7}, 32), binding(hsm.AES256GCM)
	for _, form := range forms {
		for what, first := range map[string]func(hsm.ImportKey, []byte) error{
			"a success": func(k hsm.ImportKey, wrapped []byte) error {
				_, err := k.Import(t.Context(), b, wrapped)
				return err
			},
			"a failure": func(k hsm.ImportKey, wrapped []byte) error {
				damaged := bytes.Clone(wrapped)
				damaged[len(damaged)-1] ^= 1
				if _, err := k.Import(t.Context(), b, damaged); !errors.Is(err, hsm.ErrInput) {
					return errors.New("damaged material is taken")
				}
				return nil
			},
			"its end": func(k hsm.ImportKey, _ []byte) error { k.Destroy(); return nil },
		} {
			k := r.importKey(t, form)
			wrapped := wrapTo(t, k, form, secret)
			if err := first(k, wrapped); err != nil {
				t.Errorf("%s: %s: %v", form, what, err)
			}
			_, err := k.Import(t.Context(), b, wrapped)
			is(t, string(form)+": after "+what, err, hsm.ErrClosed)
		}
	}
	k := r.importKey(t, hsm.FormECDH)
	wrapped := wrapTo(t, k, hsm.FormECDH, secret)
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	_, err := k.Import(t.Context(), b, wrapped)
	is(t, "after a seal", err, hsm.ErrSealed)
	_, err = r.token.(hsm.Importer).NewImportKey(t.Context(), hsm.FormECDH)
	is(t, "an import key of a sealed token", err, hsm.ErrSealed)
}

func testImportRefusals(t *testing.T, r *rig) {
	secret := bytes.Repeat([]byte{7}, 32)
	elsewhere := binding(hsm.AES256GCM)
	elsewhere.ClusterID = "another"
	for i, form := range forms {
		other := forms[1-i]
		k := r.importKey(t, form)
		_, err := k.Import(t.Context(), elsewhere, wrapTo(t, k, form, secret))
		is(t, string(form)+": for another cluster", err, hsm.ErrInput)
		for what, wrapped := range map[string][]byte{
			"nothing": nil, "zeros": make([]byte, 65+40), "too much": make([]byte, hsm.MaxImport+1),
			"the other form": wrapTo(t, r.importKey(t, other), other, secret), "a short secret": nil,
			"another key's": wrapToAnother(t, form, secret),
		} {
			k := r.importKey(t, form)
			if what == "a short secret" {
				wrapped = wrapTo(t, k, form, secret[:16])
			}
			w, err := k.Import(t.Context(), binding(hsm.AES256GCM), wrapped)
			if is(t, string(form)+": "+what, err, hsm.ErrInput); w.Blob != nil {
				t.Errorf("%s: %s: a key comes of it", form, what)
			}
		}
	}
	_, err := r.token.(hsm.Importer).NewImportKey(t.Context(), "plain")
	is(t, "an import key for no form", err, hsm.ErrInput)
}

// wrapToAnother wraps to a key of the suite's own.
func wrapToAnother(t *testing.T, form hsm.Form, material []byte) []byte {
	t.Helper()
	if form == hsm.FormRSA {
		wrapped, err := keywrap.WrapRSA(&privateRSA(t, 1).PublicKey, material)
		if err != nil {
			t.Fatal(err)
		}
		return wrapped
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := keywrap.WrapECDH(key.PublicKey(), material)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// privateRSA is a published key of 3072 bits.
func privateRSA(t *testing.T, n int) *rsa.PrivateKey {
	t.Helper()
	all, err := publishedRSA()
	if err != nil {
		t.Fatal(err)
	}
	return all[rsaBits(hsm.RSA3072)][n]
}

func (r *rig) export(t *testing.T, k hsm.WrappedKey, to hsm.Recipient) ([]byte, error) {
	t.Helper()
	exporter, ok := r.port.(keyuse.Exporter)
	if !ok {
		t.Fatal("the port is no keyuse.Exporter")
	}
	return exporter.Export(t.Context(), k, to)
}

// Recipient is a public key (*rsa.PublicKey, *ecdh.PublicKey) as one to export to.
func Recipient(t *testing.T, public any) hsm.Recipient {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	r, err := hsm.ParseRecipient(spki, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testExport: what comes out is what went in, of every algorithm, in both forms.
func testExport(t *testing.T, r *rig) {
	rsaKey := privateRSA(t, 0)
	ecKey, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range r.transportable(t) {
		material, k := r.materialOf(t, alg)
		byRSA, err := r.export(t, k, Recipient(t, &rsaKey.PublicKey))
		if err != nil {
			t.Errorf("%s by RSA: %v", alg, err)
			continue
		}
		byEC, err := r.export(t, k, Recipient(t, ecKey.PublicKey()))
		if err != nil {
			t.Errorf("%s by ECDH: %v", alg, err)
			continue
		}
		got, err := keywrap.UnwrapRSA(rsaKey, byRSA)
		if equals(t, string(alg)+" by RSA", got, material, err) != nil {
			t.Errorf("%s by RSA: %v", alg, err)
		}
		got, err = keywrap.UnwrapECDH(ecKey, byEC)
		if equals(t, string(alg)+" by ECDH", got, material, err) != nil {
			t.Errorf("%s by ECDH: %v", alg, err)
		}
	}
}

// testExportRefusals: what was not made exportable, also if somebody says it was, what is not bound, and a sealed token.
func testExportRefusals(t *testing.T, r *rig) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to := Recipient(t, key.PublicKey())
	kept, good := r.keyFor(t, hsm.AES256GCM, false), r.keyFor(t, hsm.AES256GCM, true)
	forged, renamed, old := kept, good, good
	forged.Binding.Exportable = true
	renamed.Binding.KeyID = "another"
	old.Binding.Generation++
	for _, c := range []struct {
		what string
		k    hsm.WrappedKey
		to   hsm.Recipient
		want error
	}{
		{"not exportable", kept, to, hsm.ErrInput},
		{"said to be", forged, to, hsm.ErrWrappedKey},
		// Whoever has the bind key can forge a binding, and still not the wrap: the blob is under the other master.
		{"bound as if it were", r.rebind(forged), to, hsm.ErrWrappedKey},
		{"another key's name", renamed, to, hsm.ErrWrappedKey},
		{"another generation", old, to, hsm.ErrGeneration},
		{"to nobody", good, hsm.Recipient{}, hsm.ErrInput},
	} {
		out, err := r.export(t, c.k, c.to)
		if is(t, c.what, err, c.want); out != nil {
			t.Errorf("%s: something comes out", c.what)
		}
	}
	if err := r.token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	_, err = r.export(t, good, to)
	is(t, "sealed", err, hsm.ErrSealed)
}
