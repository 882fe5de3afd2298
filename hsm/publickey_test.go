package hsm_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

func TestPublicKeyForms(t *testing.T) {
	for _, s := range signatures(t) {
		public, err := hsm.ParsePublicKey(s.alg, s.spki)
		if err != nil || !bytes.Equal(marshal(t, s.alg, public), s.spki) {
			t.Errorf("%s: round trip: %x, %v", s.alg, public, err)
		}
		block, rest := pem.Decode([]byte(hsm.PublicKeyPEM(s.spki)))
		if block == nil || block.Type != "PUBLIC KEY" || !bytes.Equal(block.Bytes, s.spki) || len(rest) != 0 {
			t.Errorf("%s: PEM is %q", s.alg, hsm.PublicKeyPEM(s.spki))
		}
		if s.alg == hsm.ECDSASecp256k1 || strings.HasPrefix(string(s.alg), "ml-dsa") {
			continue // crypto/x509 does not know them
		}
		key, err := x509.ParsePKIXPublicKey(s.spki)
		if err != nil {
			t.Errorf("%s: crypto/x509: %v", s.alg, err)
		} else if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, s.spki) {
			t.Errorf("%s: crypto/x509 encodes %x, %v", s.alg, again, err)
		}
	}
}

func TestPublicKeyRefusals(t *testing.T) {
	for _, s := range signatures(t) {
		public, err := hsm.ParsePublicKey(s.alg, s.spki)
		if err != nil {
			t.Fatal(err)
		}
		head := len(s.spki) - len(public)
		if _, ok := rsaSizes[s.alg]; ok {
			head = rsaHead // the modulus: most changes of it make another modulus
		}
		for i := range s.spki[:head] {
			bad := bytes.Clone(s.spki)
			bad[i] ^= 1
			if _, err := hsm.ParsePublicKey(s.alg, bad); !errors.Is(err, hsm.ErrInput) {
				t.Errorf("%s, byte %d changed: %v", s.alg, i, err)
			}
		}
		for name, bad := range map[string][]byte{"empty": nil, "cut": s.spki[:len(s.spki)-1], "longer": append(bytes.Clone(s.spki), 0)} {
			if _, err := hsm.ParsePublicKey(s.alg, bad); !errors.Is(err, hsm.ErrInput) {
				t.Errorf("%s, %s: %v", s.alg, name, err)
			}
		}
	}
	_, err1 := hsm.MarshalPublicKey(hsm.AES256GCM, make([]byte, 32))
	_, err2 := hsm.ParsePublicKey("rsa-512", nil)
	if !errors.Is(err1, hsm.ErrUnsupported) || !errors.Is(err2, hsm.ErrUnsupported) {
		t.Errorf("algorithms without public keys: %v, %v", err1, err2)
	}
}

// TestPointRefusals: other forms of a point, and points that are none.
func TestPointRefusals(t *testing.T) {
	for _, s := range curveSignatures(t) {
		if s.order == nil {
			continue
		}
		p, err := hsm.ParsePublicKey(s.alg, s.spki)
		if err != nil {
			t.Fatal(err)
		}
		size := len(p) / 2
		flipped := bytes.Clone(p)
		flipped[len(p)-1] ^= 1
		for name, point := range map[string][]byte{
			"compressed": append([]byte{2 | p[len(p)-1]&1}, p[1:1+size]...), "hybrid": append([]byte{6 | p[len(p)-1]&1}, p[1:]...), "infinity": {0},
			"off the curve": flipped, "zeros": append([]byte{4}, make([]byte, 2*size)...), "x alone": p[1 : 1+size], "no form": p[1:],
			"x not reduced": append(append([]byte{4}, bytes.Repeat([]byte{0xff}, size)...), p[1+size:]...),
			"y not reduced": append(bytes.Clone(p[:1+size]), bytes.Repeat([]byte{0xff}, size)...),
			"longer":        append([]byte{4, 0}, p[1:]...),
		} {
			if _, err := hsm.MarshalPublicKey(s.alg, point); !errors.Is(err, hsm.ErrInput) {
				t.Errorf("%s, %s: %v", s.alg, name, err)
			}
		}
	}
}

// FuzzParsePublicKeyIsTotal: peers send public keys. Whatever they send is refused or has one encoding, of one algorithm's family.
func FuzzParsePublicKeyIsTotal(f *testing.F) {
	for i := range hsm.Algorithms() {
		f.Add(uint8(i), []byte(nil))
		f.Add(uint8(i), []byte("\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00 thirty-two bytes of a public key"))
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	point, err := hsm.MarshalPublicKey(hsm.ECDHP256, key.PublicKey().Bytes())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(slices.Index(hsm.Algorithms(), hsm.ECDHP256)), point)
	f.Fuzz(func(t *testing.T, which uint8, spki []byte) {
		alg := hsm.Algorithms()[int(which)%len(hsm.Algorithms())]
		public, err := hsm.ParsePublicKey(alg, spki)
		if err != nil {
			if !errors.Is(err, hsm.ErrInput) && !errors.Is(err, hsm.ErrUnsupported) || public != nil {
				t.Errorf("%s: %x, %v", alg, public, err)
			}
			return
		}
		if again, err := hsm.MarshalPublicKey(alg, public); err != nil || !bytes.Equal(again, spki) {
			t.Errorf("%s: %x is encoded as %x, %v", alg, spki, again, err)
		}
	})
}
