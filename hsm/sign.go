package hsm

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
)

// MaxMessage bounds a message to sign or to MAC and a plaintext, in bytes. Larger data is hashed by the caller (Prehashed), or
// encrypted under a data key.
const MaxMessage = 1 << 20

// MaxAAD bounds the associated data of one encryption, in bytes: it is a context of names and values, no document.
const MaxAAD = 1 << 16

// Scheme names how a message becomes a signature.
type Scheme string

const (
	SchemeECDSASHA256 Scheme = "ecdsa-sha256" // FIPS 186-5 ECDSA over SHA-256, DER
	SchemeECDSASHA384 Scheme = "ecdsa-sha384"
	SchemeECDSASHA512 Scheme = "ecdsa-sha512"
	// secp256k1 only: r ‖ s ‖ v, 65 bytes: two integers of 32 bytes, big endian, s low, and the recovery id v in 0..3 (SEC 1 §4.1.6):
	// bit 0 is the parity of the nonce point's y, bit 1 tells that its x was not below the order. Ethereum's v is 27 more, or by EIP-155.
	SchemeECDSASHA256Recoverable Scheme = "ecdsa-sha256-recoverable"
	SchemeEd25519                Scheme = "ed25519" // RFC 8032 PureEdDSA
	// RFC 8017 RSASSA-PSS, MGF1 with the same hash, a salt of the hash's length.
	SchemeRSAPSSSHA256 Scheme = "rsa-pss-sha256"
	SchemeRSAPSSSHA384 Scheme = "rsa-pss-sha384"
	SchemeRSAPSSSHA512 Scheme = "rsa-pss-sha512"
	// RFC 8017 RSASSA-PKCS1-v1_5: for peers that know nothing newer.
	SchemeRSAPKCS1SHA256 Scheme = "rsa-pkcs1-sha256"
	SchemeRSAPKCS1SHA384 Scheme = "rsa-pkcs1-sha384"
	SchemeRSAPKCS1SHA512 Scheme = "rsa-pkcs1-sha512"
	// FIPS 204 ML-DSA.Sign, hedged: pure (no pre-hash), the empty context.
	SchemeMLDSA Scheme = "ml-dsa"
)

// SignInput is what is signed: exactly one of Message and Digest is used, by Prehashed.
type SignInput struct {
	Scheme    Scheme // empty: the algorithm's default
	Prehashed bool   // Digest holds the scheme's hash of the message; refused for ed25519 and ml-dsa
	Message   []byte
	Digest    []byte // as long as the scheme's hash: 32, 48 or 64 bytes
}

var (
	schemesRSA = []Scheme{
		SchemeRSAPSSSHA256, SchemeRSAPSSSHA384, SchemeRSAPSSSHA512, SchemeRSAPKCS1SHA256, SchemeRSAPKCS1SHA384, SchemeRSAPKCS1SHA512,
	}
	schemesMLDSA = []Scheme{SchemeMLDSA}
	// schemes: one hash for each NIST curve, the one of its strength (SP 800-57 Part 1 Rev. 5 §5.6.2): more would be choices without a use.
	schemes = map[Algorithm][]Scheme{
		ECDSAP256: {SchemeECDSASHA256}, ECDSAP384: {SchemeECDSASHA384}, ECDSAP521: {SchemeECDSASHA512},
		ECDSASecp256k1: {SchemeECDSASHA256, SchemeECDSASHA256Recoverable}, Ed25519: {SchemeEd25519},
		RSA2048: schemesRSA, RSA3072: schemesRSA, RSA4096: schemesRSA,
		MLDSA44: schemesMLDSA, MLDSA65: schemesMLDSA, MLDSA87: schemesMLDSA,
	}
)

// Schemes lists how keys of a sign, the default first; none if they do not sign.
func (a Algorithm) Schemes() []Scheme { return slices.Clone(schemes[a]) }

// Hash is the hash that s signs the digest of; 0 for a scheme that signs messages only.
func (s Scheme) Hash() crypto.Hash {
	switch s {
	case SchemeECDSASHA256, SchemeECDSASHA256Recoverable, SchemeRSAPSSSHA256, SchemeRSAPKCS1SHA256:
		return crypto.SHA256
	case SchemeECDSASHA384, SchemeRSAPSSSHA384, SchemeRSAPKCS1SHA384:
		return crypto.SHA384
	case SchemeECDSASHA512, SchemeRSAPSSSHA512, SchemeRSAPKCS1SHA512:
		return crypto.SHA512
	}
	return 0
}

// For is the scheme by which a key of alg signs in: the one named, or else the algorithm's default; "" if keys of alg do not sign.
func (in SignInput) For(alg Algorithm) Scheme {
	if all := schemes[alg]; in.Scheme == "" && len(all) != 0 {
		return all[0]
	}
	return in.Scheme
}

// Validate checks in against the limits and against alg. ErrUnsupported if keys of alg do not sign or not by this scheme;
// ErrInput for a message or digest that is not acceptable.
func (in SignInput) Validate(alg Algorithm) error {
	all := schemes[alg]
	if len(all) == 0 {
		return fmt.Errorf("%w: signing with %q", ErrUnsupported, alg)
	}
	scheme := in.For(alg)
	if !slices.Contains(all, scheme) {
		return fmt.Errorf("%w: scheme %q with %s, which has %s", ErrUnsupported, in.Scheme, alg, joinSchemes(all))
	}
	if in.Prehashed {
		return in.validateDigest(scheme)
	}
	if len(in.Digest) != 0 {
		return fmt.Errorf("%w: a digest beside a message that is to be hashed", ErrInput)
	}
	if len(in.Message) > MaxMessage {
		return fmt.Errorf("%w: a message of %d bytes, at most %d are; sign its digest", ErrInput, len(in.Message), MaxMessage)
	}
	return nil
}

func joinSchemes(all []Scheme) string {
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// validateDigest: ECDSA would cut a longer digest and pad a shorter one without a word, and a device may do either.
func (in SignInput) validateDigest(scheme Scheme) error {
	hash := scheme.Hash()
	switch {
	case hash == 0:
		return fmt.Errorf("%w: a digest for scheme %s, which signs messages only (RFC 8032, FIPS 204)", ErrInput, scheme)
	case len(in.Message) != 0:
		return fmt.Errorf("%w: a message beside a digest", ErrInput)
	case len(in.Digest) != hash.Size():
		return fmt.Errorf("%w: a digest of %d bytes, %s has %d", ErrInput, len(in.Digest), hash, hash.Size())
	}
	return nil
}

// Hash is the digest that scheme s signs: the given one, or that of Message; nil for a scheme that signs messages only.
func (in SignInput) Hash(s Scheme) []byte {
	hash := s.Hash()
	if in.Prehashed && hash != 0 {
		return in.Digest
	}
	switch hash {
	case crypto.SHA256:
		sum := sha256.Sum256(in.Message)
		return sum[:]
	case crypto.SHA384:
		sum := sha512.Sum384(in.Message)
		return sum[:]
	case crypto.SHA512:
		sum := sha512.Sum512(in.Message)
		return sum[:]
	}
	return nil
}

// SHA256 is the digest that a scheme over SHA-256 signs.
func (in SignInput) SHA256() []byte { return in.Hash(SchemeECDSASHA256) }
