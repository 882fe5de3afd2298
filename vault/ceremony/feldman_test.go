package ceremony_test

import (
	"bytes"
	"errors"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/vault/ceremony"
)

func subset(shares []ceremony.Share, mask int) []ceremony.Share {
	var out []ceremony.Share
	for i, s := range shares {
		if mask&(1<<i) != 0 {
			out = append(out, s)
		}
	}
	return out
}

// Every subset of up to five shares: at the threshold and above it recovers, below it never does.
func TestCombineAllSubsets(t *testing.T) {
	for n := 1; n <= 5; n++ {
		for threshold := 1; threshold <= n; threshold++ {
			secret := newSecret(t)
			shares, commitments := deal(t, secret, threshold, n)
			for mask := range 1 << n {
				got, err := ceremony.Combine(subset(shares, mask), commitments, threshold)
				switch enough := bits.OnesCount(uint(mask)) >= threshold; {
				case enough && (err != nil || !bytes.Equal(got, secret)):
					t.Fatalf("%d of %d, subset %b: %v", threshold, n, mask, err)
				case !enough && (got != nil || !errors.Is(err, ceremony.ErrTooFewShares)):
					t.Fatalf("%d of %d, subset %b: got %v, want ErrTooFewShares", threshold, n, mask, err)
				}
			}
		}
	}
}

// One share less than the threshold does not determine the secret: interpolating as if they were enough gives another value.
func TestOneShareTooFewInterpolatesToAnotherSecret(t *testing.T) {
	secret := newSecret(t)
	shares, _ := deal(t, secret, 3, 5)
	var raw []secretsharing.Share
	for _, s := range shares[:2] {
		v := group.P384.NewScalar()
		if err := v.UnmarshalBinary(s.Encode()[2:]); err != nil {
			t.Fatal(err)
		}
		raw = append(raw, secretsharing.Share{ID: group.P384.NewScalar().SetUint64(uint64(s.Number)), Value: v})
	}
	got, err := secretsharing.Recover(1, raw)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := got.MarshalBinary(); bytes.Equal(b, secret) {
		t.Fatal("two shares of a 3-of-5 deal interpolate to the secret")
	}
}

func TestDealProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		threshold := rapid.IntRange(1, n).Draw(t, "threshold")
		entropy := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "entropy")
		secret, err := ceremony.HashToSecret(entropy, [][]byte{entropy}, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		shares, commitments, err := ceremony.Deal(secret, threshold, n)
		if err != nil || len(shares) != n || len(commitments) != threshold {
			t.Fatalf("%d shares, %d commitments, %v", len(shares), len(commitments), err)
		}
		for i, s := range shares {
			again, err := ceremony.DecodeShare(s.Encode())
			if err != nil || again.Number != uint16(i+1) || again.Verify(commitments, threshold) != nil {
				t.Fatalf("share %d: %v", i+1, err)
			}
		}
		order := rapid.Permutation(shares).Draw(t, "order")
		got, err := ceremony.Combine(order[:rapid.IntRange(threshold, n).Draw(t, "given")], commitments, threshold)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("combining: %v", err)
		}
	})
}

// Whatever bit of a share is turned, it is refused, and Combine names its number.
func TestTamperedShareIsNamed(t *testing.T) {
	shares, commitments := deal(t, newSecret(t), 2, 3)
	rapid.Check(t, func(t *rapid.T) {
		b := shares[1].Encode()
		bit := rapid.IntRange(0, len(b)*8-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		bad, err := ceremony.DecodeShare(b)
		if err != nil {
			if !errors.Is(err, ceremony.ErrShare) {
				t.Fatal(err)
			}
			return
		}
		if err := bad.Verify(commitments, 2); !errors.Is(err, ceremony.ErrShare) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		_, err = ceremony.Combine([]ceremony.Share{bad}, commitments, 2)
		if !errors.Is(err, ceremony.ErrShare) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	})
	b := shares[1].Encode()
	b[20] ^= 1
	bad, err := ceremony.DecodeShare(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ceremony.Combine([]ceremony.Share{shares[0], bad}, commitments, 2); err == nil || !strings.Contains(err.Error(), "share 2") {
		t.Fatalf("the bad share is not named: %v", err)
	}
}

func TestCombineRefuses(t *testing.T) {
	shares, commitments := deal(t, newSecret(t), 2, 3)
	foreign, foreignCommitments := deal(t, newSecret(t), 2, 3)
	infinity := [][]byte{commitments[0], {0}}
	offCurve := [][]byte{commitments[0], append([]byte{2}, bytes.Repeat([]byte{0xff}, 48)...)}
	for name, c := range map[string]struct {
		shares      []ceremony.Share
		commitments [][]byte
		threshold   int
		want        error
	}{
		"duplicate":           {[]ceremony.Share{shares[0], shares[0]}, commitments, 2, ceremony.ErrDuplicateShare},
		"of another deal":     {[]ceremony.Share{shares[0], foreign[1]}, commitments, 2, ceremony.ErrShare},
		"zero share":          {[]ceremony.Share{{}}, commitments, 2, ceremony.ErrShare},
		"foreign commitments": {shares[:2], foreignCommitments, 2, ceremony.ErrShare},
		"no commitments":      {shares, nil, 2, ceremony.ErrDeal},
		"other threshold":     {shares, commitments, 3, ceremony.ErrDeal},
		"no threshold":        {shares, nil, 0, ceremony.ErrDeal},
		"point at infinity":   {shares, infinity, 2, ceremony.ErrDeal},
		"no point":            {shares, offCurve, 2, ceremony.ErrDeal},
	} {
		if got, err := ceremony.Combine(c.shares, c.commitments, c.threshold); got != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := ceremony.CheckCommitments(infinity, 2); !errors.Is(err, ceremony.ErrDeal) {
		t.Errorf("CheckCommitments: %v", err)
	}
}

func TestDealRefuses(t *testing.T) {
	secret := newSecret(t)
	order := bytes.Repeat([]byte{0xff}, ceremony.SecretSize)
	for name, c := range map[string]struct {
		secret       []byte
		threshold, n int
	}{
		"threshold 0":       {secret, 0, 3},
		"threshold above n": {secret, 4, 3},
		"too many":          {secret, 2, ceremony.MaxCustodians + 1},
		"short secret":      {secret[1:], 2, 3},
		"no secret":         {nil, 2, 3},
		"above the order":   {order, 2, 3},
		"zero secret":       {make([]byte, ceremony.SecretSize), 2, 3},
	} {
		if _, _, err := ceremony.Deal(c.secret, c.threshold, c.n); !errors.Is(err, ceremony.ErrDeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDealIsFresh(t *testing.T) {
	secret := newSecret(t)
	a, ca := deal(t, secret, 2, 2)
	b, cb := deal(t, secret, 2, 2)
	if !bytes.Equal(ca[0], cb[0]) {
		t.Error("the commitment to the same secret differs")
	}
	if bytes.Equal(ca[1], cb[1]) || bytes.Equal(a[0].Encode(), b[0].Encode()) {
		t.Error("two deals of one secret share their polynomial")
	}
}

func TestWipedShareIsUseless(t *testing.T) {
	shares, commitments := deal(t, newSecret(t), 1, 1)
	alias := shares[0]
	shares[0].Wipe()
	if err := alias.Verify(commitments, 1); !errors.Is(err, ceremony.ErrShare) {
		t.Fatalf("a copy outlived Wipe: %v", err)
	}
	ceremony.Share{}.Wipe()
}

func FuzzDecodeShareRoundTrip(f *testing.F) {
	shares, _ := deal(f, newSecret(f), 2, 2)
	f.Add(shares[0].Encode())
	f.Add([]byte{})
	f.Add(make([]byte, ceremony.ShareSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ceremony.DecodeShare(b)
		if err != nil {
			if !errors.Is(err, ceremony.ErrShare) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		if !slices.Equal(s.Encode(), b) {
			t.Fatal("a share has two encodings")
		}
	})
}
