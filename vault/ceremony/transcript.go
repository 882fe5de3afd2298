package ceremony

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/conclave-vault/conclave/fsm"
)

// EntropyTranscript is the hash over what a genesis fixed before the deal; it goes into HashToSecret.
func EntropyTranscript(c fsm.Ceremony) [32]byte {
	return drawn("conclave/v1/ceremony/transcript-entropy", c).sum()
}

// Transcript is the hash over the whole genesis, with the Feldman commitments of the deal. Each custodian recomputes it and signs
// it in the acknowledgement, so that custodians who were shown different deals find out.
func Transcript(c fsm.Ceremony, commitments [][]byte) [32]byte {
	return drawn("conclave/v1/ceremony/transcript", c).list(commitments).sum()
}

// drawn frames what the draw depends on. Commitments stand in roster order, whatever the order in which they came; one that is
// missing is an empty field, which no commitment is.
func drawn(domain string, c fsm.Ceremony) frame {
	roster := fsm.RosterHash(c.Roster)
	f := newFrame(domain).text(string(c.ID)).bytes(c.Nonce).bytes(roster[:]).text(string(c.Dealer)).bytes(c.DealerCommitment)
	f = f.number(len(c.Roster.Custodians))
	for _, custodian := range c.Roster.Custodians {
		f = f.text(string(custodian.Name)).bytes(commitmentOf(c, custodian.Name))
	}
	return f
}

func commitmentOf(c fsm.Ceremony, who fsm.CustodianName) []byte {
	i := slices.IndexFunc(c.Commitments, func(e fsm.EntropyCommitment) bool { return e.Custodian == who })
	if i < 0 {
		return nil
	}
	return c.Commitments[i].Commitment
}

// Place is a custodian's place in the roster, from 1: the number of its share. ErrNotInRoster.
func Place(r fsm.Roster, who fsm.CustodianName) (uint16, error) {
	i := slices.IndexFunc(r.Custodians, func(c fsm.Custodian) bool { return c.Name == who })
	if i < 0 || i >= MaxCustodians {
		return 0, fmt.Errorf("%w: %s", ErrNotInRoster, who)
	}
	return uint16(i + 1), nil
}

// CheckMember tells whether the roster names exactly this custodian: the same name with both keys. A roster with the right name
// and foreign keys would send the share to a stranger. ErrNotInRoster.
func CheckMember(r fsm.Roster, c fsm.Custodian) error {
	place, err := Place(r, c.Name)
	if err != nil {
		return err
	}
	listed := r.Custodians[place-1]
	if listed.Recipient != c.Recipient || !bytes.Equal(listed.SigningKey, c.SigningKey) {
		return fmt.Errorf("%w: %s is listed with other keys than this identity's", ErrNotInRoster, c.Name)
	}
	return nil
}
