//go:build cgo && unix

package pkcs11

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

const rsaExponent = 65537

// rsaPair is a key pair of so many bits. PKCS#8 has the modulus, both exponents, the primes and the numbers of the Chinese remainder theorem:
// nine halves of the modulus, some 60 bytes of structure, and a few less for each number that happens to be short.
func rsaPair(id hsm.Algorithm, name string, bits int) *algorithm {
	size := bits / 8 * 9 / 2
	return &algorithm{
		id: id, name: name, keyType: p11.CKK_RSA, generator: p11.CKM_RSA_PKCS_KEY_PAIR_GEN, generatorName: "CKM_RSA_PKCS_KEY_PAIR_GEN",
		bits:       bits,
		parameters: template{attr(p11.CKA_MODULUS_BITS, bits), attr(p11.CKA_PUBLIC_EXPONENT, big.NewInt(rsaExponent).Bytes())},
		minBlob:    size + 32, maxBlob: size + 112,
		public: readRSA,
	}
}

func rsaSigning(id hsm.Algorithm, bits int) *algorithm {
	a := rsaPair(id, fmt.Sprintf("RSA-%d", bits), bits)
	a.useName, a.uses, a.allowed = "CKM_RSA_PKCS_PSS and CKM_RSA_PKCS", []uint{p11.CKA_SIGN}, []uint{p11.CKM_RSA_PKCS_PSS, p11.CKM_RSA_PKCS}
	a.sign = func(f functions, w p11.SessionHandle, key p11.ObjectHandle, in hsm.SignInput, _ []byte) ([]byte, error) {
		return signRSA(f, w, key, in, in.For(id), bits/8)
	}
	return a
}

func rsaDecryption(id hsm.Algorithm, bits int) *algorithm {
	a := rsaPair(id, fmt.Sprintf("RSA-%d decryption", bits), bits)
	a.useName, a.uses, a.allowed = "CKM_RSA_PKCS_OAEP with SHA-256", []uint{p11.CKA_DECRYPT}, []uint{p11.CKM_RSA_PKCS_OAEP}
	a.decrypt = decryptOAEP
	return a
}

// readRSA gives the DER RSAPublicKey.
func readRSA(m *module, w p11.SessionHandle, o p11.ObjectHandle) ([]byte, error) {
	modulus, err := m.attribute(w, o, p11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	exponent, err := m.attribute(w, o, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(exponent)
	if !e.IsInt64() || e.Int64() != rsaExponent {
		return nil, fmt.Errorf("the device chose another public exponent than %d", rsaExponent)
	}
	return x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: rsaExponent}), nil
}

// rsaHash is what a hash is to RSA: everything of the DER DigestInfo before the digest (RFC 8017 §9.2, note 1), because CKM_RSA_PKCS pads
// what it is given, and the mechanisms of PSS.
type rsaHash struct {
	digestInfo string
	mechanism  uint
	mgf        uint
}

var rsaHashes = map[crypto.Hash]rsaHash{
	crypto.SHA256: {"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20", p11.CKM_SHA256, p11.CKG_MGF1_SHA256},
	crypto.SHA384: {"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30", p11.CKM_SHA384, p11.CKG_MGF1_SHA384},
	crypto.SHA512: {"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40", p11.CKM_SHA512, p11.CKG_MGF1_SHA512},
}

// signRSA signs the digest by the scheme: PSS with MGF1 over the same hash and a salt of its length, or PKCS #1 v1.5.
func signRSA(
	f functions, w p11.SessionHandle, key p11.ObjectHandle, in hsm.SignInput, scheme hsm.Scheme, size int,
) (signature []byte, err error) {
	hash, known := rsaHashes[scheme.Hash()]
	if !known {
		return nil, fmt.Errorf("%w: scheme %s", hsm.ErrUnsupported, scheme)
	}
	digest := in.Hash(scheme)
	pkcs1 := []hsm.Scheme{hsm.SchemeRSAPKCS1SHA256, hsm.SchemeRSAPKCS1SHA384, hsm.SchemeRSAPKCS1SHA512}
	if slices.Contains(pkcs1, scheme) {
		signature, err = f.sign(w, p11.CKM_RSA_PKCS, nil, key, append([]byte(hash.digestInfo), digest...), size)
	} else {
		pss := slices.Concat(ulong(hash.mechanism), ulong(hash.mgf), ulong(uint(len(digest)))) // CK_RSA_PKCS_PSS_PARAMS
		signature, err = f.sign(w, p11.CKM_RSA_PKCS_PSS, pss, key, digest, size)
	}
	if err == nil && len(signature) != size {
		return nil, errSignature
	}
	return signature, err
}

// decryptOAEP: SHA-256 with MGF1 over it, no label. SoftHSM up to 2.7.0 has OAEP with SHA-1 only, so there the probe finds it missing.
func decryptOAEP(m *module, w p11.SessionHandle, key p11.ObjectHandle, ciphertext []byte) ([]byte, error) {
	return m.oaep(w, p11.CKM_SHA256, p11.CKG_MGF1_SHA256, key, ciphertext)
}
