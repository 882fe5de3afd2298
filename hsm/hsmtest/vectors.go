package hsmtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// Results that nobody here computed. The keys reach the token as wrapped keys, so the whole path is tested.

//go:embed testdata
var testdata embed.FS

func testVectors(t *testing.T, open Factory) {
	r := unsealed(t, open)
	for _, c := range []struct {
		alg  hsm.Algorithm
		from string
		run  func(*testing.T, *rig, hsm.Algorithm) int
	}{
		{hsm.AES128GCM, "NIST CAVP", gcmVectors},
		{hsm.AES256GCM, "NIST CAVP", gcmVectors},
		{hsm.HMACSHA256, "RFC 4231", hmacVectors},
		{hsm.HMACSHA384, "RFC 4231", hmacVectors},
		{hsm.HMACSHA512, "RFC 4231", hmacVectors},
		{hsm.ECDSAP256, "NIST CAVP SigGen", signECVectors},
		{hsm.ECDSAP384, "NIST CAVP SigGen", signECVectors},
		{hsm.ECDSAP521, "NIST CAVP SigGen", signECVectors},
		{hsm.ECDSASecp256k1, "python3-cryptography", signECVectors},
		{hsm.Ed25519, "ed25519.cr.yp.to", ed25519Vectors},
		{hsm.RSA2048, "NIST CAVP SigVer15", rsaVectors},
		{hsm.RSA3072, "NIST CAVP SigVer15", rsaVectors},
		{hsm.RSA4096, "NIST CAVP SigVer15", rsaVectors},
		{hsm.RSA2048OAEP, "python3-cryptography", oaepVectors},
		{hsm.ECDHP256, "NIST CAVS KAS", ecdhVectors},
		{hsm.ECDHX25519, "RFC 7748", x25519Vectors},
		{hsm.MLDSA44, "NIST ACVP keyGen", mldsaVectors},
		{hsm.MLDSA65, "NIST ACVP keyGen", mldsaVectors},
		{hsm.MLDSA87, "NIST ACVP keyGen", mldsaVectors},
		{hsm.MLKEM768, "NIST ACVP keyGen, HPKE", mlkemVectors},
	} {
		if !r.can(c.alg) {
			continue
		}
		n := c.run(t, r, c.alg)
		t.Logf("%s: %d vectors (%s)", c.alg, n, c.from)
		if n == 0 {
			t.Errorf("no vectors for %s", c.alg)
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

// hmacVectors: RFC 4231. Keys shorter than a block are filled with zeros by HMAC itself (RFC 2104), so a shorter key may be filled to
// our length; longer ones do not exist here.
func hmacVectors(t *testing.T, r *rig, alg hsm.Algorithm) (n int) {
	bits := map[hsm.Algorithm]int{hsm.HMACSHA256: 256, hsm.HMACSHA384: 384, hsm.HMACSHA512: 512}[alg]
	for _, v := range records(t, fmt.Sprintf("rfc4231_sha%d.txt", bits)) {
		key := unhex(t, v["Key"])
		if len(key) > bits/8 {
			continue
		}
		n++
		mac := r.open(t, r.wrap(t, binding(alg), append(key, make([]byte, bits/8-len(key))...)))
		if got, err := mac.MAC(t.Context(), unhex(t, v["Msg"])); err != nil || !bytes.Equal(got, unhex(t, v["MD"])) {
			t.Errorf("%s, key %x: %x, %v", alg, key, got, err)
		}
		if err := mac.VerifyMAC(t.Context(), unhex(t, v["Msg"]), unhex(t, v["MD"])); err != nil {
			t.Errorf("%s, key %x: %v", alg, key, err)
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
