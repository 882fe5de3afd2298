package ceremony

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/group"
)

// curve is P-384: its scalars give the three derived keys 192 bits of security, and it is the strongest of the NIST curves for
// which circl has a fast implementation.
var curve = group.P384

const (
	// SecretSize is the length of a scalar of P-384 in bytes, big endian.
	SecretSize = 48
	// EntropySize is what each side contributes to a genesis, in bytes: the strength of SHA-256 commitments.
	EntropySize = 32
)

const secretDomain = "conclave/v1/ceremony/secret"

// Secret is the master secret that custodians share: SecretSize bytes, a scalar of P-384 that is not zero. It lives between
// HashToSecret or Combine and the derivation of the master keys; whoever got it calls Wipe. It must not be put into an
// unexported field of a type that may be printed: fmt does not ask such fields.
type Secret []byte

// Wipe overwrites the secret; best effort, since the runtime may have copied it.
func (s Secret) Wipe() { clear(s) }

func (Secret) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, redacted) }
func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// HashToSecret mixes the dealing HSM's random with the custodians' entropies, in roster order, into a scalar (RFC 9380
// hash_to_field with expand_message_xmd over SHA-384). One good source among them is enough, and 72 expanded bytes are reduced,
// so the bias of the reduction is below 2^-192. transcript is EntropyTranscript: it ties the secret to one ceremony.
func HashToSecret(hsm []byte, entropies [][]byte, transcript [32]byte) (Secret, error) {
	if len(hsm) < EntropySize || len(entropies) == 0 {
		return nil, fmt.Errorf("%w: %d bytes of the HSM and %d contributions", ErrEntropy, len(hsm), len(entropies))
	}
	for i, e := range entropies {
		if len(e) != EntropySize {
			return nil, fmt.Errorf("%w: contribution %d has %d bytes, not %d", ErrEntropy, i+1, len(e), EntropySize)
		}
	}
	f := newFrame(secretDomain).bytes(hsm).list(entropies).bytes(transcript[:])
	defer clear(f)
	return encodeSecret(curve.HashToScalar(f, []byte(secretDomain)))
}

func encodeSecret(s group.Scalar) (Secret, error) {
	if s.IsZero() {
		// Zero would be shared as "no secret at all"; it cannot happen by chance.
		return nil, fmt.Errorf("%w: the secret is zero", ErrDeal)
	}
	return s.MarshalBinary()
}

// decodeScalar accepts one encoding per scalar: SecretSize bytes, below the group order.
func decodeScalar(b []byte) (group.Scalar, bool) {
	s := curve.NewScalar()
	if len(b) != SecretSize || s.UnmarshalBinary(b) != nil {
		return nil, false
	}
	return s, true
}
