package ceremony

import (
	"crypto/rand"
	"crypto/sha3"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"github.com/conclave-vault/conclave/fsm"
)

// MaxCustodians bounds the number of shares as fsm bounds rosters: one share for each custodian.
const MaxCustodians = fsm.MaxCustodians

// CommitmentSize is the length of a Feldman commitment: a compressed point of P-384.
const CommitmentSize = 1 + SecretSize

const dealDomain = "conclave/v1/ceremony/deal"

// Deal splits secret into n shares, of which any threshold recover it and fewer tell nothing, and commits to the polynomial with
// threshold points (Feldman's verifiable secret sharing). Share i+1 is at index i. The commitments hide the secret
// computationally only.
func Deal(secret []byte, threshold, n int) ([]Share, [][]byte, error) {
	if threshold < 1 || threshold > n || n > MaxCustodians {
		return nil, nil, fmt.Errorf("%w: %d of %d shares, at most %d", ErrDeal, threshold, n, MaxCustodians)
	}
	s, ok := decodeScalar(secret)
	if !ok || s.IsZero() {
		return nil, nil, fmt.Errorf("%w: the secret is not a scalar of P-384", ErrDeal)
	}
	// circl counts the shares that are useless together: its t is threshold − 1.
	sharing := secretsharing.New(coefficients(secret), uint(threshold-1), s)
	commitments, err := encodeCommitments(sharing.CommitSecret())
	if err != nil {
		return nil, nil, err
	}
	if len(commitments) != threshold {
		// A leading coefficient of zero would lower the threshold; it cannot happen by chance.
		return nil, nil, fmt.Errorf("%w: the polynomial has %d coefficients, not %d", ErrDeal, len(commitments), threshold)
	}
	shares, err := encodeShares(sharing.Share(uint(n)))
	return shares, commitments, err
}

// coefficients is the source of the polynomial: the system's random, hedged with the secret. With the system's random alone, a
// bad generator on the dealing node would let a single share reveal the secret, however well the secret itself was mixed.
func coefficients(secret []byte) *sha3.SHAKE {
	var fresh [EntropySize]byte
	_, _ = rand.Read(fresh[:]) // never fails (crypto/rand)
	f := newFrame(dealDomain).bytes(secret).bytes(fresh[:])
	defer clear(f)
	defer clear(fresh[:])
	x := sha3.NewSHAKE256()
	_, _ = x.Write(f) // a hash never fails
	return x
}

func encodeCommitments(points []group.Element) ([][]byte, error) {
	out := make([][]byte, len(points))
	for i, p := range points {
		b, err := p.MarshalBinaryCompress()
		if err != nil {
			return nil, fmt.Errorf("%w: commitment %d: %w", ErrDeal, i, err)
		}
		out[i] = b
	}
	return out, nil
}

func encodeShares(dealt []secretsharing.Share) ([]Share, error) {
	out := make([]Share, len(dealt))
	for i, d := range dealt {
		b, err := d.Value.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("%w: share %d: %w", ErrDeal, i+1, err)
		}
		out[i] = newShare(uint16(i+1), b)
		clear(b)
	}
	return out, nil
}

// CheckCommitments tells whether commitments are those of a deal with this threshold: as many points of P-384, compressed, none
// at infinity.
func CheckCommitments(commitments [][]byte, threshold int) error {
	_, err := decodeCommitments(commitments, threshold)
	return err
}

func decodeCommitments(commitments [][]byte, threshold int) ([]group.Element, error) {
	if threshold < 1 || threshold > MaxCustodians || len(commitments) != threshold {
		return nil, fmt.Errorf("%w: %d commitments for a threshold of %d", ErrDeal, len(commitments), threshold)
	}
	points := make([]group.Element, len(commitments))
	for i, c := range commitments {
		// The length leaves out the uncompressed form and the point at infinity: one encoding per commitment.
		p := curve.NewElement()
		if len(c) != CommitmentSize || p.UnmarshalBinary(c) != nil || p.IsIdentity() {
			return nil, fmt.Errorf("%w: commitment %d is not a compressed point of P-384", ErrDeal, i)
		}
		points[i] = p
	}
	return points, nil
}

// Verify tells whether the share lies on the polynomial that the commitments belong to.
func (s Share) Verify(commitments [][]byte, threshold int) error {
	points, err := decodeCommitments(commitments, threshold)
	if err != nil {
		return err
	}
	_, err = s.verify(points)
	return err
}

// verify is Verify on decoded points; it returns the share as circl wants it.
func (s Share) verify(points []group.Element) (secretsharing.Share, error) {
	bad := fmt.Errorf("%w: share %d", ErrShare, s.Number)
	if s.value == nil || s.Number == 0 || s.Number > MaxCustodians {
		return secretsharing.Share{}, bad
	}
	value, ok := decodeScalar(s.value.scalar[:])
	if !ok {
		return secretsharing.Share{}, bad
	}
	share := secretsharing.Share{ID: curve.NewScalar().SetUint64(uint64(s.Number)), Value: value}
	if !secretsharing.Verify(uint(len(points)-1), share, points) {
		return secretsharing.Share{}, bad
	}
	return share, nil
}

// Combine recovers the secret from threshold or more different shares. Every share is verified first, so that a bad one is
// named, and the result is checked against the commitment to the secret.
func Combine(shares []Share, commitments [][]byte, threshold int) (Secret, error) {
	points, err := decodeCommitments(commitments, threshold)
	if err != nil {
		return nil, err
	}
	verified, err := verifyAll(shares, points)
	if err != nil {
		return nil, err
	}
	if len(verified) < threshold {
		return nil, fmt.Errorf("%w: %d of the %d needed", ErrTooFewShares, len(verified), threshold)
	}
	secret, err := secretsharing.Recover(uint(threshold-1), verified)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShare, err)
	}
	if !curve.NewElement().MulGen(secret).IsEqual(points[0]) {
		return nil, fmt.Errorf("%w: the recovered secret does not match its commitment", ErrShare)
	}
	return encodeSecret(secret)
}

func verifyAll(shares []Share, points []group.Element) ([]secretsharing.Share, error) {
	seen := make(map[uint16]bool, len(shares))
	out := make([]secretsharing.Share, 0, len(shares))
	for _, s := range shares {
		if seen[s.Number] {
			return nil, fmt.Errorf("%w: share %d", ErrDuplicateShare, s.Number)
		}
		seen[s.Number] = true
		v, err := s.verify(points)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
