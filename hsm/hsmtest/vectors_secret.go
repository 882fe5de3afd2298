package hsmtest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"

	"github.com/conclave-vault/conclave/hsm"
)

// oaepVectors: by the authors of python3-cryptography out of NIST's SHA-1 vectors, verified by them against Bouncy Castle. A file is
// keys and messages, each number on a line of its own below its name.
func oaepVectors(t *testing.T, r *rig, alg hsm.Algorithm) (n int) {
	var name string
	fields := make(map[string]string)
	for _, line := range lines(t, "oaep_sha256_sha256.txt.gz") {
		if strings.HasPrefix(line, "#") {
			name = strings.TrimSpace(strings.TrimPrefix(line, "#"))
			continue
		}
		fields[name] = line
		if name != "Encryption:" {
			continue
		}
		n++
		key := r.open(t, r.wrapKnown(t, alg, rsaKey(t, alg, &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: number(t, fields["Modulus:"]), E: int(number(t, fields["Public exponent:"]).Int64())},
			D:         number(t, fields["Exponent:"]), Primes: []*big.Int{number(t, fields["Prime 1:"]), number(t, fields["Prime 2:"])},
		})))
		got, err := key.Decrypt(t.Context(), unhex(t, fields["Encryption:"]), nil)
		if err != nil || !bytes.Equal(got, unhex(t, fields["Message:"])) {
			t.Errorf("message %s: %x, %v", fields["Message:"], got, err)
		}
	}
	return n
}

// ecdhVectors: NIST CAVS 11, ECC static unified, the primitive alone, both roles: secrets, and keys that are invalid or do not fit.
func ecdhVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	all := append(records(t, "KAS_ECCStaticUnified_P256_init.fax.gz"), records(t, "KAS_ECCStaticUnified_P256_resp.fax.gz")...)
	f := ecVectors{size: 32, curve: elliptic.P256()}
	good := 0
	for _, v := range all {
		switch result := v["Result"]; {
		case strings.HasPrefix(result, "P"):
			good++
			key := r.open(t, r.wrapKnown(t, alg, f.agreement(t, alg, v)))
			got, err := key.Agree(t.Context(), spki(t, alg, point(t, f, v, "QsCAVSx", "QsCAVSy")))
			if err != nil || !bytes.Equal(got, unhex(t, v["Z"])) {
				t.Errorf("count %s: %x, %v; want %s", v["COUNT"], got, err, v["Z"])
			}
		case strings.Contains(result, "CAVS's Static public key"):
			_, err := hsm.MarshalPublicKey(alg, point(t, f, v, "QsCAVSx", "QsCAVSy"))
			is(t, result, err, hsm.ErrInput)
		case strings.Contains(result, "IUT's Static public key"):
			_, err := hsm.MarshalPublicKey(alg, point(t, f, v, "QsIUTx", "QsIUTy"))
			is(t, result, err, hsm.ErrInput)
		case strings.Contains(result, "private key d changed"):
			k := f.agreement(t, alg, v)
			k.spki = spki(t, alg, point(t, f, v, "QsIUTx", "QsIUTy"))
			r.refuse(t, result, r.wrapKnown(t, alg, k), hsm.ErrWrappedKey)
		case strings.Contains(result, "Z changed"):
			key := r.open(t, r.wrapKnown(t, alg, f.agreement(t, alg, v)))
			got, err := key.Agree(t.Context(), spki(t, alg, point(t, f, v, "QsCAVSx", "QsCAVSy")))
			if err != nil || bytes.Equal(got, unhex(t, v["Z"])) {
				t.Errorf("count %s, %s: %x, %v", v["COUNT"], result, got, err)
			}
		default:
			t.Errorf("count %s: a result that the test does not know: %s", v["COUNT"], result)
		}
	}
	mixed(t, string(alg), good, len(all))
	return len(all)
}

func point(t *testing.T, f ecVectors, v map[string]string, x, y string) []byte {
	t.Helper()
	p, ok := f.point(t, v, x, y)
	if !ok {
		t.Fatalf("count %s: coordinates too large", v["COUNT"])
	}
	return p
}

// agreement is the token's side of a vector, with the public key that belongs to the private one.
func (f ecVectors) agreement(t *testing.T, alg hsm.Algorithm, v map[string]string) knownKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(f.curve, number(t, v["dsIUT"]).FillBytes(make([]byte, f.size)))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return knownKey{pkcs8(t, key), spki(t, alg, public)}
}

// x25519Vectors: RFC 7748 §5.2.
func x25519Vectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	all := records(t, "rfc7748_x25519.txt")
	for _, v := range all {
		key, err := ecdh.X25519().NewPrivateKey(unhex(t, v["INPUT_SCALAR"]))
		if err != nil {
			t.Fatal(err)
		}
		k := r.wrapKnown(t, alg, knownKey{pkcs8(t, key), spki(t, alg, key.PublicKey().Bytes())})
		got, err := r.open(t, k).Agree(t.Context(), spki(t, alg, unhex(t, v["INPUT_U"])))
		if err != nil || !bytes.Equal(got, unhex(t, v["OUTPUT_U"])) {
			t.Errorf("count %s: %x, %v; want %s", v["COUNT"], got, err, v["OUTPUT_U"])
		}
	}
	return len(all)
}

// mlkemVectors: NIST ACVP, FIPS 203: each seed opens with the public key given. What the token decapsulates is what circl's
// implementation, another one than the token is likely to use, encapsulated; a changed ciphertext leads both to the same key. One
// ciphertext with its key is of draft-ietf-hpke-pq.
func mlkemVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	all := records(t, "acvp_ml-kem-768_keygen.txt.gz")
	for _, v := range all {
		seed := unhex(t, v["d"]+v["z"])
		k := fromSeed(t, alg, seed)
		k.spki = spki(t, alg, unhex(t, v["ek"]))
		key := r.open(t, r.wrapKnown(t, alg, k))
		public, private := mlkem768.NewKeyFromSeed(seed)
		ciphertext, want := make([]byte, mlkem768.CiphertextSize), make([]byte, mlkem768.SharedKeySize)
		public.EncapsulateTo(ciphertext, want, nil)
		for range 2 {
			got, err := key.Decapsulate(t.Context(), ciphertext)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("tcId %s: %x, %v; want %x", v["tcId"], got, err, want)
			}
			ciphertext[0] ^= 1
			private.DecapsulateTo(want, ciphertext)
		}
	}
	v := records(t, "hpke_ml-kem-768.txt")[0]
	k := fromSeed(t, alg, unhex(t, v["skRm"]))
	k.spki = spki(t, alg, unhex(t, v["pkRm"]))
	got, err := r.open(t, r.wrapKnown(t, alg, k)).Decapsulate(t.Context(), unhex(t, v["enc"]))
	if err != nil || !bytes.Equal(got, unhex(t, v["shared_secret"])) {
		t.Errorf("HPKE: %x, %v; want %s", got, err, v["shared_secret"])
	}
	return len(all) + 1
}
