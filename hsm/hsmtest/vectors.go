package hsmtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto"
	"embed"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// Results that nobody here computed. The keys reach the token as wrapped keys, so the whole path is tested.

//go:embed testdata
var testdata embed.FS

func testVectors(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, c := range []struct {
		alg   hsm.Algorithm
		count int // of the files in testdata: one that shrank or went would leave a test that passes and tests less
		from  string
		run   func(*testing.T, *rig, hsm.Algorithm) int
	}{
		{hsm.AES128GCM, 375, "NIST CAVP", gcmVectors},
		{hsm.AES256GCM, 375, "NIST CAVP", gcmVectors},
		{hsm.HMACSHA256, 486, "NIST CAVP KBKDF, RFC 4231", hmacVectors},
		{hsm.HMACSHA384, 486, "NIST CAVP KBKDF, RFC 4231", hmacVectors},
		{hsm.HMACSHA512, 486, "NIST CAVP KBKDF, RFC 4231", hmacVectors},
		{hsm.ECDSAP256, 25, "NIST CAVP SigGen, KeyPair", signECVectors},
		{hsm.ECDSAP384, 25, "NIST CAVP SigGen, KeyPair", signECVectors},
		{hsm.ECDSAP521, 25, "NIST CAVP SigGen, KeyPair", signECVectors},
		{hsm.ECDSASecp256k1, 60, "python3-cryptography", signECVectors},
		{hsm.Ed25519, 129, "ed25519.cr.yp.to", ed25519Vectors},
		{hsm.RSA2048, 47, "NIST CAVP SigVer15, SigGen15", rsaVectors},
		{hsm.RSA3072, 48, "NIST CAVP SigVer15, SigGen15", rsaVectors},
		{hsm.RSA4096, 46, "NIST CAVP SigVer15, SigGen15", rsaVectors},
		{hsm.RSA2048OAEP, 60, "python3-cryptography", oaepVectors},
		{hsm.ECDHP256, 60, "NIST CAVS KAS", ecdhVectors},
		{hsm.ECDHX25519, 3, "RFC 7748", x25519Vectors},
		{hsm.MLDSA44, 110, "NIST ACVP keyGen, Go", mldsaVectors},
		{hsm.MLDSA65, 110, "NIST ACVP keyGen, Go", mldsaVectors},
		{hsm.MLDSA87, 110, "NIST ACVP keyGen, Go", mldsaVectors},
		{hsm.MLKEM768, 26, "NIST ACVP keyGen, HPKE", mlkemVectors},
	} {
		if !r.can(c.alg) {
			t.Logf("%s: none of %d vectors, the token lacks it", c.alg, c.count)
			continue
		}
		n := c.run(t, r, c.alg)
		t.Logf("%s: %d vectors (%s)", c.alg, n, c.from)
		if n != c.count {
			t.Errorf("%d vectors for %s, there are %d", n, c.alg, c.count)
		}
	}
}

// readLines reads a file of testdata.
func readLines(name string) ([]string, error) {
	f, err := testdata.Open("testdata/" + name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	var all []string
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		all = append(all, strings.TrimSpace(sc.Text()))
	}
	return all, sc.Err()
}

// readRecords splits a response file into its vectors: lines "name = value" up to an empty one. A bare word maps to itself.
func readRecords(name string) ([]map[string]string, error) {
	all, err := readLines(name)
	if err != nil {
		return nil, err
	}
	var records []map[string]string
	record := make(map[string]string)
	for _, line := range append(all, "") {
		switch {
		case line == "":
			if len(record) > 1 {
				records = append(records, record)
			}
			record = make(map[string]string)
		case line[0] != '#' && line[0] != '[':
			key, value, _ := strings.Cut(line, " =")
			record[key] = strings.TrimSpace(value)
		}
	}
	return records, nil
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	all, err := readLines(name)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func records(t *testing.T, name string) []map[string]string {
	t.Helper()
	all, err := readRecords(name)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// gcmVectors: NIST CAVP, SP 800-38D, authenticated decryption.
func gcmVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	bits := map[hsm.Algorithm]int{hsm.AES128GCM: 128, hsm.AES256GCM: 256}[alg]
	all := records(t, fmt.Sprintf("gcmDecrypt%d_iv96_tag128.rsp.gz", bits))
	refused := 0
	for _, v := range all {
		key := r.open(t, r.wrap(t, binding(alg), unhex(t, v["Key"])))
		got, err := key.Decrypt(t.Context(), unhex(t, v["IV"]+v["CT"]+v["Tag"]), unhex(t, v["AAD"]))
		if _, fail := v["FAIL"]; fail {
			refused++
			is(t, "a vector that must fail", err, hsm.ErrVerify)
		} else if err != nil || !bytes.Equal(got, unhex(t, v["PT"])) {
			t.Errorf("count %s, key %s: %x, %v", v["Count"], v["Key"], got, err)
		}
		// A tag of 12 bytes is what SP 800-38D knows too, and what nobody here makes.
		if sealed := unhex(t, v["IV"]+v["CT"]+v["Tag"]); len(sealed) > 4 {
			_, err := key.Decrypt(t.Context(), sealed[:len(sealed)-4], unhex(t, v["AAD"]))
			is(t, "a cut tag", err, hsm.ErrVerify)
		}
	}
	if refused == 0 {
		t.Error("no GCM vector that must fail")
	}
	return len(all)
}

// hmacVectors: RFC 4231, and NIST CAVP of SP 800-108, whose key derivation in counter mode is HMAC of a counter with other data, under keys
// of exactly our lengths.
func hmacVectors(t *testing.T, r *rig, alg hsm.Algorithm) int {
	h := map[hsm.Algorithm]crypto.Hash{hsm.HMACSHA256: crypto.SHA256, hsm.HMACSHA384: crypto.SHA384, hsm.HMACSHA512: crypto.SHA512}[alg]
	all := records(t, fmt.Sprintf("rfc4231_sha%d.txt", 8*h.Size()))
	for _, v := range all {
		key := r.open(t, r.wrap(t, binding(alg), hmacKey(h, unhex(t, v["Key"]))))
		message, want := unhex(t, v["Msg"]), unhex(t, v["MD"])
		if got, err := key.MAC(t.Context(), message); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, key %s: %x, %v", alg, v["Key"], got, err)
		}
		if err := key.VerifyMAC(t.Context(), message, want); err != nil {
			t.Errorf("%s, key %s: %v", alg, v["Key"], err)
		}
	}
	return len(all) + kbkdfVectors(t, r, alg, h.Size())
}

// hmacKey is the key of our length that RFC 2104 makes of any other: one that is longer than a block is hashed, and a short one is filled with
// zeros.
func hmacKey(h crypto.Hash, key []byte) []byte {
	w := h.New()
	if len(key) > w.BlockSize() {
		w.Write(key)
		return w.Sum(nil)
	}
	return append(key, make([]byte, h.Size()-len(key))...)
}

// kbkdfVectors: lines L (bits), KI, one instring for each block, and KO, the MACs of the blocks cut to L.
func kbkdfVectors(t *testing.T, r *rig, alg hsm.Algorithm, size int) (n int) {
	var key, made []byte
	var opened keyuse.Key
	for _, line := range lines(t, fmt.Sprintf("KBKDF_CTR_HMAC_SHA%d.txt.gz", 8*size)) {
		name, value, _ := strings.Cut(line, " = ")
		switch name {
		case "KI":
			key, made = unhex(t, value), nil
			opened = r.open(t, r.wrap(t, binding(alg), key))
		case "instring":
			mac, err := opened.MAC(t.Context(), unhex(t, value))
			if err != nil || len(mac) != size {
				t.Fatalf("%s, key %x: %x, %v", alg, key, mac, err)
			}
			made = append(made, mac...)
		case "KO":
			n++
			want := unhex(t, value)
			if len(want) < 16 || len(made)-len(want) >= size || !bytes.HasPrefix(made, want) {
				t.Errorf("%s, key %x: %x, want %x", alg, key, made, want)
			}
		}
	}
	return n
}

// mixed fails unless both verdicts occur: a check that only ever says one thing proves nothing.
func mixed(t *testing.T, what string, good, all int) {
	t.Helper()
	if good == 0 || good == all {
		t.Errorf("%s: %d of %d vectors pass", what, good, all)
	}
}
