package hsm

import "slices"

// Algorithm is a key's algorithm together with its parameters and its one use (NIST SP 800-57 Part 1 Rev. 5 §5.2: a key has one), by
// the name users type.
type Algorithm string

// The algorithms of this release. Names are never reused for something else.
const (
	AES128GCM Algorithm = "aes-128-gcm"
	AES256GCM Algorithm = "aes-256-gcm"

	HMACSHA256 Algorithm = "hmac-sha256" // keys have the length of the hash's output: 32, 48 and 64 bytes
	HMACSHA384 Algorithm = "hmac-sha384"
	HMACSHA512 Algorithm = "hmac-sha512"

	ECDSAP256      Algorithm = "ecdsa-p256"
	ECDSAP384      Algorithm = "ecdsa-p384"
	ECDSAP521      Algorithm = "ecdsa-p521"
	ECDSASecp256k1 Algorithm = "ecdsa-secp256k1"
	Ed25519        Algorithm = "ed25519"

	RSA2048 Algorithm = "rsa-2048" // signature keys; public exponent 65537, here and below
	RSA3072 Algorithm = "rsa-3072"
	RSA4096 Algorithm = "rsa-4096"

	RSA2048OAEP Algorithm = "rsa-2048-oaep" // decryption keys: RSAES-OAEP with SHA-256 and MGF1 with SHA-256, no label (RFC 8017)
	RSA3072OAEP Algorithm = "rsa-3072-oaep"
	RSA4096OAEP Algorithm = "rsa-4096-oaep"

	ECDHP256   Algorithm = "ecdh-p256"
	ECDHX25519 Algorithm = "ecdh-x25519"

	MLDSA44  Algorithm = "ml-dsa-44"
	MLDSA65  Algorithm = "ml-dsa-65"
	MLDSA87  Algorithm = "ml-dsa-87"
	MLKEM768 Algorithm = "ml-kem-768"
)

// Family groups algorithms by what can be done with their keys.
type Family uint8

const (
	FamilyUnknown     Family = iota
	FamilyCipher             // encrypt, decrypt, data key
	FamilyMAC                // mac, verify-mac
	FamilySign               // sign, verify with the public key
	FamilyDecrypt            // decrypt; who encrypts needs the public key only (EncryptOAEP)
	FamilyAgree              // agree with a peer's public key on a shared secret
	FamilyDecapsulate        // decapsulate; who encapsulates needs the public key only (Encapsulate)
)

// properties is what is known of an algorithm.
type properties struct {
	name   Algorithm
	family Family
	// approved: a security function that FIPS 140-3 permits (SP 800-140C and D), by the standard named beside it.
	approved bool
}

// algorithms is the list in the order shown to users.
var algorithms = []properties{
	{AES128GCM, FamilyCipher, true},     // FIPS 197, SP 800-38D; nonces by its §8.2.2
	{AES256GCM, FamilyCipher, true},     // likewise
	{HMACSHA256, FamilyMAC, true},       // FIPS 198-1 with FIPS 180-4
	{HMACSHA384, FamilyMAC, true},       // likewise
	{HMACSHA512, FamilyMAC, true},       // likewise
	{ECDSAP256, FamilySign, true},       // FIPS 186-5 §6, SP 800-186 §3.2.1
	{ECDSAP384, FamilySign, true},       // likewise
	{ECDSAP521, FamilySign, true},       // likewise
	{ECDSASecp256k1, FamilySign, false}, // SP 800-186 App. H permits the curve to blockchains only; FIPS 186-5 does not name it
	{Ed25519, FamilySign, true},         // FIPS 186-5 §7
	{RSA2048, FamilySign, true},         // FIPS 186-5 §5
	{RSA3072, FamilySign, true},         // likewise
	{RSA4096, FamilySign, true},         // likewise
	{RSA2048OAEP, FamilyDecrypt, true},  // SP 800-56B Rev. 2 §7.2.2
	{RSA3072OAEP, FamilyDecrypt, true},  // likewise
	{RSA4096OAEP, FamilyDecrypt, true},  // likewise
	{ECDHP256, FamilyAgree, true},       // SP 800-56A Rev. 3 §5.7.1.2
	{ECDHX25519, FamilyAgree, false},    // RFC 7748; SP 800-56A Rev. 3 App. D does not name the curve
	{MLDSA44, FamilySign, true},         // FIPS 204
	{MLDSA65, FamilySign, true},         // likewise
	{MLDSA87, FamilySign, true},         // likewise
	{MLKEM768, FamilyDecapsulate, true}, // FIPS 203
}

var (
	byName = index(algorithms)
	names  = inOrder(algorithms)
)

func index(all []properties) map[Algorithm]properties {
	m := make(map[Algorithm]properties, len(all))
	for _, p := range all {
		m[p.name] = p
	}
	return m
}

func inOrder(all []properties) []Algorithm {
	out := make([]Algorithm, len(all))
	for i, p := range all {
		out[i] = p.name
	}
	return out
}

// Algorithms lists every known algorithm in the order shown to users.
func Algorithms() []Algorithm { return slices.Clone(names) }

// Known reports whether a is an algorithm of this release.
func (a Algorithm) Known() bool { return a.Family() != FamilyUnknown }

// Family says what keys of a are for; FamilyUnknown for an unknown algorithm.
func (a Algorithm) Family() Family { return byName[a].family }

// Asymmetric reports whether keys of a have a public half.
func (a Algorithm) Asymmetric() bool {
	switch a.Family() {
	case FamilySign, FamilyDecrypt, FamilyAgree, FamilyDecapsulate:
		return true
	}
	return false
}

// Approved reports whether a is a FIPS-approved algorithm, each by the standard named in the table above. It speaks of the algorithm:
// whether the module that computes it is validated is another question (FIPS 140-3), which Info.Library helps to answer.
func (a Algorithm) Approved() bool { return byName[a].approved }
