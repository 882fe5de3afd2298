package keywrap_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm/keywrap"
)

func p256(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestCAVPX963KDF: one block and several, with shared information and without.
func TestCAVPX963KDF(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "ansx963_SHA256.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	fields, tried := map[string]string{}, 0
	for lines := bufio.NewScanner(z); lines.Scan(); {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " =")
		fields[name] = strings.TrimSpace(value)
		if name != "key_data" {
			continue
		}
		want := unhex(t, fields["key_data"])
		if got := keywrap.X963KDF(unhex(t, fields["Z"]), unhex(t, fields["SharedInfo"]), len(want)); !bytes.Equal(got, want) {
			t.Errorf("Z = %s: %x, want %x", fields["Z"], got, want)
		}
		tried++
	}
	if tried != 20 {
		t.Errorf("%d vectors, 20 are there", tried)
	}
}

// TestSharedInfoIsRFC5753s: encoded by another hand from the definition in RFC 5753 §7.2.
func TestSharedInfoIsRFC5753s(t *testing.T) {
	var info struct {
		KeyInfo     struct{ Algorithm asn1.ObjectIdentifier }
		SuppPubInfo []byte `asn1:"explicit,tag:2"`
	}
	info.KeyInfo.Algorithm = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 48} // id-aes256-wrap-pad, RFC 5649 §6
	info.SuppPubInfo = []byte{0, 0, 1, 0}
	if want, err := asn1.Marshal(info); err != nil || !bytes.Equal(keywrap.SharedInfo, want) {
		t.Errorf("%x, want %x (%v)", keywrap.SharedInfo, want, err)
	}
}

func TestWrapECDH(t *testing.T) {
	key := p256(t)
	for _, n := range []int{1, 8, 32, 121, 2376} {
		secret := bytes.Repeat([]byte{5}, n)
		wrapped, err := keywrap.WrapECDH(key.PublicKey(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := keywrap.UnwrapECDH(key, wrapped); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d bytes come back as %x, %v", n, got, err)
		}
		for i := range wrapped {
			if i%37 != 0 && i != len(wrapped)-1 {
				continue
			}
			damaged := bytes.Clone(wrapped)
			damaged[i] ^= 0x10
			if got, err := keywrap.UnwrapECDH(key, damaged); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
				t.Errorf("%d bytes, byte %d damaged: %x, %v", n, i, got, err)
			}
		}
	}
	if _, err := keywrap.WrapECDH(key.PublicKey(), nil); !errors.Is(err, keywrap.ErrInput) {
		t.Errorf("nothing is wrapped: %v", err)
	}
}

// TestAnotherHandUnwraps: from the description, with x of the shared point by other arithmetic than crypto/ecdh's.
func TestAnotherHandUnwraps(t *testing.T) {
	key, secret := p256(t), bytes.Repeat([]byte{9}, 40)
	wrapped, err := keywrap.WrapECDH(key.PublicKey(), secret)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 other arithmetic is the point
	x, y := elliptic.Unmarshal(elliptic.P256(), wrapped[:65])
	//lint:ignore SA1019 likewise
	x, _ = elliptic.P256().ScalarMult(x, y, key.Bytes())
	info, err := hex.DecodeString("3015300b060960864801650304013" + "0a206040400000100")
	if err != nil {
		t.Fatal(err)
	}
	kek := sha256.Sum256(append(append(x.FillBytes(make([]byte, 32)), 0, 0, 0, 1), info...))
	if got, err := keywrap.Unwrap(kek[:], wrapped[65:]); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%x, %v", got, err)
	}
}

// TestUnwrapECDHIsStrict about the point: another form, off the curve, infinity, another curve, not reduced.
func TestUnwrapECDHIsStrict(t *testing.T) {
	key := p256(t)
	good, err := keywrap.WrapECDH(key.PublicKey(), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	point, inner := good[:65], good[65:]
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	hybrid := append([]byte{6 + point[64]&1}, point[1:]...)
	offCurve := append([]byte{4}, bytes.Repeat([]byte{1}, 64)...)
	large := append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...)
	for what, wrapped := range map[string][]byte{
		"nothing": nil, "a point alone": point, "a compressed point": append(compressed, inner...), "a hybrid point": append(hybrid, inner...),
		"a point off the curve": append(offCurve, inner...), "coordinates above p": append(large, inner...),
		"infinity": append(make([]byte, 65), inner...), "one byte more": append(bytes.Clone(good), 0), "a tail cut off": good[:len(good)-8],
	} {
		if got, err := keywrap.UnwrapECDH(key, wrapped); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
	other, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keywrap.UnwrapECDH(other, good); !errors.Is(err, keywrap.ErrUnwrap) {
		t.Errorf("with a key on P-384: %v", err)
	}
	if _, err := keywrap.WrapECDH(other.PublicKey(), make([]byte, 32)); !errors.Is(err, keywrap.ErrInput) {
		t.Errorf("to a key on P-384: %v", err)
	}
}

// FuzzUnwrapECDH: no bytes bring it down, and none that nobody wrapped open.
func FuzzUnwrapECDH(f *testing.F) {
	key := p256(f)
	good, err := keywrap.WrapECDH(key.PublicKey(), make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, make([]byte, 65), good[:65], good[:len(good)-8], good[1:], append([]byte{4}, good...)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := keywrap.UnwrapECDH(key, data); !errors.Is(err, keywrap.ErrUnwrap) || got != nil {
			t.Errorf("%x opens as %x, %v", data, got, err)
		}
	})
}
