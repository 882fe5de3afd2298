package hsm_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

// Results that nobody here computed, for what needs no token.

// vectors splits a response file into records of lines "name = value", up to an empty line each.
func vectors(t *testing.T, name string) (all []map[string]string) {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	file, err := io.ReadAll(bufio.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(file)+"\n\n", "\n\n") {
		v := make(map[string]string)
		for line := range strings.SplitSeq(block, "\n") {
			if key, value, ok := strings.Cut(line, "="); ok && line[0] != '#' {
				v[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
		if len(v) > 1 {
			all = append(all, v)
		}
	}
	return all
}

// curves are those of the vectors, with the length of a coordinate in bytes.
var curves = []struct {
	alg          hsm.Algorithm
	size         int
	sigVer, keys string
}{
	{hsm.ECDSAP256, 32, "SigVer_P256_SHA256.rsp.gz", "PKV_P256.rsp"},
	{hsm.ECDSAP384, 48, "SigVer_P384_SHA384.rsp.gz", "PKV_P384.rsp"},
	{hsm.ECDSAP521, 66, "SigVer_P521_SHA512.rsp.gz", "PKV_P521.rsp"},
}

// Each file of one kind has as many.
const sigVers, publicKeys = 15, 12

// integer reads a number; the files drop leading zeros.
func integer(t *testing.T, s string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return n
}

// vectorKey encodes Qx and Qy. A coordinate that has more bits than the field stays longer than the field.
func vectorKey(t *testing.T, alg hsm.Algorithm, size int, v map[string]string) ([]byte, error) {
	t.Helper()
	point := []byte{4}
	for _, name := range []string{"Qx", "Qy"} {
		n := integer(t, v[name])
		point = append(point, n.FillBytes(make([]byte, max(size, (n.BitLen()+7)/8)))...)
	}
	return hsm.MarshalPublicKey(alg, point)
}

// verdicts counts, and fails if one of the two never occurs.
type verdicts struct{ good, bad int }

func (c *verdicts) add(t *testing.T, v map[string]string, got error) {
	t.Helper()
	pass := strings.HasPrefix(v["Result"], "P")
	if (got == nil) != pass {
		t.Errorf("Qx %.16s: %v, result %s", v["Qx"], got, v["Result"])
	}
	if pass {
		c.good++
	} else {
		c.bad++
	}
}

func (c *verdicts) report(t *testing.T, name string, all int) {
	t.Helper()
	t.Logf("%s: %d vectors, %d pass and %d fail", name, c.good+c.bad, c.good, c.bad)
	if c.good == 0 || c.bad == 0 || c.good+c.bad != all {
		t.Errorf("%s: vectors are missing, there are %d", name, all)
	}
}

// TestCAVPSigVer: NIST FIPS 186-3 signatures, each curve with the hash it has here.
func TestCAVPSigVer(t *testing.T) {
	for _, c := range curves {
		var count verdicts
		for _, v := range vectors(t, c.sigVer) {
			spki, err := vectorKey(t, c.alg, c.size, v)
			if err == nil { // a changed Q may lie off the curve: refused there
				in := hsm.SignInput{Message: unhex(t, v["Msg"])}
				err = hsm.Verify(c.alg, in, spki, der(t, integer(t, v["R"]), integer(t, v["S"])))
			}
			count.add(t, v, err)
		}
		count.report(t, c.sigVer, sigVers)
	}
}

// TestCAVPPublicKeys: NIST FIPS 186-3 PKV: coordinates out of range and points off the curve.
func TestCAVPPublicKeys(t *testing.T) {
	for _, c := range curves {
		var count verdicts
		for _, v := range vectors(t, c.keys) {
			_, err := vectorKey(t, c.alg, c.size, v)
			if err != nil && !errors.Is(err, hsm.ErrInput) {
				t.Error(err)
			}
			count.add(t, v, err)
		}
		count.report(t, c.keys, publicKeys)
	}
}

// TestRFC5869: the key derivation function under DeriveMaster, and that DeriveMaster is it: no salt, the label and its fields as info.
func TestRFC5869(t *testing.T) {
	all := append(vectors(t, "rfc5869_sha256.txt"), vectors(t, "hkdf_sha256_long.txt")...)
	for _, v := range all {
		length, err := strconv.Atoi(v["L"])
		if err != nil {
			t.Fatal(err)
		}
		got, err := hsm.DeriveKey(unhex(t, v["IKM"]), unhex(t, v["salt"]), string(unhex(t, v["info"])), length)
		if err != nil || !bytes.Equal(got, unhex(t, v["OKM"])) {
			t.Errorf("count %s: %x, %v; want %s", v["COUNT"], got, err, v["OKM"])
		}
	}
	t.Logf("HKDF with SHA-256: %d vectors", len(all))
	if len(all) != 4 {
		t.Errorf("%d vectors, there are 4", len(all))
	}
	m := derive(t, secret(), "c1", 7)
	info := binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint32([]byte("conclave/v1/bind\x00"), 2), "c1"...), 7)
	if want, err := hsm.DeriveKey(secret(), nil, string(info), 32); err != nil || !bytes.Equal(m.Bind, want) {
		t.Errorf("bind is %x, HKDF gives %x, %v", m.Bind, want, err)
	}
}
