package soft_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// bindKnown wraps material under m without the token.
func bindKnown(t testing.TB, m *hsm.Master, b hsm.Binding, material []byte) hsm.WrappedKey {
	t.Helper()
	blob, err := keywrap.Wrap(m.Wrap, material)
	if err != nil {
		t.Fatal(err)
	}
	b.ClusterID, b.KeyID, b.Version, b.Generation = m.ClusterID, "k", 1, m.Generation
	return hsm.WrappedKey{Binding: b, Blob: blob, MAC: hsm.BindingMAC(m.Bind, b, blob)}
}

func openKnown(t testing.TB, token *soft.Token, m *hsm.Master, secret []byte) keyuse.Key {
	t.Helper()
	key, err := token.Open(t.Context(), bindKnown(t, m, hsm.Binding{Algorithm: hsm.HMACSHA256}, secret))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// openssl runs the tool; a missing one fails the test.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func file(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hashFlag is openssl's option for the hash of a scheme.
var hashFlag = map[crypto.Hash]string{crypto.SHA256: "-sha256", crypto.SHA384: "-sha384", crypto.SHA512: "-sha512"}

// dgst are the arguments of openssl dgst for a scheme. PSS: the salt is as long as the digest, and a verifier takes no other.
func dgst(scheme hsm.Scheme, args ...string) []string {
	flag := hashFlag[scheme.Hash()]
	all := append([]string{"dgst", flag}, args...)
	if !strings.HasPrefix(string(scheme), "rsa-pss") {
		return all
	}
	return append(all, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", "-sigopt", "rsa_mgf1_md:"+flag[1:])
}

func verifyArgs(scheme hsm.Scheme, pub, sig, message string) []string {
	if scheme == hsm.SchemeEd25519 {
		return []string{"pkeyutl", "-verify", "-pubin", "-inkey", pub, "-rawin", "-in", message, "-sigfile", sig}
	}
	return append(dgst(scheme, "-verify", pub, "-signature", sig), message)
}

// opensslKeys says how openssl makes a key of an algorithm. It is openssl 3.0, which knows neither ML-DSA nor ML-KEM.
var opensslKeys = map[hsm.Algorithm][]string{
	hsm.ECDSAP256:      ecArgs("P-256"),
	hsm.ECDSAP384:      ecArgs("P-384"),
	hsm.ECDSAP521:      ecArgs("P-521"),
	hsm.ECDSASecp256k1: ecArgs("secp256k1"),
	hsm.Ed25519:        {"-algorithm", "ED25519"},
	hsm.RSA2048:        rsaArgs("2048"),
	hsm.RSA3072:        rsaArgs("3072"),
	hsm.RSA4096:        nil, // the published key: finding primes of that size may take openssl ten seconds
	hsm.RSA2048OAEP:    rsaArgs("2048"),
	hsm.RSA3072OAEP:    nil,
	hsm.ECDHP256:       ecArgs("P-256"),
	hsm.ECDHX25519:     {"-algorithm", "X25519"},
}

func ecArgs(curve string) []string {
	return []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve, "-pkeyopt", "ec_param_enc:named_curve"}
}

func rsaArgs(bits string) []string {
	return []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:" + bits}
}

// foreign is a key that openssl made, open in the token.
type foreign struct {
	keyuse.Key
	dir, pem, pub string // its folder and files
	spki          []byte
}

// foreignKey: the key opens in the token, and its public half is ours byte for byte.
func foreignKey(t *testing.T, token *soft.Token, m *hsm.Master, alg hsm.Algorithm) foreign {
	t.Helper()
	f := foreign{dir: t.TempDir()}
	f.pem, f.pub = filepath.Join(f.dir, "key.pem"), filepath.Join(f.dir, "pub.pem")
	if args := opensslKeys[alg]; args != nil {
		openssl(t, append([]string{"genpkey", "-out", f.pem}, args...)...)
	} else {
		der, _ := publishedRSA(t, rsaBits[alg])
		openssl(t, "pkey", "-inform", "DER", "-in", file(t, f.dir, "key.der", der), "-out", f.pem)
	}
	openssl(t, "pkey", "-in", f.pem, "-pubout", "-out", f.pub)
	f.spki = openssl(t, "pkey", "-in", f.pem, "-pubout", "-outform", "DER")
	material := openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", f.pem, "-outform", "DER")
	var err error
	if f.Key, err = token.Open(t.Context(), bindKnown(t, m, hsm.Binding{Algorithm: alg, PublicKey: f.spki}, material)); err != nil {
		t.Fatalf("%s: %v", alg, err)
	}
	return f
}

func unsealed(t *testing.T) (*soft.Token, *hsm.Master) {
	t.Helper()
	token, _ := create(t, cheap())
	m := testMaster(t, 1)
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	return token, m
}

// TestOpenSSLVerifies every kind of signature by keys of the token, and refuses it for another message.
func TestOpenSSLVerifies(t *testing.T) {
	token, _ := unsealed(t)
	message := []byte("a message for another program")
	for _, alg := range []hsm.Algorithm{hsm.ECDSAP256, hsm.ECDSAP384, hsm.ECDSAP521, hsm.ECDSASecp256k1, hsm.Ed25519, hsm.RSA2048, hsm.RSA3072} {
		dir := t.TempDir()
		k, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: alg}, false)
		if err != nil {
			t.Fatal(err)
		}
		key, err := token.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		pub := file(t, dir, "pub.pem", []byte(hsm.PublicKeyPEM(k.Binding.PublicKey)))
		for _, scheme := range alg.Schemes() {
			if scheme == hsm.SchemeECDSASHA256Recoverable {
				continue // no program but those of ledgers knows it
			}
			signature, err := key.Sign(t.Context(), hsm.SignInput{Scheme: scheme, Message: message})
			if err != nil {
				t.Fatal(err)
			}
			sig := file(t, dir, "sig", signature)
			out := openssl(t, verifyArgs(scheme, pub, sig, file(t, dir, "message", message))...)
			if !bytes.Contains(bytes.ToLower(out), []byte("verified")) {
				t.Errorf("%s, %s: openssl says %s", alg, scheme, out)
			}
			args := verifyArgs(scheme, pub, sig, file(t, dir, "other", message[1:]))
			if out, err := exec.Command("openssl", args...).CombinedOutput(); err == nil {
				t.Errorf("%s, %s: openssl takes the signature for another message: %s", alg, scheme, out)
			}
		}
	}
}

// TestOpenSSLKeys: keys that openssl made open in the token, its signatures verify, and what the token signs with them openssl takes.
// On secp256k1 openssl does not care for low s: we take exactly those that have it.
func TestOpenSSLKeys(t *testing.T) {
	token, m := unsealed(t)
	for alg := range opensslKeys {
		if alg.Family() != hsm.FamilySign {
			continue
		}
		key := foreignKey(t, token, m, alg)
		for _, scheme := range alg.Schemes() {
			if scheme == hsm.SchemeECDSASHA256Recoverable {
				continue
			}
			in := hsm.SignInput{Scheme: scheme, Message: []byte("message")}
			signature, err := key.Sign(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			message := file(t, key.dir, "message", in.Message)
			openssl(t, verifyArgs(scheme, key.pub, file(t, key.dir, "sig", signature), message)...)
			tries := 1
			if alg == hsm.ECDSASecp256k1 {
				tries = 4 // half of them are high
			}
			for range tries {
				opensslSigns(t, alg, in, key, message)
			}
		}
	}
}

func opensslSigns(t *testing.T, alg hsm.Algorithm, in hsm.SignInput, key foreign, message string) {
	t.Helper()
	out := filepath.Join(key.dir, "opensslsig")
	if in.Scheme == hsm.SchemeEd25519 {
		openssl(t, "pkeyutl", "-sign", "-inkey", key.pem, "-rawin", "-in", message, "-out", out)
	} else {
		openssl(t, append(dgst(in.Scheme, "-sign", key.pem, "-out", out), message)...)
	}
	signature, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	err = hsm.Verify(alg, in, key.spki, signature)
	if high := alg == hsm.ECDSASecp256k1 && highS(signature); (err == nil) == high {
		t.Errorf("%s, %s: a signature by openssl with high s %v: %v", alg, in.Scheme, high, err)
	}
}

// TestOpenSSLAgrees: openssl on the other side has the same secret, whoever made the token's key.
func TestOpenSSLAgrees(t *testing.T) {
	token, m := unsealed(t)
	for _, alg := range []hsm.Algorithm{hsm.ECDHP256, hsm.ECDHX25519} {
		key, peer := foreignKey(t, token, m, alg), foreignKey(t, token, m, alg)
		out := filepath.Join(key.dir, "secret")
		openssl(t, "pkeyutl", "-derive", "-inkey", peer.pem, "-peerkey", key.pub, "-out", out)
		want, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		for name, side := range map[string]struct {
			key  keyuse.Key
			spki []byte
		}{"one side": {key, peer.spki}, "the other": {peer, key.spki}} {
			if got, err := side.key.Agree(t.Context(), side.spki); err != nil || !bytes.Equal(got, want) || len(got) != 32 {
				t.Errorf("%s, %s: %x, %v; openssl has %x", alg, name, got, err, want)
			}
		}
	}
}

// TestOpenSSLEncrypts: what openssl encrypts the token decrypts, and the other way round.
func TestOpenSSLEncrypts(t *testing.T) {
	token, m := unsealed(t)
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	plain := []byte("a data key of thirty-two bytes..")
	for _, alg := range []hsm.Algorithm{hsm.RSA2048OAEP, hsm.RSA3072OAEP} {
		key := foreignKey(t, token, m, alg)
		in, out := file(t, key.dir, "plain", plain), filepath.Join(key.dir, "out")
		openssl(t, append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", key.pub, "-in", in, "-out", out}, oaep...)...)
		ciphertext, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := key.Decrypt(t.Context(), ciphertext, nil); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %q, %v", alg, got, err)
		}
		if ciphertext, err = hsm.EncryptOAEP(alg, key.spki, plain); err != nil {
			t.Fatal(err)
		}
		in = file(t, key.dir, "ciphertext", ciphertext)
		openssl(t, append([]string{"pkeyutl", "-decrypt", "-inkey", key.pem, "-in", in, "-out", out}, oaep...)...)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: openssl has %q, %v", alg, got, err)
		}
	}
}

// highS reads s from DER by hand: above half the order its top bit is set, or nearly so, and the half begins 7fffffff…
func highS(der []byte) bool {
	s := der[4+der[3]+2:]
	s = bytes.TrimLeft(s, "\x00")
	half, err := hex.DecodeString("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
	return err != nil || len(s) == 32 && bytes.Compare(s, half) > 0
}

// TestSecp256k1IsDeterministic: signatures by RFC 6979 with SHA-256 and low s that are in wide use as test vectors.
func TestSecp256k1IsDeterministic(t *testing.T) {
	token, _ := create(t, cheap())
	m := testMaster(t, 1)
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct{ d, message, r, s string }{
		{
			"0000000000000000000000000000000000000000000000000000000000000001", "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8", "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
		},
		{
			"0000000000000000000000000000000000000000000000000000000000000001",
			"All those moments will be lost in time, like tears in rain. Time to die...",
			"8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b", "547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21",
		},
		{
			"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto",
			"fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d0", "6b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5",
		},
	} {
		digest := sha256.Sum256([]byte(v.message))
		in := hsm.SignInput{Prehashed: true, Digest: digest[:]}
		got, err := openScalar(t, token, m, v.d).Sign(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if r, s := components(got); r != v.r || s != v.s {
			t.Errorf("%s by %s: r %s s %s", v.message, v.d, r, s)
		}
		in.Scheme = hsm.SchemeECDSASHA256Recoverable
		got, err = openScalar(t, token, m, v.d).Sign(t.Context(), in)
		want := fmt.Sprintf("%064s%064s", v.r, v.s)
		if err != nil || len(got) != 65 || hex.EncodeToString(got[:64]) != want {
			t.Errorf("%s by %s, recoverable: %x, %v; want %s", v.message, v.d, got, err, want)
		}
	}
}

// components gives r and s of a DER signature in hex, without the zero that keeps them positive.
func components(der []byte) (r, s string) {
	rb := der[4 : 4+der[3]]
	sb := der[4+int(der[3])+2:]
	return hex.EncodeToString(bytes.TrimLeft(rb, "\x00")), hex.EncodeToString(bytes.TrimLeft(sb, "\x00"))
}

func openScalar(t *testing.T, token *soft.Token, m *hsm.Master, d string) keyuse.Key {
	t.Helper()
	der, err := hex.DecodeString("303e020100301006072a8648ce3d020106052b8104000a042730250201010420" + d)
	if err != nil {
		t.Fatal(err)
	}
	point := openssl(t, "pkey", "-inform", "DER", "-in", file(t, t.TempDir(), "key", der), "-pubout", "-outform", "DER")
	key, err := token.Open(t.Context(), bindKnown(t, m, hsm.Binding{Algorithm: hsm.ECDSASecp256k1, PublicKey: point}, der))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
