package soft_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
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
	wrapped, err := token.Export(t.Context(), w, hsmtest.Recipient(t, &rsaKey.PublicKey))
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
	if wrapped, err = token.Export(t.Context(), w, hsmtest.Recipient(t, ecKey.PublicKey())); err != nil {
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
