package hsm_test

import (
	"bytes"

	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"

	"encoding/asn1"
	"encoding/hex"

	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/conclave-vault/conclave/hsm"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// der is BER-free only if the caller gives it minimal integers: math/big does.
func der(t testing.TB, r, s *big.Int) []byte {
	t.Helper()
	b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signed is a signature that verifies, and what is needed to spoil it.
type signed struct {
	alg       hsm.Algorithm
	in        hsm.SignInput
	spki, sig []byte
	order     *big.Int // of the curve; nil for ed25519
}

func signatures(t testing.TB) []signed {
	t.Helper()
	all := append(curveSignatures(t), rsaSignatures(t)...)
	return append(all, mldsaSignatures(t)...)
}

// curveSignatures: those by ECDSA in DER come first.
func curveSignatures(t testing.TB) (all []signed) {
	t.Helper()
	message := []byte("message")
	in := hsm.SignInput{Message: message}
	for alg, curve := range map[hsm.Algorithm]elliptic.Curve{
		hsm.ECDSAP256: elliptic.P256(), hsm.ECDSAP384: elliptic.P384(), hsm.ECDSAP521: elliptic.P521(),
	} {
		key, err1 := ecdsa.GenerateKey(curve, rand.Reader)
		point, err2 := key.PublicKey.Bytes()
		sig, err3 := ecdsa.SignASN1(rand.Reader, key, in.Hash(in.For(alg)))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		all = append(all, signed{alg, in, marshal(t, alg, point), sig, curve.Params().N})
	}
	k1, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k1spki := marshal(t, hsm.ECDSASecp256k1, k1.PubKey().SerializeUncompressed())
	compact := k1ecdsa.SignCompact(k1, in.SHA256(), false)
	return append(all,
		signed{hsm.ECDSASecp256k1, in, k1spki, k1ecdsa.Sign(k1, in.SHA256()).Serialize(), secp256k1.Params().N},
		signed{hsm.ECDSASecp256k1, hsm.SignInput{Scheme: hsm.SchemeECDSASHA256Recoverable, Message: message}, k1spki,
			append(compact[1:], compact[0]-27), nil},
		signed{hsm.Ed25519, in, marshal(t, hsm.Ed25519, public), ed25519.Sign(private, message), nil})
}

func mldsaSignatures(t testing.TB) (all []signed) {
	t.Helper()
	in := hsm.SignInput{Message: []byte("message")}
	for alg, scheme := range map[hsm.Algorithm]sign.Scheme{
		hsm.MLDSA44: mldsa44.Scheme(), hsm.MLDSA65: mldsa65.Scheme(), hsm.MLDSA87: mldsa87.Scheme(),
	} {
		public, private, err := scheme.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := public.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, signed{alg, in, marshal(t, alg, encoded), scheme.Sign(private, in.Message, nil), nil})
	}
	return all
}

// TestMLDSAContext: a signature for another context, or one over a digest, is another signature.
func TestMLDSAContext(t *testing.T) {
	public, private, err := mldsa44.Scheme().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := public.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	in := hsm.SignInput{Message: []byte("m")}
	s := signed{hsm.MLDSA44, in, marshal(t, hsm.MLDSA44, encoded), nil, nil}
	refused(t, "a context", s, mldsa44.Scheme().Sign(private, in.Message, &sign.SignatureOpts{Context: "c"}))
	refused(t, "a digest", s, mldsa44.Scheme().Sign(private, in.SHA256(), nil))
}

func marshal(t testing.TB, alg hsm.Algorithm, public []byte) []byte {
	t.Helper()
	spki, err := hsm.MarshalPublicKey(alg, public)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func refused(t *testing.T, what string, s signed, sig []byte) {
	t.Helper()
	if err := hsm.Verify(s.alg, s.in, s.spki, sig); err != hsm.ErrVerify { // not errors.Is: no words that tell causes apart
		t.Errorf("%s, %s: %v", s.alg, what, err)
	}
}

// TestVerifyRefuses: one error, without a word about the cause, for everything but the signature itself.
func TestVerifyRefuses(t *testing.T) {
	for _, s := range signatures(t) {
		if err := hsm.Verify(s.alg, s.in, s.spki, s.sig); err != nil {
			t.Errorf("%s: %v", s.alg, err)
		}
		refused(t, "no signature", s, nil)
		refused(t, "a byte behind", s, append(bytes.Clone(s.sig), 0))
		refused(t, "cut", s, s.sig[:len(s.sig)-1])
		for i := 0; i < len(s.sig); i += 1 + len(s.sig)/200 {
			bad := bytes.Clone(s.sig)
			bad[i] ^= 1
			refused(t, "a changed byte", s, bad)
		}
		other := s
		other.in.Message = []byte("massage")
		refused(t, "another message", other, s.sig)
		other = s
		other.spki = s.spki[:len(s.spki)-1]
		refused(t, "no key", other, s.sig)
		other = s
		other.in.Scheme = "rot13"
		refused(t, "no scheme", other, s.sig)
		other = s
		other.alg = hsm.AES256GCM
		refused(t, "an algorithm that does not sign", other, s.sig)
	}
}

// TestVerifyECDSARange: r and s outside [1, n-1], other encodings of the same numbers, and on secp256k1 the high s.
func TestVerifyECDSARange(t *testing.T) {
	for _, s := range signatures(t) {
		if s.order == nil {
			continue
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(s.sig, &rs); err != nil {
			t.Fatal(err)
		}
		zero, n := new(big.Int), s.order
		above := func(x *big.Int) *big.Int { return new(big.Int).Add(x, n) }
		for what, sig := range map[string][]byte{
			"r = 0": der(t, zero, rs.S), "s = 0": der(t, rs.R, zero), "both 0": der(t, zero, zero), "r = n": der(t, n, rs.S), "s = n": der(t, rs.R, n),
			"r + n": der(t, above(rs.R), rs.S), "s + n": der(t, rs.R, above(rs.S)),
			"-r": der(t, new(big.Int).Neg(rs.R), rs.S), "-s": der(t, rs.R, new(big.Int).Neg(rs.S)),
			"a long length":  longLength(s.sig),
			"a leading zero": padded(rs.R, rs.S), "oversized": der(t, new(big.Int).Lsh(rs.R, 4096), rs.S),
			"nothing inside": {0x30, 0}, "one number": {0x30, 3, 2, 1, 1}, "an indefinite length": append([]byte{0x30, 0x80}, append(bytes.Clone(s.sig[2:]), 0, 0)...),
		} {
			refused(t, what, s, sig)
		}
		high := der(t, rs.R, new(big.Int).Sub(n, rs.S))
		err := hsm.Verify(s.alg, s.in, s.spki, high)
		if taken := err == nil; taken != (s.alg != hsm.ECDSASecp256k1) {
			t.Errorf("%s, (r, n-s): %v; FIPS 186 takes it on its curves, ledgers refuse it on secp256k1", s.alg, err)
		}
	}
}

// longLength gives the sequence a length in one byte more than DER permits.
func longLength(sig []byte) []byte {
	if sig[1] == 0x81 {
		return append([]byte{0x30, 0x82, 0, sig[2]}, sig[3:]...)
	}
	return append([]byte{0x30, 0x81, sig[1]}, sig[2:]...)
}

// padded encodes r with a zero byte more than DER permits.
func padded(r, s *big.Int) []byte {
	rb, sb := append([]byte{0, 0}, r.Bytes()...), append([]byte{0}, s.Bytes()...)
	body := append([]byte{2, byte(len(rb))}, rb...)
	body = append(append(body, 2, byte(len(sb))), sb...)
	if len(body) > 127 {
		return append([]byte{0x30, 0x81, byte(len(body))}, body...)
	}
	return append([]byte{0x30, byte(len(body))}, body...)
}

// TestVerifyRecoverableRange: r and s outside [1, n-1], a high s, a recovery id out of range or of the other points.
func TestVerifyRecoverableRange(t *testing.T) {
	all := curveSignatures(t)
	i := slices.IndexFunc(all, func(s signed) bool { return s.in.Scheme != "" })
	s := all[i]
	n := secp256k1.Params().N
	with := func(r, x *big.Int, v byte) []byte {
		return append(append(r.FillBytes(make([]byte, 32)), x.FillBytes(make([]byte, 32))...), v)
	}
	r, x, v := new(big.Int).SetBytes(s.sig[:32]), new(big.Int).SetBytes(s.sig[32:64]), s.sig[64]
	if err := hsm.Verify(s.alg, s.in, s.spki, with(r, x, v)); err != nil {
		t.Fatal(err)
	}
	zero := new(big.Int)
	for what, sig := range map[string][]byte{
		"r = 0": with(zero, x, v), "s = 0": with(r, zero, v), "r = n": with(n, x, v), "s = n": with(r, n, v),
		"s high": with(r, new(big.Int).Sub(n, x), v), "s high, other parity": with(r, new(big.Int).Sub(n, x), v^1),
		"the other parity": with(r, x, v^1), "the other overflow": with(r, x, v^2), "both": with(r, x, v^3), "27": with(r, x, v+27), "255": with(r, x, 255),
		"DER": all[i-1].sig, "64 bytes": s.sig[:64], "v in front": append([]byte{v}, s.sig[:64]...),
	} {
		refused(t, what, s, sig)
	}
	s.in.Scheme = ""
	refused(t, "by the other scheme", s, s.sig)
}

// FuzzVerifyIsStrict: Verify never panics, and of all encodings of a signature takes only the one that was made.
func FuzzVerifyIsStrict(f *testing.F) {
	all := signatures(f)
	for i, s := range all {
		f.Add(uint8(i), s.spki, s.sig)
	}
	f.Fuzz(func(t *testing.T, which uint8, spki, sig []byte) {
		s := all[int(which)%len(all)]
		if hsm.Verify(s.alg, s.in, spki, sig) == nil && !malleable(s.alg) &&
			bytes.Equal(spki, s.spki) && !bytes.Equal(sig, s.sig) {
			t.Fatalf("%s: a second signature verifies: %x", s.alg, sig)
		}
		if public, err := hsm.ParsePublicKey(s.alg, spki); err == nil {
			if again, err := hsm.MarshalPublicKey(s.alg, public); err != nil || !bytes.Equal(again, spki) {
				t.Fatalf("%s: an accepted key is not canonical: %x", s.alg, spki)
			}
		}
	})
}

// malleable: (r, n-s) verifies too.
func malleable(alg hsm.Algorithm) bool {
	return alg == hsm.ECDSAP256 || alg == hsm.ECDSAP384 || alg == hsm.ECDSAP521
}
