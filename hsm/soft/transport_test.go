package soft_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// cmsInfo is the SharedInfo of the ECDH form, as a person types it.
const cmsInfo = "3015300b0609608648016503040130a206040400000100"

func ecdhImportKey(t *testing.T, token *soft.Token) (hsm.ImportKey, *ecdh.PublicKey) {
	t.Helper()
	k, err := token.NewImportKey(t.Context(), hsm.FormECDH)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Destroy)
	r, err := hsm.ParseRecipient(k.PublicKey(), hsm.FormECDH)
	if err != nil {
		t.Fatal(err)
	}
	return k, r.ECDH()
}

// kinds are algorithms of every kind of material; TestImportEveryAlgorithm has all, and what lies inside does not depend on the form.
var kinds = []hsm.Algorithm{hsm.AES256GCM, hsm.HMACSHA384, hsm.ECDSAP256, hsm.Ed25519, hsm.ECDHX25519, hsm.MLDSA44, hsm.MLKEM768, hsm.RSA2048}

// TestImportByECDH: every kind of material, once, and nothing that is of the other form.
func TestImportByECDH(t *testing.T) {
	token, m := unsealed(t)
	for _, alg := range kinds {
		material, spki := someMaterial(t, alg)
		k, public := ecdhImportKey(t, token)
		wrapped, err := keywrap.WrapECDH(public, material)
		if err != nil {
			t.Fatal(err)
		}
		w, err := k.Import(t.Context(), subject(m, alg), wrapped)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if again, err := keywrap.Unwrap(m.Wrap, w.Blob); err != nil || !bytes.Equal(again, material) || !bytes.Equal(w.Binding.PublicKey, spki) {
			t.Errorf("%s: wrapped as other material than came in (%v)", alg, err)
		}
		if _, err := k.Import(t.Context(), subject(m, alg), wrapped); !errors.Is(err, hsm.ErrClosed) {
			t.Errorf("%s: a second time: %v", alg, err)
		}
	}
	_, private := publishedRSA(t, 3072)
	other, err := keywrap.WrapRSA(&private.PublicKey, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for what, wrapped := range map[string][]byte{"nothing": nil, "the other form": other, "zeros": make([]byte, 65+40), "too much": make([]byte, hsm.MaxImport+1)} {
		k, _ := ecdhImportKey(t, token)
		if _, err := k.Import(t.Context(), subject(m, hsm.AES256GCM), wrapped); !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := token.NewImportKey(t.Context(), "plain"); !errors.Is(err, hsm.ErrInput) {
		t.Errorf("an import key for no form: %v", err)
	}
	k, public := ecdhImportKey(t, token)
	wrapped, err := keywrap.WrapECDH(public, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Import(t.Context(), subject(m, hsm.AES256GCM), wrapped); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("after a seal: %v", err)
	}
}

// TestImportKeepsWhatIsAsked: exportable material rests under the other master.
func TestImportKeepsWhatIsAsked(t *testing.T) {
	token, m := unsealed(t)
	k, public := ecdhImportKey(t, token)
	secret := bytes.Repeat([]byte{7}, 32)
	wrapped, err := keywrap.WrapECDH(public, secret)
	if err != nil {
		t.Fatal(err)
	}
	b := subject(m, hsm.AES256GCM)
	b.Exportable = true
	w, err := k.Import(t.Context(), b, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keywrap.Unwrap(m.WrapExport, w.Blob); err != nil || !bytes.Equal(got, secret) || !w.Binding.Exportable {
		t.Errorf("%+v: %v", w.Binding, err)
	}
	opened(t, token, w)
}

// TestOpenSSLWrapsByECDH: with openssl alone.
func TestOpenSSLWrapsByECDH(t *testing.T) {
	token, m := unsealed(t)
	dir := t.TempDir()
	k, _ := ecdhImportKey(t, token)
	peer := file(t, dir, "import.pem", []byte(hsm.PublicKeyPEM(k.PublicKey())))
	ephemeral, z := filepath.Join(dir, "ephemeral.pem"), filepath.Join(dir, "z")
	openssl(t, append([]string{"genpkey", "-out", ephemeral}, ecArgs("P-256")...)...)
	openssl(t, "pkeyutl", "-derive", "-inkey", ephemeral, "-peerkey", peer, "-out", z)
	spki := openssl(t, "pkey", "-in", ephemeral, "-pubout", "-outform", "DER")
	secret := bytes.Repeat([]byte{7}, 32)
	inner := opensslWrap(t, dir, kdf(t, dir, read(t, z)), file(t, dir, "secret", secret), "-e")
	w, err := k.Import(t.Context(), subject(m, hsm.AES256GCM), append(spki[len(spki)-65:], inner...))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keywrap.Unwrap(m.Wrap, w.Blob); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%x, %v", got, err)
	}
}

func kdf(t *testing.T, dir string, z []byte) []byte {
	t.Helper()
	out := filepath.Join(dir, "kek")
	openssl(t, "kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "hexsecret:"+hex.EncodeToString(z), "-kdfopt", "hexinfo:"+cmsInfo, "-binary", "-out", out, "X963KDF")
	return read(t, out)
}

func opensslWrap(t *testing.T, dir string, kek []byte, in, direction string) []byte {
	t.Helper()
	out := filepath.Join(dir, "wrapped"+direction)
	openssl(t, "enc", direction, "-id-aes256-wrap-pad", "-K", hex.EncodeToString(kek), "-iv", "A65959A6", "-in", in, "-out", out)
	return read(t, out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// exportable wraps material under wrap-export and binds it, as the token does.
func exportable(t *testing.T, m *hsm.Master, alg hsm.Algorithm, material, spki []byte) hsm.WrappedKey {
	t.Helper()
	b := subject(m, alg)
	b.Exportable, b.Generation, b.PublicKey = true, m.Generation, spki
	blob, err := keywrap.Wrap(m.WrapExport, material)
	if err != nil {
		t.Fatal(err)
	}
	return hsm.WrappedKey{Binding: b, Blob: blob, MAC: hsm.BindingMAC(m.Bind, b, blob)}
}

// TestExportEveryAlgorithm, in both forms: what comes out is what went in.
func TestExportEveryAlgorithm(t *testing.T) {
	token, m := unsealed(t)
	_, rsaKey := publishedRSA(t, 3072)
	ecKey, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	toRSA, toEC := recipient(t, &rsaKey.PublicKey), recipient(t, ecKey.PublicKey())
	for _, alg := range hsm.Algorithms() {
		material, spki := someMaterial(t, alg)
		w := exportable(t, m, alg, material, spki)
		byRSA, err := token.Export(t.Context(), w, toRSA)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		byEC, err := token.Export(t.Context(), w, toEC)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if got, err := keywrap.UnwrapRSA(rsaKey, byRSA); err != nil || !bytes.Equal(got, material) {
			t.Errorf("%s by RSA: %v", alg, err)
		}
		if got, err := keywrap.UnwrapECDH(ecKey, byEC); err != nil || !bytes.Equal(got, material) {
			t.Errorf("%s by ECDH: %v", alg, err)
		}
	}
}

func recipient(t *testing.T, public any) hsm.Recipient {
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

// TestOpenSSLUnwraps what is exported, in both forms, by the commands that README shows.
func TestOpenSSLUnwraps(t *testing.T) {
	token, m := unsealed(t)
	dir := t.TempDir()
	material, spki := someMaterial(t, hsm.ECDSAP256)
	w := exportable(t, m, hsm.ECDSAP256, material, spki)
	check := func(form hsm.Form, der []byte) {
		t.Helper()
		if got := openssl(t, "pkey", "-inform", "DER", "-in", file(t, dir, "out.der", der), "-pubout", "-outform", "DER"); !bytes.Equal(got, spki) {
			t.Errorf("%s gives another key", form)
		}
	}
	keyFile := func(private any) string {
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, dir, "recipient.der", der)
	}
	_, rsaKey := publishedRSA(t, 3072)
	wrapped, err := token.Export(t.Context(), w, recipient(t, &rsaKey.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	kek := filepath.Join(dir, "ephemeral")
	openssl(t, "pkeyutl", "-decrypt", "-keyform", "DER", "-inkey", keyFile(rsaKey), "-in", file(t, dir, "outer", wrapped[:384]), "-out", kek,
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256")
	check(hsm.FormRSA, opensslWrap(t, dir, read(t, kek), file(t, dir, "inner", wrapped[384:]), "-d"))

	ecKey, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if wrapped, err = token.Export(t.Context(), w, recipient(t, ecKey.PublicKey())); err != nil {
		t.Fatal(err)
	}
	ephemeral, err := ecdh.P256().NewPublicKey(wrapped[:65])
	if err != nil {
		t.Fatal(err)
	}
	peer, err := x509.MarshalPKIXPublicKey(ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	z := filepath.Join(dir, "z")
	openssl(t, "pkeyutl", "-derive", "-keyform", "DER", "-inkey", keyFile(ecKey), "-peerkey", file(t, dir, "peer.pem", []byte(hsm.PublicKeyPEM(peer))), "-out", z)
	check(hsm.FormECDH, opensslWrap(t, dir, kdf(t, dir, read(t, z)), file(t, dir, "inner", wrapped[65:]), "-d"))
}

// TestExportRefuses what was not made exportable, also if somebody says it was, what is not bound, and a sealed token.
func TestExportRefuses(t *testing.T) {
	token, m := unsealed(t)
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to := recipient(t, key.PublicKey())
	kept, err := token.Generate(t.Context(), subject(m, hsm.AES256GCM), false)
	if err != nil {
		t.Fatal(err)
	}
	forged := kept
	forged.Binding.Exportable = true
	good, err := token.Generate(t.Context(), subject(m, hsm.AES256GCM), true)
	if err != nil {
		t.Fatal(err)
	}
	renamed, old := good, good
	renamed.Binding.KeyID = "another"
	old.Binding.Generation++
	// Whoever has the bind key can forge a binding, and still not the wrap: the blob is under the other master.
	rebound := forged
	rebound.MAC = hsm.BindingMAC(m.Bind, rebound.Binding, rebound.Blob)
	for what, c := range map[string]struct {
		k    hsm.WrappedKey
		to   hsm.Recipient
		want error
	}{
		"not exportable": {kept, to, hsm.ErrInput}, "said to be": {forged, to, hsm.ErrWrappedKey}, "bound as if it were": {rebound, to, hsm.ErrWrappedKey},
		"another key's name": {renamed, to, hsm.ErrWrappedKey}, "another generation": {old, to, hsm.ErrGeneration}, "nobody": {good, hsm.Recipient{}, hsm.ErrInput},
	} {
		if out, err := token.Export(t.Context(), c.k, c.to); !errors.Is(err, c.want) || out != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Export(t.Context(), good, to); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("sealed: %v", err)
	}
}
