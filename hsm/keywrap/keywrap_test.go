package keywrap_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm/keywrap"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 5649 §6.
func TestRFC5649(t *testing.T) {
	kek := unhex(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for _, v := range []struct{ key, wrapped string }{
		{"c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		key, want := unhex(t, v.key), unhex(t, v.wrapped)
		got, err := keywrap.Wrap(kek, key)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Wrap(%s) = %x, %v; want %x", v.key, got, err, want)
		}
		back, err := keywrap.Unwrap(kek, want)
		if err != nil || !bytes.Equal(back, key) {
			t.Errorf("Unwrap(%s) = %x, %v; want %x", v.wrapped, back, err, key)
		}
	}
}

// vector is one record of a NIST CAVP response file.
type vector struct {
	count   string
	k, p, c []byte
	fail    bool
}

func vectors(t *testing.T, name string) []vector {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	for sc := bufio.NewScanner(z); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		key, value, _ := strings.Cut(line, " = ")
		switch key {
		case "COUNT":
			all = append(all, vector{count: value})
		case "K":
			all[len(all)-1].k = unhex(t, value)
		case "P":
			all[len(all)-1].p = unhex(t, value)
		case "C":
			all[len(all)-1].c = unhex(t, value)
		case "FAIL":
			all[len(all)-1].fail = true
		}
	}
	t.Logf("%s: %d vectors", name, len(all))
	if len(all) != 500 {
		t.Fatalf("%s holds %d vectors, there are 500", name, len(all))
	}
	return all
}

func TestCAVPWrapWithPadding(t *testing.T) {
	for _, v := range vectors(t, "KWP_AE_256.txt.gz") {
		got, err := keywrap.Wrap(v.k, v.p)
		if err != nil || !bytes.Equal(got, v.c) {
			t.Errorf("count %s: Wrap = %x, %v; want %x", v.count, got, err, v.c)
		}
	}
}

func TestCAVPUnwrapWithPadding(t *testing.T) {
	refused := 0
	for _, v := range vectors(t, "KWP_AD_256.txt.gz") {
		got, err := keywrap.Unwrap(v.k, v.c)
		if v.fail {
			refused++
			if !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
				t.Errorf("count %s: a blob that must fail gave %x, %v", v.count, got, err)
			}
		} else if err != nil || !bytes.Equal(got, v.p) {
			t.Errorf("count %s: Unwrap = %x, %v; want %x", v.count, got, err, v.p)
		}
	}
	if refused == 0 {
		t.Error("no vector that must be refused")
	}
}

// iv3394 is the initial value of RFC 3394, which has no padding.
const iv3394 = 0xA6A6A6A6A6A6A6A6

func TestCAVPWrapWithoutPadding(t *testing.T) {
	for _, v := range vectors(t, "KW_AE_256.txt.gz") {
		block, err := aes.NewCipher(v.k)
		if err != nil {
			t.Fatal(err)
		}
		buf := append(binary.BigEndian.AppendUint64(nil, iv3394), v.p...)
		keywrap.WrapW(block, buf)
		if !bytes.Equal(buf, v.c) {
			t.Errorf("count %s: W = %x, want %x", v.count, buf, v.c)
		}
	}
}

func TestCAVPUnwrapWithoutPadding(t *testing.T) {
	for _, v := range vectors(t, "KW_AD_256.txt.gz") {
		block, err := aes.NewCipher(v.k)
		if err != nil {
			t.Fatal(err)
		}
		buf := bytes.Clone(v.c)
		keywrap.UnwrapW(block, buf)
		ok := binary.BigEndian.Uint64(buf) == iv3394
		if ok == v.fail || ok && !bytes.Equal(buf[8:], v.p) {
			t.Errorf("count %s: inverse of W = %x, want %x (fail %v)", v.count, buf, v.p, v.fail)
		}
	}
}

// TestEveryLengthAndEveryByte: each length around the block sizes comes back, and one changed byte anywhere is refused.
func TestEveryLengthAndEveryByte(t *testing.T) {
	kek := bytes.Repeat([]byte{7}, 32)
	for n := 1; n <= 41; n++ {
		plain := bytes.Repeat([]byte{byte(n)}, n)
		blob, err := keywrap.Wrap(kek, plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := keywrap.Unwrap(kek, blob); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes came back as %x, %v", n, got, err)
		}
		for i := range blob {
			bad := bytes.Clone(blob)
			bad[i] ^= 1
			if _, err := keywrap.Unwrap(kek, bad); !errors.Is(err, keywrap.ErrUnwrap) {
				t.Errorf("%d bytes, byte %d changed: %v", n, i, err)
			}
		}
	}
}

// TestForgedInterior: whoever knows the key can make blobs whose interior is wrong in one way each. All are refused alike.
func TestForgedInterior(t *testing.T) {
	kek := bytes.Repeat([]byte{9}, 32)
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	for name, interior := range map[string]string{
		"initial value": "a65959a700000010" + "00112233445566778899aabbccddeeff",
		"length 0":      "a65959a600000000" + "00000000000000000000000000000000",
		"length short":  "a65959a600000008" + "00112233445566770000000000000000",
		"length long":   "a65959a600000011" + "00112233445566778899aabbccddeeff",
		"length huge":   "a65959a6ffffffff" + "00112233445566778899aabbccddeeff",
		"padding first": "a65959a60000000d" + "00112233445566778899aabbcc010000",
		"padding last":  "a65959a60000000d" + "00112233445566778899aabbcc000001",
	} {
		blob := unhex(t, interior)
		keywrap.WrapW(block, blob)
		if got, err := keywrap.Unwrap(kek, blob); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	kek := make([]byte, 32)
	for name, err := range map[string]error{
		"wrapping key": second(keywrap.Wrap(kek[:31], []byte{1})),
		"no key":       second(keywrap.Unwrap(nil, make([]byte, 24))),
		"empty":        second(keywrap.Wrap(kek, nil)),
		"too large":    second(keywrap.Wrap(kek, make([]byte, keywrap.MaxPlaintext+1))),
	} {
		if !errors.Is(err, keywrap.ErrInput) {
			t.Errorf("%s: %v, want ErrInput", name, err)
		}
	}
	for _, n := range []int{0, 1, 8, 15, 17, 23, keywrap.MaxPlaintext + 16} {
		if _, err := keywrap.Unwrap(kek, make([]byte, n)); !errors.Is(err, keywrap.ErrUnwrap) {
			t.Errorf("a blob of %d bytes: %v, want ErrUnwrap", n, err)
		}
	}
	if blob, err := keywrap.Wrap(kek, make([]byte, keywrap.MaxPlaintext)); err != nil {
		t.Errorf("the largest plaintext: %v", err)
	} else if got, err := keywrap.Unwrap(kek, blob); err != nil || len(got) != keywrap.MaxPlaintext {
		t.Errorf("the largest blob: %d bytes, %v", len(got), err)
	}
}

func second(_ []byte, err error) error { return err }

func FuzzUnwrapNeverPanics(f *testing.F) {
	f.Add(make([]byte, 32), make([]byte, 40))
	f.Add(make([]byte, 16), make([]byte, 16))
	f.Fuzz(func(t *testing.T, kek, blob []byte) {
		got, err := keywrap.Unwrap(kek, blob)
		if (err == nil) != (got != nil) {
			t.Fatalf("%x, %v", got, err)
		}
		if err == nil {
			again, err := keywrap.Wrap(kek, got)
			if err != nil || !bytes.Equal(again, blob) {
				t.Fatalf("an accepted blob is not canonical: %x, %v", again, err)
			}
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("k"))
	f.Add(make([]byte, 138))
	f.Fuzz(func(t *testing.T, plain []byte) {
		kek := bytes.Repeat([]byte{3}, 32)
		blob, err := keywrap.Wrap(kek, plain)
		if err != nil {
			if len(plain) > 0 && len(plain) <= keywrap.MaxPlaintext {
				t.Fatal(err)
			}
			return
		}
		if got, err := keywrap.Unwrap(kek, blob); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%x came back as %x, %v", plain, got, err)
		}
	})
}
