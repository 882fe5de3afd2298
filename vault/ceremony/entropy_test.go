package ceremony_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

func TestCommitmentBindsEveryField(t *testing.T) {
	entropy := [32]byte(randomBytes(t, 32))
	nonce := randomBytes(t, 32)
	commitment := ceremony.CommitEntropy("id", nonce, "alice", entropy)
	if err := ceremony.CheckEntropy(commitment[:], "id", nonce, "alice", entropy[:]); err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(entropy[:])
	other[31] ^= 1
	for name, err := range map[string]error{
		"ceremony":   ceremony.CheckEntropy(commitment[:], "id2", nonce, "alice", entropy[:]),
		"nonce":      ceremony.CheckEntropy(commitment[:], "id", nonce[1:], "alice", entropy[:]),
		"custodian":  ceremony.CheckEntropy(commitment[:], "id", nonce, "bob", entropy[:]),
		"entropy":    ceremony.CheckEntropy(commitment[:], "id", nonce, "alice", other),
		"size":       ceremony.CheckEntropy(commitment[:], "id", nonce, "alice", entropy[1:]),
		"commitment": ceremony.CheckEntropy(nil, "id", nonce, "alice", entropy[:]),
	} {
		if !errors.Is(err, ceremony.ErrEntropy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDealerCommitmentBindsEveryField(t *testing.T) {
	random, nonce := randomBytes(t, 32), randomBytes(t, 32)
	commitment := ceremony.DealerCommitment("id", nonce, "n1", random)
	if err := ceremony.CheckDealer(commitment[:], "id", nonce, "n1", random); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"ceremony": ceremony.CheckDealer(commitment[:], "id2", nonce, "n1", random),
		"nonce":    ceremony.CheckDealer(commitment[:], "id", nonce[1:], "n1", random),
		"node":     ceremony.CheckDealer(commitment[:], "id", nonce, "n2", random),
		"random":   ceremony.CheckDealer(commitment[:], "id", nonce, "n1", random[1:]),
		"none":     ceremony.CheckDealer(nil, "id", nonce, "n1", random),
	} {
		if !errors.Is(err, ceremony.ErrEntropy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A custodian named like the dealing node cannot pass its commitment off as the node's.
	if ceremony.CommitEntropy("id", nonce, "n1", [32]byte(random)) == commitment {
		t.Error("the two kinds of commitment are one")
	}
}

// Every input changes the secret: no contribution is left out.
func TestHashToSecretUsesEveryInput(t *testing.T) {
	hsm, e := randomBytes(t, 32), [][]byte{randomBytes(t, 32), randomBytes(t, 32)}
	first, err := ceremony.HashToSecret(hsm, e, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := ceremony.HashToSecret(hsm, e, [32]byte{}); !bytes.Equal(first, again) {
		t.Error("it is not a function of its inputs")
	}
	seen := map[string]string{string(first): "first"}
	for name, in := range map[string]struct {
		hsm        []byte
		e          [][]byte
		transcript [32]byte
	}{
		"hsm":        {randomBytes(t, 32), e, [32]byte{}},
		"first":      {hsm, [][]byte{randomBytes(t, 32), e[1]}, [32]byte{}},
		"last":       {hsm, [][]byte{e[0], randomBytes(t, 32)}, [32]byte{}},
		"order":      {hsm, [][]byte{e[1], e[0]}, [32]byte{}},
		"fewer":      {hsm, e[:1], [32]byte{}},
		"transcript": {hsm, e, [32]byte{1}},
		"boundary":   {append(bytes.Clone(hsm), e[0]...), e[1:], [32]byte{}},
	} {
		s, err := ceremony.HashToSecret(in.hsm, in.e, in.transcript)
		if err != nil || len(s) != ceremony.SecretSize {
			t.Fatalf("%s: %d bytes, %v", name, len(s), err)
		}
		if other, dup := seen[string(s)]; dup {
			t.Errorf("%s gives the secret of %s", name, other)
		}
		seen[string(s)] = name
	}
}

func TestHashToSecretRefuses(t *testing.T) {
	good := randomBytes(t, 32)
	for name, in := range map[string]struct {
		hsm []byte
		e   [][]byte
	}{
		"short hsm":       {good[1:], [][]byte{good}},
		"no contribution": {good, nil},
		"short entropy":   {good, [][]byte{good, good[1:]}},
		"long entropy":    {good, [][]byte{append(bytes.Clone(good), 1)}},
	} {
		if _, err := ceremony.HashToSecret(in.hsm, in.e, [32]byte{}); !errors.Is(err, ceremony.ErrEntropy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTranscriptCoversEveryField(t *testing.T) {
	base, _ := genesis(t, "alice", "bob", "carol")
	feldman := [][]byte{randomBytes(t, 49), randomBytes(t, 49)}
	drawn, whole := ceremony.EntropyTranscript(base), ceremony.Transcript(base, feldman)
	for name, change := range map[string]func(*fsm.Ceremony){
		"id":         func(c *fsm.Ceremony) { c.ID += "x" },
		"nonce":      func(c *fsm.Ceremony) { c.Nonce = c.Nonce[1:] },
		"threshold":  func(c *fsm.Ceremony) { c.Roster.Threshold++ },
		"dealer":     func(c *fsm.Ceremony) { c.Dealer = "n2" },
		"dealer's":   func(c *fsm.Ceremony) { c.DealerCommitment = randomBytes(t, 32) },
		"commitment": func(c *fsm.Ceremony) { c.Commitments[1].Commitment = randomBytes(t, 32) },
		"missing":    func(c *fsm.Ceremony) { c.Commitments = c.Commitments[:2] },
	} {
		c := base
		c.Commitments = append([]fsm.EntropyCommitment(nil), base.Commitments...)
		change(&c)
		if ceremony.EntropyTranscript(c) == drawn || ceremony.Transcript(c, feldman) == whole {
			t.Errorf("%s is not covered", name)
		}
	}
	if ceremony.Transcript(base, feldman[:1]) == whole || ceremony.Transcript(base, [][]byte{feldman[1], feldman[0]}) == whole {
		t.Error("the Feldman commitments are not covered")
	}
	if ceremony.Transcript(base, nil) == drawn {
		t.Error("the two transcripts are one")
	}
}

// The order in which commitments came does not matter, the roster's does.
func TestTranscriptStandsInRosterOrder(t *testing.T) {
	c, _ := genesis(t, "alice", "bob")
	before := ceremony.EntropyTranscript(c)
	c.Commitments[0], c.Commitments[1] = c.Commitments[1], c.Commitments[0]
	if ceremony.EntropyTranscript(c) != before {
		t.Error("the order of arrival changes the transcript")
	}
}

func TestPlaceAndMember(t *testing.T) {
	c, ids := genesis(t, "alice", "bob")
	if n, err := ceremony.Place(c.Roster, "bob"); n != 2 || err != nil {
		t.Errorf("bob is at %d, %v", n, err)
	}
	if _, err := ceremony.Place(c.Roster, "mallory"); !errors.Is(err, ceremony.ErrNotInRoster) {
		t.Errorf("mallory: %v", err)
	}
	if err := ceremony.CheckMember(c.Roster, ids[1].Public()); err != nil {
		t.Error(err)
	}
	// Same name, other keys: an impostor's roster.
	if err := ceremony.CheckMember(c.Roster, newIdentity(t, "bob").Public()); !errors.Is(err, ceremony.ErrNotInRoster) {
		t.Errorf("foreign keys: %v", err)
	}
}
