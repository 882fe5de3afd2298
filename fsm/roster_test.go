package fsm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
)

// signedBy returns r with the signatures of those named.
func signedBy(r fsm.Roster, names ...string) fsm.Roster {
	r.Signatures = nil
	for _, name := range names {
		r.Signatures = append(r.Signatures, fsm.RosterSignature{
			Custodian: fsm.CustodianName(name), Signature: sign(name, fsm.RosterMessage(fsm.RosterHash(r))),
		})
	}
	return r
}

func rosterNodes(ids ...fsm.NodeID) []fsm.RosterNode {
	var all []fsm.RosterNode
	for _, id := range ids {
		all = append(all, fsm.RosterNode{ID: id, ExchangeKey: exchangeKey(string(id))})
	}
	return all
}

// chain is three versions: genesis, a node more signed by two, other custodians signed by two of the version before.
func chain() []fsm.Roster {
	first := signedBy(fsm.Roster{
		Version: 1, ClusterID: "demo", Threshold: 2, Custodians: custodians("ada", "bo", "cy"), Nodes: rosterNodes("n1", "n2"),
	}, "ada", "bo", "cy")
	second := first
	second.Version, second.Previous, second.Nodes = 2, fsm.RosterHash(first), rosterNodes("n1", "n2", "n3")
	second = signedBy(second, "cy", "ada")
	third := second
	third.Version, third.Previous, third.Custodians = 3, fsm.RosterHash(second), custodians("ada", "dee")
	return []fsm.Roster{first, second, signedBy(third, "bo", "cy")}
}

func TestVerifyRosterChain(t *testing.T) {
	for n := 1; n <= 3; n++ {
		if err := fsm.VerifyRosterChain(chain()[:n]); err != nil {
			t.Errorf("%d versions: %v", n, err)
		}
	}
}

func TestVerifyRosterChainRefuses(t *testing.T) {
	for name, spoil := range map[string]func(c []fsm.Roster) []fsm.Roster{
		"nothing":               func([]fsm.Roster) []fsm.Roster { return nil },
		"no genesis":            func(c []fsm.Roster) []fsm.Roster { return c[1:] },
		"a version left out":    func(c []fsm.Roster) []fsm.Roster { return append(c[:1], c[2]) },
		"genesis without one":   func(c []fsm.Roster) []fsm.Roster { c[0] = signedBy(c[0], "ada", "bo"); return c[:1] },
		"below the threshold":   func(c []fsm.Roster) []fsm.Roster { c[1] = signedBy(c[1], "ada"); return c[:2] },
		"one twice":             func(c []fsm.Roster) []fsm.Roster { c[1] = signedBy(c[1], "ada", "ada"); return c[:2] },
		"signed by the new":     func(c []fsm.Roster) []fsm.Roster { c[2] = signedBy(c[2], "ada", "dee"); return c },
		"a stranger among them": func(c []fsm.Roster) []fsm.Roster { c[1] = signedBy(c[1], "ada", "bo", "mal"); return c[:2] },
		"a node put in":         func(c []fsm.Roster) []fsm.Roster { c[1].Nodes = rosterNodes("n1", "n9"); return c[:2] },
		"another cluster": func(c []fsm.Roster) []fsm.Roster {
			c[1].ClusterID = "other"
			c[1] = signedBy(c[1], "ada", "bo")
			return c[:2]
		},
		"another version before": func(c []fsm.Roster) []fsm.Roster {
			c[1].Previous[0] ^= 1
			c[1] = signedBy(c[1], "ada", "bo")
			return c[:2]
		},
		"a genesis with a parent": func(c []fsm.Roster) []fsm.Roster {
			c[0].Previous[0] = 1
			c[0] = signedBy(c[0], "ada", "bo", "cy")
			return c[:1]
		},
		"a malformed roster": func(c []fsm.Roster) []fsm.Roster {
			c[0].Threshold = 0
			c[0] = signedBy(c[0], "ada", "bo", "cy")
			return c[:1]
		},
		"a short key":         func(c []fsm.Roster) []fsm.Roster { c[0].Custodians[0].SigningKey = []byte{1}; return c[:1] },
		"a flipped signature": func(c []fsm.Roster) []fsm.Roster { c[0].Signatures[0].Signature[5] ^= 1; return c[:1] },
	} {
		if err := fsm.VerifyRosterChain(spoil(chain())); !errors.Is(err, fsm.ErrRoster) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRosterHashCoversEverything but the signatures.
func TestRosterHashCoversEverything(t *testing.T) {
	base := fsm.RosterHash(chain()[1])
	for name, change := range map[string]func(r *fsm.Roster){
		"version": func(r *fsm.Roster) { r.Version++ }, "cluster": func(r *fsm.Roster) { r.ClusterID = "d" },
		"threshold": func(r *fsm.Roster) { r.Threshold++ }, "previous": func(r *fsm.Roster) { r.Previous[31]++ },
		"name":      func(r *fsm.Roster) { r.Custodians[0].Name = "a" },
		"recipient": func(r *fsm.Roster) { r.Custodians[0].Recipient = "a" },
		"key":       func(r *fsm.Roster) { r.Custodians[0].SigningKey = []byte("a") },
		"order":     func(r *fsm.Roster) { r.Custodians[0], r.Custodians[1] = r.Custodians[1], r.Custodians[0] },
		"fewer":     func(r *fsm.Roster) { r.Custodians = r.Custodians[:2] },
		"node":      func(r *fsm.Roster) { r.Nodes[0].ID = "a" }, "exchange key": func(r *fsm.Roster) { r.Nodes[0].ExchangeKey = []byte("a") },
	} {
		r := chain()[1]
		change(&r)
		if fsm.RosterHash(r) == base {
			t.Errorf("the hash does not cover the %s", name)
		}
	}
	r := chain()[1]
	r.Signatures = nil
	if fsm.RosterHash(r) != base {
		t.Error("the hash covers the signatures")
	}
}

// TestSignedMessagesAreFixed pins what custodians' programs of other releases sign, by values written down.
func TestSignedMessagesAreFixed(t *testing.T) {
	text := func(parts ...string) (b []byte) {
		for _, p := range parts {
			b = append(append(b, 0, 0, 0, byte(len(p))), p...)
		}
		return b
	}
	h := [32]byte{1}
	for name, pair := range map[string][2][]byte{
		"roster":          {fsm.RosterMessage(h), text("conclave/v1/roster signature", string(h[:]))},
		"commitment":      {fsm.CommitmentMessage("c", []byte("n"), "ada", []byte("v")), text("conclave/v1/entropy commitment", "c", "n", "ada", "v")},
		"acknowledgement": {fsm.AcknowledgementMessage("c", "ada", h), text("conclave/v1/share acknowledgement", "c", "ada", string(h[:]))},
		"unseal":          {fsm.UnsealRequestMessage("demo", "ada", []byte("n")), text("conclave/v1/unseal request", "demo", "ada", "n")},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %q, signed so far is %q", name, pair[0], pair[1])
		}
	}
	hash := fsm.RosterHash(fsm.Roster{Version: 1, ClusterID: "demo", Threshold: 1, Custodians: []fsm.Custodian{{Name: "a", Recipient: "r", SigningKey: []byte{1}}}})
	if got := hex.EncodeToString(hash[:]); got != rosterHashSoFar {
		t.Errorf("the roster's hash is %s, signed so far is %s", got, rosterHashSoFar)
	}
}

const rosterHashSoFar = "645162de5eb752c7be3bc352075de4b0c1b578f3eae3c1233e865a46e39365b3"
