package ceremony_test

import (
	"crypto/rand"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

func randomBytes(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func newSecret(t testing.TB) ceremony.Secret {
	t.Helper()
	s, err := ceremony.HashToSecret(randomBytes(t, 32), [][]byte{randomBytes(t, 32)}, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deal(t testing.TB, secret []byte, threshold, n int) ([]ceremony.Share, [][]byte) {
	t.Helper()
	shares, commitments, err := ceremony.Deal(secret, threshold, n)
	if err != nil {
		t.Fatal(err)
	}
	return shares, commitments
}

func newIdentity(t testing.TB, name string) *ceremony.Identity {
	t.Helper()
	id, err := ceremony.NewIdentity(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// genesis is a ceremony as a custodian sees it before the deal.
func genesis(t testing.TB, names ...string) (fsm.Ceremony, []*ceremony.Identity) {
	t.Helper()
	c := fsm.Ceremony{
		ID: "0193a1b2-0000-7000-8000-000000000001", Purpose: fsm.PurposeGenesis, Nonce: randomBytes(t, 32),
		Dealer: "n1", DealerCommitment: randomBytes(t, 32),
		Roster: fsm.Roster{Version: 1, ClusterID: "c1", Threshold: 2, Nodes: []fsm.RosterNode{{ID: "n1", ExchangeKey: randomBytes(t, 65)}}},
	}
	var ids []*ceremony.Identity
	for _, name := range names {
		id := newIdentity(t, name)
		ids = append(ids, id)
		c.Roster.Custodians = append(c.Roster.Custodians, id.Public())
		c.Commitments = append(c.Commitments, fsm.EntropyCommitment{Custodian: id.Name(), Commitment: randomBytes(t, 32)})
	}
	return c, ids
}
